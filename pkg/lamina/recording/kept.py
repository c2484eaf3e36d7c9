"""Which rows of a captured tensor are kept, and what they are called: mask, positions, pool and sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lamina.errors import RecordingError
from lamina.recording.captured import Captured
from lamina.recording.sampling import sampled
from lamina.runs.buffers import Lent
from lamina.runs.columns import from_range


def examples(one: Captured, columns: Mapping[str, Any]) -> int:
    """Return how many examples a captured tensor holds."""
    return len(_lengths(one, columns)[0]) if one.form == "tokens" else one.value.shape[0]


def check_mask(mask: Any) -> None:
    """Raise RecordingError if a mask is not made of true and false, such as one that is added to scores."""
    values = np.asarray(_array(mask))
    if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all():
        what = f"{values.dtype} that are neither 0 nor 1" if values.dtype.kind in "iuf" else type(mask).__name__
        raise RecordingError(f"mask= holds {what}", hint="give booleans, true for the rows that are kept")


def kept_columns(one: Captured, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a site's rows, with a `mask` that leaves out those that are not kept.

    Args:
        one: What was captured.
        columns: Its columns: single values, [B] or [B, T] with T before positions were chosen; for tokens also [N];
            `mask` among them.

    Raises:
        RecordingError: Columns do not fit, or tokens cannot be divided among the examples.
    """
    match one.form:
        case "units":
            own = {name: column for name, column in columns.items() if name not in ("example", "mask")}
            own["position"] = np.arange(one.start, one.start + one.value.shape[0])
        case "tokens":
            own = _of_tokens(one, columns)
        case "positions" if one.options.pool is None:
            own = {name: _at_positions(name, column, one) for name, column in columns.items()}
            if (one.kept is not None or one.start) and "position" not in own:
                at = (np.arange(one.length) if one.kept is None else one.kept) + one.start
                own["position"] = np.tile(at, (one.value.shape[0], 1))
        case _:
            own = {name: column for name, column in columns.items() if np.ndim(_array(column)) < 2}
            if (kept := _pooled_mask(one, columns)) is not None:
                own["mask"] = kept.any(1)
            elif _pools_nothing(one):
                own["mask"] = np.zeros(one.value.shape[0], dtype=bool)
    return own if one.options.sample is None else own | {"mask": _sample(one, own)}


def row_count(value: torch.Tensor | Lent, mask: Any = None) -> int:
    """Return how many rows a tensor gives the store, [B, …] or [B, T, d], with the mask that leaves some out."""
    shape = value.tensor.shape if isinstance(value, Lent) else value.shape
    lead = shape[: 2 if len(shape) == 3 else 1]
    if mask is None:
        return lead.numel()
    mask = torch.as_tensor(mask).bool().cpu()
    return int(mask.reshape(mask.shape + (1,) * (len(lead) - mask.ndim)).expand(lead).sum())


def kept_value(one: Captured, columns: Mapping[str, Any]) -> torch.Tensor:
    """Return the values of a site's rows: pooled over the positions that the mask leaves, or as they are."""
    if one.form != "positions" or one.options.pool is None:
        return one.value
    if _pools_nothing(one):
        return one.value.new_zeros(one.value.shape[0], *one.value.shape[2:])
    kept = _pooled_mask(one, columns)
    if one.options.pool == "mean":
        return _mean(one.value, None if kept is None else torch.as_tensor(kept, device=one.value.device))
    if kept is None:
        return one.value[:, -1]
    last = torch.as_tensor(kept.shape[1] - 1 - kept[:, ::-1].argmax(1), device=one.value.device)
    return one.value[torch.arange(len(last), device=one.value.device), last]


def _pools_nothing(one: Captured) -> bool:
    return one.form == "positions" and one.options.pool is not None and one.value.shape[1] == 0


def _pooled_mask(one: Captured, columns: Mapping[str, Any]) -> np.ndarray | None:
    if one.options.pool is None or "mask" not in columns or np.ndim(mask := _array(columns["mask"])) < 2:
        return None
    if one.options.pool == "cls":
        return mask[:, :1].astype(bool)
    return _at_positions("mask", mask, one).astype(bool)


def _mean(value: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    # Half precision sums in float32; what is not kept may be NaN and must not count. A mean of whole numbers is none.
    wide = value if value.dtype in (torch.float32, torch.float64) or value.is_complex() else value.to(torch.float32)
    dtype = value.dtype if value.is_floating_point() or value.is_complex() else torch.float32
    if kept is None:
        return wide.mean(1).to(dtype)
    wide = wide.masked_fill(~kept[..., None], 0)
    return (wide.sum(1) / kept.sum(1, keepdim=True).clamp(min=1)).to(dtype)


def _at_positions(name: str, column: Any, one: Captured) -> Any:
    values = _array(column)
    if np.ndim(values) < 2:
        return column
    if values.shape[1] != one.length:
        raise RecordingError(
            f"the column {name!r} has the shape {list(values.shape)}, but the site {one.site!r} has "
            f"{one.value.shape[0]} examples of {one.length} positions"
        )
    return column if one.kept is None else values[:, one.kept]


def _lengths(one: Captured, columns: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return how many tokens each example has, and the mask if it is what tells."""
    total = one.value.shape[0]
    if one.lengths is not None:
        return np.array(one.lengths), None
    arrays = {name: _array(column) for name, column in columns.items()}
    mask = arrays.get("mask", False)
    if np.ndim(mask) == 2 and mask.size != total and int(mask.astype(bool).sum()) == total:
        return mask.astype(bool).sum(1), mask.astype(bool)
    sizes = [len(values) for values in arrays.values() if np.ndim(values)]
    rows = min(sizes, default=total)
    if rows == 0 or total % rows:
        raise RecordingError(
            f"at the site {one.site!r} there are {total} tokens for {rows} examples",
            hint="give mask=, [batch, positions], with as many true entries as there are tokens, or columns a token",
        )
    return np.full(rows, total // rows), None


def _of_tokens(one: Captured, columns: Mapping[str, Any]) -> dict[str, Any]:
    total = one.value.shape[0]
    lengths, mask = _lengths(one, columns)
    own: dict[str, Any] = {}
    for name, column in columns.items():
        values = _array(column)
        if np.ndim(values) == 0:
            own[name] = column
        elif mask is not None and values.shape == mask.shape:
            if name != "mask":
                own[name] = values[mask]
        elif values.size == total and values.ndim <= 2:
            own[name] = values.reshape(-1)
        elif values.shape == lengths.shape:
            own[name] = np.repeat(values, lengths)
        else:
            raise RecordingError(
                f"the column {name!r} has the shape {list(values.shape)}, but the site {one.site!r} has {total} tokens "
                f"of {len(lengths)} examples"
            )
    if "position" not in own and len(lengths) != total:
        own["position"] = (
            np.nonzero(mask)[1] if mask is not None else np.concatenate([np.arange(length) for length in lengths])
        )
    return own


def _sample(one: Captured, own: Mapping[str, Any]) -> np.ndarray:
    """Return which of the site's rows its sample and its mask leave, [B] or [B, T]."""
    wide = one.form == "positions" and one.options.pool is None
    lead = tuple(one.value.shape[: 2 if wide else 1])
    example = own.get("example", 0 if one.form == "units" else None)
    if example is None:
        raise RecordingError(f"the site {one.site!r} has sample=, and its rows no example", hint="give example=")
    example = np.full(lead[0], example) if np.ndim(_array(example)) == 0 else example
    position = own.get("position", np.arange(lead[1]) if wide else None)
    if position is not None:
        position = np.broadcast_to(_array(position), lead).reshape(lead[0], -1)
    kept = sampled(example, position, fraction=one.options.sample or 1, seed=one.options.seed).reshape(lead)
    if "mask" in own:
        mask = _array(own["mask"]).astype(bool)
        kept = kept & (mask[:, None] if mask.ndim < kept.ndim else mask)
    return kept


def _array(column: Any) -> Any:
    """Return a column as an array; what is a single value stays as it is."""
    if hasattr(column, "detach"):
        # NumPy has no bfloat16.
        return (column.float() if column.dtype == torch.bfloat16 else column).detach().cpu().numpy()
    if hasattr(column, "to_numpy"):
        return column.to_numpy()
    if isinstance(column, range):
        return from_range(column)
    return np.asarray(column) if isinstance(column, (list, tuple)) else column
