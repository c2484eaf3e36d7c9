"""Checkpoints: saving named parts, loading them, and the frame of what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from lamina.errors import DamagedError, NotFoundError, SchemaError
from lamina.runs.buffers import empty_tensor
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.rebuilt import put_together
from lamina.runs.tree import take_apart

if TYPE_CHECKING:
    from lamina._core import Snapshot, Ticket, Writer

_SCHEMA = {
    "step": pl.Int64,
    "part": pl.String,
    "tensor": pl.String,
    "shape": pl.List(pl.Int64),
    "dtype": pl.String,
    "bytes": pl.Int64,
    "stored": pl.Int64,
}


def save(writer: Writer, parts: Mapping[str, Any], step: int) -> Ticket:
    """Stages the parts: every state is taken apart before anything is staged."""
    if not parts:
        raise SchemaError("a checkpoint needs at least one part", hint='for example {"model": model.state_dict()}')
    staged = []
    for name, state in parts.items():
        if not isinstance(name, str) or not name:
            raise SchemaError(f"a checkpoint's part is named {name!r}", hint="the names of parts are texts")
        pieces = take_apart(state)
        tensors = [(path, *flat) for path, flat in zip(pieces.names, pieces.tensors, strict=True)]
        staged.append((name, pieces.tree, pieces.scalars, tensors))
    return writer.save(step, staged)


def load(snapshot: Snapshot, step: int | Literal["last"], part: str | None) -> Any:
    """The state as saved, on the CPU; with `part=None`, a dict of all parts."""
    saved = dict(snapshot.checkpoints())
    if step == "last":
        # a step may hold other parts alone, such as the batch that a flight recorder kept
        steps = [one for one, parts in saved.items() if part is None or part in dict(parts)]
        if not steps:
            raise NotFoundError(f"the run has no checkpoint{f' with a part {part!r}' if saved else ''}")
        step = max(steps)
    if step not in saved:
        raise NotFoundError(f"no checkpoint at step {step}", hint=nearest_steps(step, sorted(saved)))
    parts = dict(saved[step])
    if part is None:
        return {name: _load_part(snapshot, step, name, tensors) for name, tensors in parts.items()}
    if part not in parts:
        raise NotFoundError(f"no part {part!r}", hint=nearest_names(part, parts))
    return _load_part(snapshot, step, part, parts[part])


def _load_part(snapshot: Snapshot, step: int, part: str, tensors: list[Any]) -> Any:
    tree, scalars, log = snapshot.part(step, part)
    loaded = []
    for index, (_, dtype, shape, _, _) in enumerate(tensors):
        tensor, data = empty_tensor(dtype, tuple(shape))
        snapshot.tensor(step, part, index, data)
        loaded.append(tensor)
    try:
        return put_together(tree, scalars, loaded)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"the state of part {part!r} at step {step} is not understood", log) from error


def parts_by_step(snapshot: Snapshot) -> dict[int, list[str]]:
    """The names of the parts at each step, also of those without tensors."""
    return {step: [name for name, _ in parts] for step, parts in snapshot.checkpoints()}


def frame(snapshot: Snapshot) -> pl.LazyFrame:
    """One row a step, part and tensor."""
    rows = [
        (step, part, name, list(shape), dtype, size, stored)
        for step, parts in snapshot.checkpoints()
        for part, tensors in parts
        for name, dtype, shape, size, stored in tensors
    ]
    return pl.LazyFrame(rows, schema=_SCHEMA, orient="row")
