"""What an edit makes of a tensor: another one in its place, what a function makes of it, or stored rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from lamina.errors import RecordingError
from lamina.recording.matching import Table
from lamina.rows import Rows

Change = Rows | torch.Tensor | Callable[[torch.Tensor], Any]
"""What a site is edited with."""


@dataclass(frozen=True)
class Stored:
    """Rows, and where they are found."""

    rows: Rows
    table: Table


@dataclass(frozen=True)
class Flow:
    """A tensor that flows at a site.

    Attributes:
        site: The site's name.
        value: The tensor.
        lead: Its leading dimensions that are rows: [B] or [B, T].
        names: Tells the example, call and position of each row.
    """

    site: str
    value: torch.Tensor
    lead: tuple[int, ...]
    names: Callable[[], pl.DataFrame]


_ASKED = "it may ask for example, call and, where the tensor has positions, position"


class Where:
    """Which entries of a tensor are edited.

    Args:
        where: A mask over the leading dimensions, or a Polars expression over `example`, `position` and `call`.
    """

    def __init__(self, where: Any) -> None:
        self.given = where is not None
        self.idle = isinstance(where, pl.Expr)
        """Whether there is an expression that has chosen nothing yet."""
        self._expression = where if isinstance(where, pl.Expr) else None
        self._mask: torch.Tensor | None = None
        if not self.given or self.asks_names:
            return
        try:
            self._mask = torch.as_tensor(where)
        except (TypeError, ValueError, RuntimeError):
            raise RecordingError(
                f"where= is a {type(where).__name__}", hint="give a mask of booleans, or a Polars expression"
            ) from None
        if self._mask.dtype != torch.bool or self._mask.ndim == 0:
            raise RecordingError(
                f"where= is {_dtype(self._mask)}, not a mask of booleans", hint="such as attention_mask.bool()"
            )

    @property
    def asks_names(self) -> bool:
        """Whether names are asked for."""
        return self._expression is not None

    def chosen(self, flow: Flow) -> torch.Tensor | None:
        """Return booleans over leading dimensions of a tensor, None for all of it.

        Raises:
            RecordingError: The mask has another shape, or the expression asks for what there is not.
        """
        value = flow.value
        if self._mask is not None:
            if self._mask.shape != value.shape[: self._mask.ndim]:
                raise RecordingError(
                    f"where= is a mask {list(self._mask.shape)}, and the site {flow.site!r} has the shape "
                    f"{list(value.shape)}: they do not begin alike"
                )
            return self._mask
        if self._expression is None:
            return None
        try:
            found = flow.names().select(self._expression.alias("where"))["where"]
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise RecordingError(f"where= at the site {flow.site!r}: {reason}", hint=_ASKED) from None
        if found.dtype != pl.Boolean or len(found) != math.prod(flow.lead):
            raise RecordingError(f"where= gives {len(found)} values of {found.dtype}, not a boolean for each row")
        found = found.fill_null(False)
        self.idle = self.idle and not found.any()
        return torch.from_numpy(found.to_numpy().copy()).reshape(flow.lead)


def changed(flow: Flow, change: Stored | torch.Tensor | Callable[[torch.Tensor], Any], where: Where) -> torch.Tensor:
    """Return what takes the place of a tensor, which stays as it is; nobody else holds the memory of it.

    Raises:
        RecordingError: What is given has another shape, or does not fit the dtype exactly.
    """
    value = flow.value
    whole = not (value.is_nested or value.layout != torch.strided)
    if not whole and (isinstance(change, (Stored, torch.Tensor)) or where.given):
        kind = "nested" if value.is_nested else "sparse"
        raise RecordingError(
            f"at the site {flow.site!r} there is a {kind} tensor", hint="edit it with a function, no where="
        )
    chosen = where.chosen(flow)
    if isinstance(change, Stored):
        new = _stored(flow, change, chosen)
    elif isinstance(change, torch.Tensor):
        new = _given(value, change, flow.site)
    else:
        new = _made(value, change, flow.site)
    if chosen is None:
        return new
    chosen = chosen.reshape(*chosen.shape, *[1] * (value.ndim - chosen.ndim))
    return torch.where(chosen.to(value.device), new, value)


def put_part(value: torch.Tensor, part: Callable[[torch.Tensor], torch.Tensor], new: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose `part`, which selects or reorders entries, is `new`."""
    places = torch.arange(value.numel(), device=value.device).view(value.shape)
    whole = value.reshape(-1).scatter(0, part(places).reshape(-1), new.reshape(-1)).view(value.shape)
    return whole if value.is_contiguous() else _like(value, whole)


def _given(value: torch.Tensor, given: torch.Tensor, site: str) -> torch.Tensor:
    try:
        wide = exactly(given, value, site).expand(value.shape)
    except RuntimeError:
        raise RecordingError(
            f"the tensor {list(given.shape)} does not broadcast to the site {site!r}, {list(value.shape)}"
        ) from None
    return _like(value, wide)


def _made(value: torch.Tensor, function: Callable[[torch.Tensor], Any], site: str) -> torch.Tensor:
    # A copy, because functions such as `value[:, 0] = 0; return value` change what they are given.
    copied = value.clone()
    made = function(copied)
    if not isinstance(made, torch.Tensor):
        raise RecordingError(
            f"the function for the site {site!r} returned a {type(made).__name__}", hint="it returns the new tensor"
        )
    nested = value.is_nested
    if made.dtype != value.dtype or made.is_nested != nested or (not nested and made.shape != value.shape):
        raise RecordingError(
            f"the function for the site {site!r} returned {_kind(made)} in the place of {_kind(value)}",
            hint="it returns the same shape and dtype",
        )
    if made is copied or nested or made.layout != torch.strided:
        return made
    # It may be a tensor that the caller keeps, and the next layer may write into what it gets.
    return _like(value, made.to(value.device))


def _stored(flow: Flow, change: Stored, chosen: torch.Tensor | None) -> torch.Tensor:
    value, lead, site = flow.value, flow.lead, flow.site
    item = value.shape[len(lead) :]
    if change.rows.width != math.prod(item):
        raise RecordingError(
            f"the rows for the site {site!r} have {change.rows.width} numbers each, and it has the shape "
            f"{list(value.shape)}",
            hint="give the layout= that they were recorded with",
        )
    if chosen is None:
        wanted = torch.ones(lead, dtype=torch.bool)
    elif chosen.ndim > len(lead):
        wanted = chosen.flatten(len(lead)).any(-1).cpu()
    else:
        wanted = chosen.reshape(*chosen.shape, *[1] * (len(lead) - chosen.ndim)).expand(lead).cpu()
    at = change.table.find(flow.names(), wanted.numpy().reshape(-1), site)
    found = exactly(change.rows.gather(at), value, site).reshape(-1, *item)
    new = value.detach().clone()
    if chosen is None:
        return new.copy_(found.reshape(value.shape))
    # Numbers, not booleans: a GPU would have to be waited for to count these.
    new[tuple(index.to(value.device) for index in wanted.nonzero(as_tuple=True))] = found
    return new


def exactly(given: torch.Tensor, value: torch.Tensor, site: str) -> torch.Tensor:
    """Return a tensor with the dtype and on the device of another.

    Raises:
        RecordingError: A value is not the same in the other dtype.
    """
    if given.dtype == value.dtype:
        return given.to(value.device)
    plain, lost = given.detach(), given.is_complex() and not value.is_complex()
    # Bytes, not numbers: these tell NaN and the sign of zero as well, and there are dtypes that cannot be compared.
    if lost or not torch.equal(_bytes(plain.to(value.dtype).to(given.dtype)), _bytes(plain)):
        raise RecordingError(
            f"the site {site!r} is {_dtype(value)}, and not every {_dtype(given)} given for it is the same in that",
            hint="convert it yourself if rounding is meant",
        )
    return given.to(device=value.device, dtype=value.dtype)


def _like(value: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return a copy with the memory format of `value`: what comes behind may compute otherwise in another."""
    empty = torch.empty_like(value, requires_grad=False)
    return empty.copy_(new)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _kind(value: torch.Tensor) -> str:
    return f"{_dtype(value)} [nested]" if value.is_nested else f"{_dtype(value)} {list(value.shape)}"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
