"""Which checkpoints a snapshot holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl
from polars.io.plugins import register_io_source

from lamina._core import ATTACHED
from lamina.errors import NotFoundError
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.scan.predicates import all_of, passing, split
from lamina.runs.steps import checkpoint_step

if TYPE_CHECKING:
    from lamina._core import Snapshot

_SCHEMA = {
    "step": pl.Int64(),
    "part": pl.String(),
    "tensor": pl.String(),
    "shape": pl.List(pl.Int64()),
    "dtype": pl.String(),
    "bytes": pl.Int64(),
    "stored": pl.Int64(),
}


class SavedTensor(NamedTuple):
    """A tensor of a layout."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class SavedPart(NamedTuple):
    """A part of a checkpoint.

    Attributes:
        step: Of which step.
        name: Its name.
        time: When it was saved: microseconds since the epoch, UTC.
        layout: Which layout it has.
        stored: Numbers of the tensors of which a chunk is new, and how many bytes that are.
    """

    step: int
    name: str
    time: int
    layout: int
    stored: list[tuple[int, int]]

    def __str__(self) -> str:
        """What it is called in messages."""
        return f"attachment {self.name!r}" if self.step == ATTACHED else f"part {self.name!r} at step {self.step}"


class Saved:
    """The checkpoints of a snapshot. Parts of many saves share a layout, and so they do here."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.passed_over: list[tuple[str, str, int | None]] = []
        """What was found damaged while it was loaded, and left out: message, file, offset."""

    @cached_property
    def _listed(self) -> tuple[list[list[SavedTensor]], dict[int, dict[str, SavedPart]]]:
        layouts, parts = self.snapshot.checkpoints()
        steps: dict[int, dict[str, SavedPart]] = {}
        for part in parts:
            steps.setdefault(part[0], {})[part[1]] = SavedPart(*part)
        return [[SavedTensor(*tensor) for tensor in tensors] for tensors in layouts], steps

    @cached_property
    def by_step(self) -> dict[int, dict[str, SavedPart]]:
        """The parts of every checkpoint, by step and name."""
        return {step: parts for step, parts in self._listed[1].items() if step != ATTACHED}

    @property
    def attached(self) -> dict[str, SavedPart]:
        """What is attached to the run, and of no step, by name."""
        return self._listed[1].get(ATTACHED, {})

    def tensors(self, part: SavedPart) -> list[SavedTensor]:
        """What a part consists of."""
        return self._listed[0][part.layout]

    def steps(self, part: str | None = None) -> list[int]:
        """The steps of all checkpoints, or of those that hold a part, ascending."""
        return [step for step, parts in self.by_step.items() if part is None or part in parts]

    def parts_by_step(self) -> dict[int, list[str]]:
        """The names of the parts at each step, also of those without tensors."""
        return {step: list(parts) for step, parts in self.by_step.items()}

    def at(self, step: int | Literal["last"], part: str | None) -> dict[str, SavedPart]:
        """The parts of a checkpoint, by name: one of them, or all.

        Raises:
            NotFoundError: There is no such checkpoint or part; the hint lists the nearest.
            SchemaError: The step is neither an integer nor "last".
        """
        step, steps = checkpoint_step(step), self.by_step
        if step == "last":
            # a step may hold other parts alone, such as the batch that a flight recorder kept
            if not (known := self.steps(part)):
                if part is None or not steps:
                    raise NotFoundError("the run has no checkpoint")
                every = {name for parts in steps.values() for name in parts}
                raise NotFoundError(f"no checkpoint with a part {part!r}", hint=nearest_names(part, every))
            step = known[-1]
        if step not in steps:
            raise NotFoundError(f"no checkpoint at step {step}", hint=nearest_steps(step, list(steps)))
        if part is None:
            return steps[step]
        if part not in steps[step]:
            raise NotFoundError(f"no part {part!r}", hint=nearest_names(part, steps[step]))
        return {part: steps[step][part]}

    def frame(self) -> pl.LazyFrame:
        """One row a step, part and tensor; made part by part, when it is collected."""
        return register_io_source(self._batches, schema=pl.Schema(_SCHEMA), is_pure=True)

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        layouts, steps = self._listed[0], self.by_step
        shared: dict[int, pl.DataFrame] = {}
        parts = [part for of_step in steps.values() for part in of_step.values()]
        heads = pl.DataFrame(
            {"step": [part.step for part in parts], "part": [part.name for part in parts]},
            schema={name: _SCHEMA[name] for name in ("step", "part")},
        )
        terms = split(predicate, ["step", "part"])
        early, late = all_of(terms.early), all_of(terms.late)
        wanted = range(len(parts)) if early is None else passing(heads, early).tolist()
        left = n_rows
        for part in (parts[at] for at in wanted):
            if left is not None and left <= 0:
                return
            if (tensors := shared.get(part.layout)) is None:
                tensors = shared[part.layout] = _frame(layouts[part.layout])
            stored = dict(part.stored)
            batch = tensors.select(
                pl.lit(part.step, pl.Int64).alias("step"),
                pl.lit(part.name, pl.String).alias("part"),
                pl.all(),
                pl.Series("stored", [stored.get(at, 0) for at in range(tensors.height)], pl.Int64),
            )
            if late is not None:
                batch = batch[passing(batch, late)]
            if left is not None:
                batch = batch.head(left)
                left -= batch.height
            yield batch if with_columns is None else batch[with_columns]


def _frame(tensors: list[SavedTensor]) -> pl.DataFrame:
    """What is alike in all parts of a layout."""
    columns = {
        "tensor": [tensor.name for tensor in tensors],
        "shape": [list(tensor.shape) for tensor in tensors],
        "dtype": [tensor.dtype for tensor in tensors],
        "bytes": [tensor.bytes for tensor in tensors],
    }
    return pl.DataFrame(columns, schema={name: _SCHEMA[name] for name in columns})
