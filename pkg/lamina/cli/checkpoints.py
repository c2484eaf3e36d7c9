"""What `lamina checkpoints` and `lamina retain` print."""

from __future__ import annotations

import sys
from typing import Any

import polars as pl
import typer
from rich.console import Console
from rich.text import Text

from lamina.cli.show import plain, table
from lamina.errors import LaminaError, NotFoundError
from lamina.runs import Run
from lamina.runs.nearest import nearest_steps
from lamina.runs.retention import Retention
from lamina.text import size

_SHOWN = 40
"""Most checkpoints that stay of which each is shown before the others are hidden."""


def show_checkpoints(runs: list[Run], step: int | None, console: Console) -> None:
    """Print a line a step and part; of one step a line a tensor."""
    for run in runs:
        if len(runs) > 1:
            console.print(Text(plain(run.name), style="bold"))
        frame = _summed(run) if step is None else _tensors(run, step)
        console.print(table(frame) if frame.height else Text("no checkpoints"))


def _summed(run: Run) -> pl.DataFrame:
    tensors = run.checkpoints().group_by("step", "part")
    sums = tensors.agg(pl.len().alias("tensors"), pl.col("bytes").sum(), pl.col("stored").sum())
    # parts without tensors are checkpoints, too
    parts = [(step, part) for step, names in run.saved_parts().items() for part in names]
    named = pl.LazyFrame(parts, {"step": pl.Int64, "part": pl.String}, orient="row")
    joined = named.join(sums, ["step", "part"], "left", maintain_order="left").collect()
    return joined.with_columns(pl.col("tensors").fill_null(0), *_in_words())


def _tensors(run: Run, step: int) -> pl.DataFrame:
    parts = run.saved_parts()
    if step not in parts:
        raise NotFoundError(f"{run.name} has no checkpoint at step {step}", hint=nearest_steps(step, sorted(parts)))
    frame = run.checkpoints().filter(step=step).drop("step").collect()
    return frame.with_columns(*_in_words())


def _in_words() -> list[pl.Expr]:
    return [pl.col(name).fill_null(0).map_elements(size, return_dtype=pl.String) for name in ("bytes", "stored")]


def show_retention(runs: list[Run], rules: dict[str, Any], yes: bool, console: Console) -> None:
    """Print what the rules would do to each run; do it if `yes`, or if somebody at a terminal says so."""
    plans = [run.retain(**rules) for run in runs]
    for run, plan in zip(runs, plans, strict=True):
        console.print(Text.assemble((f"{plain(run.name)}: ", "bold"), str(plan)))
        _show_plan(plan, console)
    if all(plan.hidden.is_empty() for plan in plans):
        return
    if not yes:
        if not sys.stdin.isatty():
            console.print("Nothing was hidden; with --yes it is.")
            return
        if not typer.confirm("Hide the others?"):
            return
    for run, plan in zip(runs, plans, strict=True):
        plan.apply()
        console.print(f"{plain(run.name)}: hidden; lamina compact and lamina gc reclaim the bytes")


def _show_plan(plan: Retention, console: Console) -> None:
    kept = plan.checkpoints.filter("kept").select("step", "part", "why")
    if kept.height > _SHOWN:
        console.print(Text(f"of those that stay the first and last {_SHOWN // 2}:"))
        kept = pl.concat([kept.head(_SHOWN // 2), kept.tail(_SHOWN // 2)])
    console.print(table(kept))
    for (part,), rows in plan.hidden.group_by("part", maintain_order=True):
        steps = rows["step"].sort().to_list()
        shown = [f"{step:,}" for step in steps]
        listed = ", ".join(shown if len(shown) <= _SHOWN else [*shown[: _SHOWN // 2], "…", *shown[-_SHOWN // 2 :]])
        console.print(Text.assemble((f"goes, of {plain(str(part))}: ", "bold"), listed), soft_wrap=True)


def counted(given: list[str] | None) -> dict[str, int] | None:
    """Return `{"loss": 3}` for `loss:3`; without a number it is one.

    Raises:
        LaminaError: What stands behind the colon is no number.
    """
    found: dict[str, int] = {}
    for one in given or []:
        name, colon, count = one.rpartition(":")
        try:
            found[name if colon else one] = int(count) if colon else 1
        except ValueError:
            raise LaminaError(f"{one!r} ends in no number", hint="such as --lowest validation/loss:3") from None
    return found or None
