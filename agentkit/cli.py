"""The command line: ``agentkit --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentkit.errors import AgentkitError, InvalidValue, UnknownName
from agentkit.memory_cli import app as memory_app
from agentkit.terminal import line, table
from agentkit.types import Episode, load

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

    if not path.is_file() or not path.stat().st_size:  # an empty file would become a run log
        raise InvalidValue(f"{path} is {'an empty file' if path.is_file() else 'no file'}, and no run log.")
    with RunLog(path) as opened:
        if episode is not None:
            _show_episode(opened, episode)
        elif run is not None:
            _show_run(opened, run)
        else:
            _show_runs(opened)


def _show_runs(opened: RunLog) -> None:
    rows = opened.query(
        """select run, count(*) n, max(trial) + 1 trials, avg(success) rate, sum(error <> '') broken,
           sum(prompt_tokens + completion_tokens) tokens from episodes group by run order by min(rowid)"""
    )
    table(
        ["run", "episodes", "trials", "solved", "broken", "tokens"],
        (
            [r["run"], str(r["n"]), str(r["trials"]), f"{r['rate']:.0%}", str(r["broken"]), f"{r['tokens']:,}"]
            for r in rows
        ),
        title=opened.path,
    )
    line(f"One run: agentkit log {opened.path} --run NAME. Or any SQL client: it is an SQLite database.")


def _show_run(opened: RunLog, name: str) -> None:
    if name not in opened.names():
        raise UnknownName.among("run", name, opened.names())
    rows = opened.query(
        """select id, task, trial, stop_reason, steps, json_array_length(memory_ids) recalled from episodes
           where run=:run order by round, position""",
        run=name,
    )
    table(
        ["episode", "trial", "outcome", "steps", "memories", "task"],
        (
            [r["id"], str(r["trial"] + 1), r["stop_reason"], str(r["steps"]), str(r["recalled"]), r["task"]]
            for r in rows
        ),
        title=name,
    )
    line(f"One episode: agentkit log {opened.path} --episode ID")


def _show_episode(opened: RunLog, id_: str) -> None:
    rows = opened.query("select body from episodes where id=:id", id=id_)
    if not rows:
        raise UnknownName.among("episode", id_, [row["id"] for row in opened.query("select id from episodes")])
    episode = load(Episode, rows[0]["body"])
    line(f"{episode.task.name}: {episode.stop_reason}", style="bold")
    line(f"Goal: {episode.goal}")
    for step in episode.steps:
        line(f"\n{step.observation.strip()}")
        thought = f"  ({step.action.thought})" if step.action.thought else ""
        line(f"> {step.action.text}{thought}", style="bold")
        line(f"reward {step.reward:g}; records that shaped it: {list(step.action.memory_ids)}", style="dim")
        if step.feedback:
            line(step.feedback)
    if episode.steps:
        line(f"\n{episode.steps[-1].next_observation.strip()}")
    for row in opened.query("select success, score, critique from judgements where episode=:id", id=id_):
        verdict = "a success" if row["success"] else "no success"
        line(f"\nJudged {verdict}, score {row['score']:g}. {row['critique']}".rstrip(), style="dim")
    if episode.error:
        line(f"\n{episode.error}", style="red")


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
        line(f"agentkit: {error}", stderr=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
