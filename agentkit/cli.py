"""The command line: ``agentkit --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentkit.errors import AgentkitError, InvalidValue, UnknownName
from agentkit.memory_cli import app as memory_app

if TYPE_CHECKING:
    from agentkit.runlog import RunLog

app = typer.Typer(help="Language agents with reflective memory.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(memory_app, name="memory", help="Look into a memory, and change it.")


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Chooses the games and every random choice.", min=0)] = 0,
    model: Annotated[str, typer.Option(help="The language model.")] = "local/smollm2-135m",
    quick: Annotated[bool, typer.Option("--quick", help="A small one, in under a minute.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where the run goes; runs/demo/seed-N by default.")] = None,
) -> None:
    """An agent that learns by trial in TextWorld, with memory and without."""
    from agentkit.demo import QUICK, Size, main

    raise typer.Exit(main(seed, model=model, size=QUICK if quick else Size(), folder=folder))


@app.command()
def log(
    path: Annotated[Path, typer.Argument(help="A run log.")],
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    episode: Annotated[str | None, typer.Option(help="Show this episode step by step.")] = None,
) -> None:
    """Look at a run log: its runs, the episodes of a run, or one episode with what it recalled."""
    from agentkit.runlog import RunLog

    if not path.is_file():
        raise InvalidValue(f"There is no file {path}.")
    console = Console(highlight=False)
    with RunLog(path) as opened:
        if episode is not None:
            _show_episode(opened, episode, console)
        elif run is not None:
            _show_run(opened, run, console)
        else:
            table = Table("run", "episodes", "trials", "solved", "broken", "tokens", title=str(path))
            for row in opened.query(
                """select run, count(*) n, max(trial) + 1 trials, avg(success) rate, sum(error <> '') broken,
                   sum(prompt_tokens + completion_tokens) tokens from episodes group by run order by min(rowid)"""
            ):
                rate = f"{row['rate']:.0%}"
                table.add_row(
                    row["run"], str(row["n"]), str(row["trials"]), rate, str(row["broken"]), f"{row['tokens']:,}"
                )
            console.print(table)
            console.print(f"One run: agentkit log {path} --run NAME. Or any SQL client: it is an SQLite database.")


def _show_run(opened: RunLog, name: str, console: Console) -> None:
    if name not in opened.names():
        raise UnknownName.among("run", name, opened.names())
    table = Table("episode", "task", "trial", "outcome", "steps", "memories", title=name)
    for row in opened.query(
        """select id, task, trial, stop_reason, steps, json_array_length(memory_ids) recalled from episodes
           where run=:run order by round, position""",
        run=name,
    ):
        table.add_row(
            *(escape(str(row[k])) for k in ("id", "task")),
            str(row["trial"] + 1),
            row["stop_reason"],
            str(row["steps"]),
            str(row["recalled"]),
        )
    console.print(table)


def _show_episode(opened: RunLog, id_: str, console: Console) -> None:
    rows = opened.query("select task, stop_reason, error, success from episodes where id=:id", id=id_)
    if not rows:
        raise UnknownName.among("episode", id_, [row["id"] for row in opened.query("select id from episodes")])
    console.print(f"[bold]{escape(rows[0]['task'])}[/bold]: {rows[0]['stop_reason']}")
    for step in opened.query("select * from steps where episode=:id order by step", id=id_):
        console.print(f"\n{step['observation'].strip()}", markup=False)
        thought = f"  ({step['thought']})" if step["thought"] else ""
        console.print(f"> {step['action']}{thought}", markup=False, style="bold")
        console.print(
            f"reward {step['reward']:g}; records that shaped it: {step['memory_ids']}", style="dim", markup=False
        )
    if rows[0]["error"]:
        console.print(rows[0]["error"], markup=False, style="red")


@app.command()
def envs() -> None:
    """The environments that can be named."""
    from agentkit.envs.registration import env_ids

    for name in env_ids():
        print(name)


def main() -> None:
    """The entry point. An error that agentkit raises on purpose is one line; any other keeps its traceback."""
    try:
        app()
    except AgentkitError as error:
        print(f"agentkit: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
