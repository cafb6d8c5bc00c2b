"""Learning curves: success by trial, as a table, in the terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
from rich.table import Table

from agentkit.bench.compare import Comparison
from agentkit.bench.statistics import Interval, mean_interval
from agentkit.errors import MissingExtra


def check_installed() -> None:
    """Raises `MissingExtra` where what draws curves is not there: for a long run to ask at its start."""
    for library in ("plotext", "matplotlib"):
        if find_spec(library) is None:
            raise MissingExtra.of(library, "view")


def intervals(comparison: Comparison, arm: str) -> list[Interval]:
    """The share of tasks solved in each trial, with its interval."""
    solved = comparison.success(arm)
    return [mean_interval(solved[:, :, trial]) for trial in range(solved.shape[2])]


def table(comparison: Comparison, arms: Sequence[str]) -> Table:
    """Success by trial, a row an arm, with 95% intervals where there is more than one lifetime."""
    shape = comparison.success(arms[0]).shape
    title = f"Tasks solved by trial: {shape[1]} tasks, {shape[0]} lifetimes, 95% intervals"
    result = Table(title=title, title_justify="left")
    result.add_column("arm")
    for trial in range(shape[2]):
        result.add_column(f"trial {trial + 1}", justify="center")
    for arm in arms:
        cells = []
        for cell in intervals(comparison, arm):
            bounds = "" if cell.low is None or cell.high is None else f"\n[dim]{cell.low:.0%} to {cell.high:.0%}[/dim]"
            cells.append(f"{cell.estimate:.0%}{bounds}")
        result.add_row(arm, *cells)
    return result


def terminal(comparison: Comparison, arms: Sequence[str], *, width: int = 72, height: int = 16) -> str:
    """The curves as text. Needs the extra ``view``."""
    try:
        import plotext
    except ImportError as error:
        raise MissingExtra.of("plotext", "view") from error
    plotext.clear_figure()
    plotext.plot_size(width, height)
    plotext.theme("clear")
    for arm, marker in zip(arms, cycle("●○▲△■□"), strict=False):
        rates = comparison.by_trial(arm)
        plotext.plot([*range(1, len(rates) + 1)], rates, label=arm, marker=marker)
    trials = comparison.success(arms[0]).shape[2]
    plotext.xticks([*range(1, trials + 1)])
    plotext.ylim(0, 1)
    plotext.xlabel("trial")
    plotext.ylabel("tasks solved")
    return str(plotext.uncolorize(plotext.build()))


def picture(comparison: Comparison, arms: Sequence[str], path: str | Path, *, title: str = "") -> Path:
    """The curves with their intervals, as a PNG. Needs the extra ``view``."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.of("matplotlib", "view") from error
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for arm, marker in zip(arms, cycle("os^vDPX*<"), strict=False):
        cells = intervals(comparison, arm)
        trials = np.arange(1, len(cells) + 1)
        rates = np.array([cell.estimate for cell in cells])
        (line,) = axes.plot(trials, rates, marker=marker, label=arm)
        bounds = [(cell.low, cell.high) for cell in cells]
        if all(low is not None for low, _ in bounds):
            low, high = np.array(bounds, float).T
            axes.fill_between(trials, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("trial")
    axes.set_ylabel("share of tasks solved")
    axes.set_xticks(trials)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    if title:
        axes.set_title(title, fontsize=10)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
