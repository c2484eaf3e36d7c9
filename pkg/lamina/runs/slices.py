"""One tensor over many checkpoints, or some of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import NotFoundError, SchemaError
from lamina.runs.buffers import empty_tensor, torch_dtype
from lamina.runs.located import Located, Names
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.saved import Saved
from lamina.runs.steps import Steps, has_step, plain_steps
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    import torch

Rows = slice | Sequence[int] | None
"""What `rows=` takes."""

_NEAR = 1 << 17
"""Rows that lie closer together than this many bytes are read together: a block is verified as a whole."""
_AT_ONCE = 64 << 20
"""Bytes of scattered rows that are held at a time beside the result."""


def tensor(saved: Saved, name: str, *, steps: Steps = None, rows: Rows = None, part: str = "model") -> torch.Tensor:
    """Return one tensor at many steps: [steps, rows, …], on the CPU.

    Only the blocks of 128 KiB that the rows overlap are read, verified and, where they are coded, decoded; threads
    share the steps. Memory: the result.

    Args:
        saved: The checkpoints of a run.
        name: The tensor's name in the part's state: keys joined by dots, such as `blocks.1.mlp.weight` or
            `state.0.exp_avg`. A tied tensor is found by each of its names.
        steps: A step, several (the result is in their order), or a slice of steps; all by default. `saved_steps` with
            the same arguments lists the steps of the result.
        rows: A slice or numbers of places on the tensor's first axis; all by default.
        part: The part of the checkpoints.

    Raises:
        NotFoundError: No checkpoint has such a tensor, or one that was named has not; the hint lists the nearest.
        SchemaError: Its shape or dtype changes between the steps, a row is outside of it, or it has no rows.
        DamagedError: A block does not match its checksum: the message names the tensor, the step and the chunk.
    """
    found = _find(saved, name, steps, part)
    first_step, first = next(iter(found.items()))
    for step, one in found.items():
        if (one.shape, one.dtype) != (first.shape, first.dtype):
            raise SchemaError(
                f"tensor {name!r} is {first.dtype} {list(first.shape)} at step {first_step} and "
                f"{one.dtype} {list(one.shape)} at step {step}",
                hint="ask for the steps before and behind that one by one",
            )
    order = list(found)
    if isinstance(steps, Sequence) and not isinstance(steps, str):
        order = [index(step) for step in steps]
    if rows is None:
        return _read(saved, part, found, order, first, [(0, max(1, _length(first)))])
    if not first.shape:
        raise SchemaError(f"tensor {name!r} is a single number at each step", hint="leave out rows=")
    wanted = _numbers(rows, first.shape[0], name)
    if isinstance(wanted, range) and wanted.step == 1:
        return _read(saved, part, found, order, first, [(wanted.start, max(wanted.start, wanted.stop))])
    return _scattered(saved, part, found, order, first, np.asarray(wanted, dtype=np.int64))


def saved_steps(saved: Saved, name: str | None = None, *, steps: Steps = None, part: str = "model") -> list[int]:
    """The steps of the checkpoints that hold a part, ascending; with `name`, of those whose part has such a tensor."""
    if name is not None:
        return list(_find(saved, name, steps, part))
    return list(_asked(saved, steps, part))


def _length(located: Located) -> int:
    return located.shape[0] if located.shape else 1


def _asked(saved: Saved, steps: Steps, part: str) -> list[int]:
    """The steps that are asked for, ascending; those that are named must hold the part."""
    wanted, known = plain_steps(steps), saved.steps(part)
    if not known:
        names = {name for names in saved.parts_by_step().values() for name in names}
        raise NotFoundError(f"no checkpoint with a part {part!r}", hint=nearest_names(part, names))
    if wanted is None or isinstance(wanted, slice):
        return [step for step in known if wanted is None or has_step(wanted, step)]
    named, there = [wanted] if isinstance(wanted, int) else list(wanted), set(known)
    for step in named:
        if step not in there:
            raise NotFoundError(f"no checkpoint with a part {part!r} at step {step}", hint=nearest_steps(step, known))
    return sorted(set(named))


def _find(saved: Saved, name: str, steps: Steps, part: str) -> dict[int, Located]:
    """Where the tensor lies at each step that is asked for."""
    layouts: dict[int, tuple[Names, Located | None]] = {}
    found: dict[int, Located] = {}
    names = None
    for step in _asked(saved, steps, part):
        one = saved.at(step, part)[part]
        if one.layout not in layouts:
            names = Names(saved, one)
            layouts[one.layout] = (names, names.find(name))
        names, located = layouts[one.layout]
        if located is not None:
            found[step] = located
        elif steps is not None and not isinstance(steps, slice):
            raise names.nearest(name)
    if not found:
        if names is None:
            raise NotFoundError(f"no checkpoint with a part {part!r} at such a step: {steps}")
        raise names.nearest(name)
    return found


def _numbers(rows: Any, length: int, name: str) -> range | list[int]:
    """The rows that are asked for, from 0."""
    try:
        if isinstance(rows, slice):
            return range(*rows.indices(length))
        numbers = [index(row) for row in rows]
    except TypeError:
        raise SchemaError(f"rows={rows!r}", hint="give a slice, or several integers") from None
    for row in numbers:
        if not -length <= row < length:
            raise SchemaError(f"tensor {name!r} has {length} rows, and no row {row}")
    return [row % length for row in numbers]


def _read(
    saved: Saved,
    part: str,
    found: dict[int, Located],
    order: list[int],
    first: Located,
    spans: list[tuple[int, int]],
) -> torch.Tensor:
    """Spans of rows, one behind the other, at steps."""
    rows, item = sum(stop - start for start, stop in spans), first.row_bytes
    shape = (len(order), rows, *first.shape[1:]) if first.shape else (len(order),)
    out, data = empty_tensor(first.dtype, shape)
    wanted, at = [], 0
    for step in order:
        for start, stop in spans:
            length = (stop - start) * item
            wanted.append((step, found[step].number, found[step].start + start * item, data[at : at + length]))
            at += length
    for _, error in saved.snapshot.stretches(part, wanted, available_threads()) if at else []:
        raise error
    return out


def _scattered(
    saved: Saved, part: str, found: dict[int, Located], order: list[int], first: Located, rows: np.ndarray
) -> torch.Tensor:
    """Rows from all over, in their order: those that are near are read together."""
    import torch

    if not rows.size:
        return _read(saved, part, found, order, first, [])
    ascending = np.unique(rows)
    cuts = np.flatnonzero(np.diff(ascending) * first.row_bytes > _NEAR) + 1
    spans = [(int(near[0]), int(near[-1]) + 1) for near in np.split(ascending, cuts)]
    # where each row stands among those that are read
    before = np.cumsum([0, *(stop - start for start, stop in spans)])
    span = np.searchsorted([start for start, _ in spans], rows, side="right") - 1
    at = torch.from_numpy(before[span] + rows - np.array([start for start, _ in spans])[span])
    out = torch.empty((len(order), rows.size, *first.shape[1:]), dtype=torch_dtype(first.dtype))
    some = max(1, _AT_ONCE // max(1, int(before[-1]) * first.row_bytes))
    for batch in _batches(len(order), some):
        read = _read(saved, part, found, order[batch], first, spans)
        out[batch] = read[:, at]
    return out


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(count, start + size)) for start in range(0, count, size))
