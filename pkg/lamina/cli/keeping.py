"""What the commands that keep a run print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lamina.cli.show import plain, table
from lamina.cli.target import members, open_target, warn_of_problems
from lamina.errors import LaminaError
from lamina.runs import Run


def show_verification(runs: list[Run], console: Console) -> bool:
    """Check each run and print what was found; returns whether all is well."""
    well = True
    for run in runs:
        found = run.verify()
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), str(found)))
        if not found.ok:
            console.print(table(found.problems))
        well &= found.ok
    return well


def show_compaction(runs: list[Run], cold: list[str], console: Console) -> None:
    """Compact each run, with these sites cold, and print what was done."""
    for run in runs:
        done = run.compact(cold=cold)
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), str(done)))
        if not done.problems.is_empty():
            console.print(table(done.problems))


def show_collection(runs: list[Run], grace: float | None, console: Console) -> None:
    """Collect the garbage of each run and print what was done, and what was left and why."""
    for run in runs:
        done = run.gc(grace=grace)
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), str(done)))
        if not done.left.is_empty():
            console.print(table(done.left))


def show_copy(run: Path, target: Path, console: Console) -> None:
    """Copy a run and print what the copy holds."""
    opened = open_target(str(run))
    if not isinstance(opened, Run):
        raise LaminaError(f"{run} is a folder of runs", hint="copy one after the other, or merge them")
    warn_of_problems(opened)
    console.print(_held(opened.copy(target)))


def show_merge(target: Path, runs: list[str], config: str | None, console: Console) -> None:
    """Merge runs, with this JSON text as config if there is any, and print what the new one holds."""
    import lamina

    chosen = None
    if config is not None:
        try:
            chosen = json.loads(config)
        except ValueError as error:
            raise LaminaError(f"--config is no JSON: {error}", hint="such as '{\"nodes\": 4}'") from None
    given = [opened for name in runs for opened in members(open_target(name))]
    for one in given:
        warn_of_problems(one)
    merged = lamina.merge(given, target, config=chosen)
    console.print(_held(merged))
    console.print(table(merged.sources().select("run", "id", "writer_shift", "row_shift")))


def _held(run: Run) -> Text:
    rows = sum(run.sites()["rows"].to_list())
    return Text.assemble((f"{plain(run.name)}: ", "bold"), f"{rows:,} values of {run.sites().height:,} sites")


def deletion(sites: list[str], steps: list[str], rows: list[str]) -> dict[str, Any]:
    """Return the arguments of `Run.delete` for what was asked for on the command line.

    Raises:
        LaminaError: A span is no number, or not two with a colon between them.
    """
    found: dict[str, Any] = {"sites": sites or None}
    if steps:
        if len(steps) > 1:
            raise LaminaError("--steps is given twice", hint="delete one span after another")
        found["steps"] = slice(_span(steps[0], "--steps")[0], _span(steps[0], "--steps")[1] + 1)
    if rows:
        spans = [_span(one, "--rows") for one in rows]
        found["rows"] = [name for first, last in spans for name in range(first, last + 1)]
    return found


def _span(text: str, option: str) -> tuple[int, int]:
    try:
        first, last = (int(part) for part in (text.split(":") if ":" in text else (text, text)))
    except ValueError:
        raise LaminaError(f"{option} does not take {text!r}", hint="give a number, or FIRST:LAST") from None
    return first, last
