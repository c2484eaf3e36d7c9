"""How far tensors moved between two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.progress import byte_bar
from lamina.runs.buffers import empty_tensor, torch_dtype
from lamina.runs.located import Located, Names
from lamina.runs.saved import Saved
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    import torch

_SCHEMA = {
    "tensor": pl.String,
    "shape": pl.List(pl.Int64),
    "dtype": pl.String,
    "norm": pl.Float64,
    "change": pl.Float64,
    "relative": pl.Float64,
    "unchanged": pl.Float64,
    "bits": pl.Float64,
    "only": pl.Int64,
}
_AT_ONCE = 8 << 20
"""Bytes of a tensor that are compared at a time."""


def differences(saved: Saved, step: int, other: int, part: str = "model", *, progress: bool = True) -> pl.DataFrame:
    """Compare a part of two checkpoints, tensor by tensor, in order of the first one's state.

    Columns: `tensor`; `shape` and `dtype`; `norm`, at the first step, and `change`, of the difference (both Frobenius,
    in float64); `relative`, change / norm (null where the norm is 0); `unchanged`, the share of elements of which no
    bit differs, and `bits`, the share of bits that do not; `only`, the step that alone has the tensor. The numbers are
    null where only one step has the tensor, and where shapes or dtypes differ (then those of the first are shown). A
    tied tensor stands there once.

    Costs reading both parts once, and memory for 16 MiB of each.

    Args:
        saved: The checkpoints of a run.
        step: The first step.
        other: The other.
        part: The part of both.
        progress: Whether to show a bar on a terminal.

    Raises:
        NotFoundError: There is no such checkpoint or part; the hint lists the nearest.
        DamagedError: A block does not match its checksum.

    Example:
        >>> import lamina, tempfile, torch
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     for step in (0, 1):
        ...         ticket = writer.save({"model": {"w": torch.tensor([3.0, 4.0 + step])}}, step=step)
        >>> run.refresh().diff(0, 1).select("tensor", "norm", "change", "relative", "unchanged").rows()
        [('w', 5.0, 1.0, 0.2, 0.5)]
    """
    first, second = (_located(saved, at, part) for at in (step, other))
    rows: list[dict[str, Any]] = []
    with byte_bar(f"comparing step {step} with {other}", progress) as show:
        done, total = 0, sum(_bytes(one) for name, one in first.items() if _is_alike(one, second.get(name)))

        def told(size: int) -> None:
            nonlocal done
            done += size
            show(done, total)

        for name, one in first.items():
            row: dict[str, Any] = {"tensor": name, "shape": list(one.shape), "dtype": one.dtype}
            twin = second.get(name)
            if twin is None:
                row["only"] = step
            elif _is_alike(one, twin):
                row |= _compared(saved, part, (step, one), (other, twin), told)
            rows.append(row)
    for name, one in second.items():
        if name not in first:
            rows.append({"tensor": name, "shape": list(one.shape), "dtype": one.dtype, "only": other})
    return pl.DataFrame(rows, schema=_SCHEMA)


def _located(saved: Saved, step: int, part: str) -> dict[str, Located]:
    """The tensors of a part, without those that are tied to an earlier one."""
    names = Names(saved, saved.at(step, part)[part])
    found: dict[Located, str] = {}
    for name in names:
        if (one := names.find(name)) is not None:
            found.setdefault(one, name)
    return {name: one for one, name in found.items()}


def _bytes(located: Located) -> int:
    return located.row_bytes * (located.shape[0] if located.shape else 1)


def _is_alike(one: Located, other: Located | None) -> bool:
    return other is not None and (one.shape, one.dtype) == (other.shape, other.dtype)


def _compared(
    saved: Saved, part: str, one: tuple[int, Located], other: tuple[int, Located], told: Callable[[int], None]
) -> dict[str, float | None]:
    """What is told of a tensor; `told` is called with the bytes that were compared, piece by piece."""
    import torch

    located = one[1]
    rows = located.shape[0] if located.shape else 1
    some = max(1, _AT_ONCE // max(1, located.row_bytes))
    norm = change = 0.0
    same = bits = 0
    for start in range(0, rows, some):
        count = min(some, rows - start)
        made = [empty_tensor(located.dtype, (count, *located.shape[1:])) for _ in range(2)]
        size = located.row_bytes
        wanted = [
            (step, where.number, where.start + start * size, data)
            for (step, where), (_, data) in zip((one, other), made, strict=True)
        ]
        for _, error in saved.snapshot.stretches(part, wanted, available_threads()) if count * size else []:
            raise error
        (a, a_bytes), (b, b_bytes) = made
        wide = torch.complex128 if a.is_complex() else torch.float64
        a, b = _widened(a, wide), _widened(b, wide)
        norm, change = math.hypot(norm, float(a.norm())), math.hypot(change, float((b - a).norm()))
        differing = a_bytes ^ b_bytes
        bits += 8 * differing.size - int(np.bitwise_count(differing).sum(dtype=np.int64))
        width = torch_dtype(located.dtype).itemsize
        same += int((~differing.reshape(-1, width).any(axis=1)).sum())
        told(count * size)
    elements = math.prod(located.shape)
    return {
        "norm": norm,
        "change": change,
        "relative": change / norm if norm else None,
        "unchanged": same / elements if elements else None,
        "bits": bits / (8 * elements * torch_dtype(located.dtype).itemsize) if elements else None,
    }


def _widened(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.reshape(-1).to(dtype)
