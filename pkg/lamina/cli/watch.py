"""A run while it grows."""

from __future__ import annotations

import time
import warnings

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lamina.cli.show import plain, table
from lamina.errors import LaminaWarning
from lamina.runs import Run
from lamina.text import size

_EVERY = 1.0
"""Seconds between two looks."""
_METRICS = 20
"""Most metrics shown."""


def watch_run(run: Run, console: Console) -> None:
    """Show the run once a second until nobody writes to it any more, or Ctrl-C; a line a change where nothing can move.

    A run that nobody wrote to yet is waited for.
    """
    rates = _Rates()
    moving = console.is_terminal
    with Live(console=console, auto_refresh=False) if moving else _Lines(console) as shown, warnings.catch_warnings():
        warnings.simplefilter("ignore", LaminaWarning)
        try:
            while True:
                shown.update(_view(run, rates) if moving else _headline(run, rates), refresh=True)
                if run.status.state not in ("empty", "running"):
                    return
                time.sleep(_EVERY)
                run.refresh()
        except KeyboardInterrupt:
            return


class _Lines:
    """Stands for a live display: prints what differs from what it printed last."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, ""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, line: RenderableType, *, refresh: bool) -> None:
        if str(line) != self._last:
            self._console.print(line)
        self._last = str(line)


class _Rates:
    """Rows a second since the last look."""

    def __init__(self) -> None:
        self._before: tuple[float, int] | None = None

    def of(self, rows: int) -> float | None:
        now, before = time.monotonic(), self._before
        self._before = now, rows
        return None if before is None else (rows - before[1]) / max(now - before[0], 1e-9)


def _headline(run: Run, rates: _Rates) -> Text:
    sites, steps, status = run.sites(), run.steps(), run.status
    working = sum(writer.state == "running" for writer in status.writers)
    rows = int(sites["rows"].sum())
    facts = [f"{working} of {len(status.writers)} writers at work" if status.writers else "nobody wrote yet"]
    facts += [f"{rows:,} rows in {sites.height} site{'s' * (sites.height != 1)}, {size(int(sites['bytes'].sum()))}"]
    facts += [f"step {steps[-1]:,}"] if steps else []
    if (rate := rates.of(rows)) is not None and run.status.state == "running":
        facts.append(f"{rate:,.0f} rows/s")
    facts += [f"{len(run.problems)} problem{'s' * (len(run.problems) != 1)}"] if run.problems else []
    return Text.assemble((f"{plain(run.name)}: ", "bold"), plain(str(status)), ", ", ", ".join(facts))


def _view(run: Run, rates: _Rates) -> Group:
    sites = run.sites().select("site", "dtype", "rows", "steps", pl.col("bytes").map_elements(size, pl.String))
    metrics = run.metrics().group_by("name", "source", "site", maintain_order=True)
    last = metrics.agg(pl.col("step").last(), pl.col("value").last()).head(_METRICS).collect()
    return Group(_headline(run, rates), *(table(frame) for frame in (sites, last) if not frame.is_empty()))
