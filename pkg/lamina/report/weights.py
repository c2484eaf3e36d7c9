"""The section on the weights: how far each has moved since step 0, and how fast it moves between checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.plot import curves
from lamina.plot.steps import spread_steps
from lamina.report.choice import is_wide, names_of
from lamina.report.section import Picture, Section

if TYPE_CHECKING:
    from torch import Tensor

    from lamina.runs import Run

_CHECKPOINTS = 40
"""Most checkpoints read a run."""
_TENSORS = 12
"""Most weight matrices shown: the largest."""


def weights_section(runs: list[Run]) -> Section | None:
    """Return two charts of the weights' change, or None if no run has two checkpoints of its model.

    Cost: reads up to 40 checkpoints a run; three of them are in memory at a time.
    """
    frame = pl.concat([weights_frame(run, name) for run, name in zip(runs, names_of(runs), strict=True)])
    if frame.is_empty():
        return None
    first = int(frame.select(pl.col("from_start").min()).item())
    moved = frame.select("run", "weight", "step", value="moved")
    pace = frame.select("run", "weight", "step", value="pace")
    return Section(
        "Change of the weights",
        [
            Picture(
                curves(
                    moved,
                    title=f"How far each weight has moved since step {first:,}",
                    y="change / norm at the start (ratio)",
                    by="weight",
                    log=is_wide(moved["value"]),
                ),
                f"The Frobenius norm of the difference to the weights of step {first:,}, divided by the norm of those: "
                "at 1, a weight has moved as far as it was long.",
            ),
            Picture(
                curves(
                    pace,
                    title="How fast each weight moves between checkpoints",
                    y="change per step / norm at the start (1/step)",
                    by="weight",
                    log=is_wide(pace["value"]),
                ),
                "The norm of the difference between consecutive checkpoints, divided by the steps between them and by "
                "the norm at the start; drawn at the later one. Where the line falls, learning slows down.",
            ),
        ],
    )


def weights_frame(run: Run, name: str) -> pl.DataFrame:
    """Return run, weight, from_start (the first step), step, and the columns moved and pace (relative norms)."""
    schema = {
        "run": pl.String,
        "weight": pl.String,
        "from_start": pl.Int64,
        "step": pl.Int64,
        "moved": pl.Float64,
        "pace": pl.Float64,
    }
    part = _model_part(run)
    if part is None:
        return pl.DataFrame(schema=schema)
    saved = run.checkpoints().filter(pl.col("part") == part)
    steps = spread_steps(saved.select("step").unique().sort("step").collect()["step"].to_list(), _CHECKPOINTS)
    records = []
    start: dict[str, Tensor] = {}
    before: dict[str, Tensor] = {}
    for k, step in enumerate(steps):
        now = dict(_matrices(run.load(step, part=part)))
        if k == 0:
            largest = sorted(now, key=lambda weight: -now[weight].numel())[:_TENSORS]
            start = before = {weight: now[weight] for weight in now if weight in largest}
            continue
        for weight in start.keys() & now.keys():
            norm = float(start[weight].norm())
            if norm == 0 or start[weight].shape != now[weight].shape:
                continue
            moved = float((now[weight] - start[weight]).norm()) / norm
            pace = float((now[weight] - before[weight]).norm()) / norm / (step - steps[k - 1])
            records.append((name, weight, steps[0], step, moved, pace))
        before = {weight: now[weight] for weight in start}
    order = {weight: place for place, weight in enumerate(start)}
    records.sort(key=lambda record: (order[record[1]], record[3]))
    return pl.DataFrame(records, schema=schema, orient="row")


def _model_part(run: Run) -> str | None:
    """Return the part that holds the weights: `model`, or the only part there is."""
    parts = run.checkpoints().select("part").unique().sort("part").collect()["part"].to_list()
    return "model" if "model" in parts else parts[0] if len(parts) == 1 else None


def _matrices(state: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the name and value (f64) of every floating-point tensor of two or more dimensions in a nested state."""
    import torch

    if isinstance(state, torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(state)
        if tensor.is_floating_point() and tensor.ndim >= 2:
            yield prefix, tensor.detach().to(torch.float64)
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _matrices(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(state, list | tuple):
        for place, value in enumerate(state):
            yield from _matrices(value, f"{prefix}.{place}" if prefix else str(place))
