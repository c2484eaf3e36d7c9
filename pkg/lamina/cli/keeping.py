"""What the commands that keep a run print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import typer
from rich.console import Console
from rich.text import Text

from lamina.cli.show import plain, table
from lamina.cli.target import members, open_target, warn_of_problems
from lamina.errors import LaminaError
from lamina.runs import Run
from lamina.text import size


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


def show_indexing(runs: list[Run], sites: list[str] | None, console: Console) -> None:
    """Index the sparse codes of each run and print what was done, and a line a segment."""
    for run in runs:
        done = run.index(sites)
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), str(done)))
        built = pl.col("bytes").map_elements(lambda count: size(count) if count else "", return_dtype=pl.String)
        if not done.segments.is_empty():
            console.print(
                table(
                    done.segments.with_columns(built.alias("built"), pl.col("state").alias("was")).drop(
                        "bytes", "state"
                    )
                )
            )


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


def show_rewind(runs: list[Run], step: int, yes: bool, console: Console) -> None:
    """Say what is behind the step; take each run back to it if `yes` or somebody says so, and print what that hid.

    Raises:
        LaminaError: As `_agreed`.
    """
    for run in runs:
        steps, saved = run.steps(), list(run.saved_parts())
        rows, later = sum(at >= step for at in steps), sum(at > step for at in saved)
        text = f"behind step {step}: rows of {rows:,} of {len(steps):,} steps, {later:,} of {len(saved):,} checkpoints"
        text += "" if step in saved else f"; there is no checkpoint of step {step}"
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), text))
    if not _agreed("Hide them, and the metrics of these steps?", yes):
        return
    for run in runs:
        before = _shown(run)
        run.rewind(step)
        values, metrics, saved = (old - new for old, new in zip(before, _shown(run), strict=True))
        hidden = f"hidden: {values:,} values, {metrics:,} of metrics, {saved:,} checkpoint{'s' * (saved != 1)}"
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), f"went back to step {step}; {hidden}"))


def show_deletion(
    runs: list[Run], sites: list[str], steps: list[str], rows: list[str], yes: bool, console: Console
) -> None:
    """Delete from each run, if `yes` or somebody says so, and print how much that was.

    Raises:
        LaminaError: A span is no number, or not two with a colon between them; or as `_agreed`.
    """
    if len(steps) > 1:
        raise LaminaError("--steps is given twice", hint="delete one span after another")
    spans = [_span(one, "--steps") for one in steps]
    # one step is a step, which has to be there; of a span whatever is there
    chosen = None if not spans else slice(spans[0].start, spans[0].stop) if ":" in steps[0] else spans[0].start
    names = [_span(one, "--rows") for one in rows] or None
    if not _agreed(f"Delete this from {', '.join(plain(run.name) for run in runs)}?", yes):
        return
    for run in runs:
        before = _values(run)
        run.delete(sites or None, steps=chosen, rows=names)
        gone = before - _values(run)
        text = f"{gone:,} value{'s' * (gone != 1)} deleted"
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), text))


def _agreed(question: str, yes: bool) -> bool:
    """Whether `yes`, or somebody at a terminal says so.

    Raises:
        LaminaError: There is nobody to be asked.
    """
    if not yes and not sys.stdin.isatty():
        raise LaminaError("nothing was hidden: nobody is there to be asked", hint="--yes does it without asking")
    return yes or typer.confirm(question)


def _held(run: Run) -> Text:
    sites = run.sites().height
    text = f"{_values(run):,} values of {sites:,} site{'s' * (sites != 1)}"
    return Text.assemble((f"{plain(run.name)}: ", "bold"), text)


def _values(run: Run) -> int:
    """How many values the sites have: a row has one at each of its sites."""
    return sum(run.sites()["rows"].to_list())


def _shown(run: Run) -> tuple[int, int, int]:
    """How many values of sites and of metrics a run shows, and at how many steps checkpoints."""
    metrics = run.metrics().select(pl.len()).collect().item()
    return _values(run), metrics, len(run.saved_parts())


def _span(text: str, option: str) -> range:
    try:
        first, last = (int(part) for part in (text.split(":") if ":" in text else (text, text)))
    except ValueError:
        raise LaminaError(f"{option} does not take {text!r}", hint="give a number, or FIRST:LAST") from None
    if first > last:
        raise LaminaError(f"{option} {text} ends before it begins", hint="give FIRST:LAST, both included")
    return range(first, last + 1)
