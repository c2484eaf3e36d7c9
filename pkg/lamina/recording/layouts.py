"""How the axes of a tensor are read: which are examples, which positions, which the width of a row.

Left alone, one and two dimensions are a row for each batch item, three are a row for each batch item and position, and
four or more are a row for each batch item, whose item keeps its shape. A layout names the dimensions instead:
`"batch channel height width"` makes patches the rows, `"position batch width"` puts the batch first,
`"token width"` is for tokens of all examples one behind the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from lamina.errors import RecordingError
from lamina.modules.sharded import is_sharded

Form = Literal["examples", "positions", "tokens", "units"]
"""What rows stand for; units are those of a parameter, which no layout gives."""

DIMENSIONS = ("batch", "token", "position", "head", "channel", "depth", "height", "width")
"""What a layout is made of. Beside `channel`, `width` is the second extent of an image, else the width of a row."""


@dataclass(frozen=True)
class Layout:
    """A parsed layout.

    Attributes:
        names: The dimensions as they stand in the tensor.
        order: The tensor's dimensions in the order in which rows are read: batch or tokens, positions, then the row.
        positions: How many of them are positions; they become one, the last of them running fastest.
        form: What rows stand for.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    positions: int
    form: Form


@lru_cache(maxsize=256)
def parse_layout(text: str) -> Layout:
    """Return the layout that names such as `"batch position width"` stand for.

    Raises:
        RecordingError: A name is unknown or stands twice, or there is neither `batch` nor `token`.

    Example:
        >>> from lamina.recording.layouts import parse_layout
        >>> parse_layout("batch channel height width").order
        (0, 2, 3, 1)
    """
    names = tuple(text.split())
    unknown = [name for name in names if name not in DIMENSIONS]
    if unknown or len(set(names)) < len(names):
        what = f"{unknown[0]!r} is no dimension" if unknown else "a dimension stands twice"
        raise RecordingError(f"the layout {text!r}: {what}", hint=f"the dimensions are {', '.join(DIMENSIONS)}")
    if ("batch" in names) == ("token" in names):
        raise RecordingError(
            f"the layout {text!r} has to name either batch or token",
            hint="such as 'batch position width', 'position batch width', 'batch channel height width', 'token width'",
        )
    if "token" in names and "position" in names:
        raise RecordingError(f"the layout {text!r} names token and position", hint="a token has one position")
    image = {"depth", "height", "width"} if "channel" in names else {"depth", "height"}
    first = [names.index("batch" if "batch" in names else "token")]
    positions = [at for at, name in enumerate(names) if name == "position" or name in image]
    row = [at for at in range(len(names)) if at not in first and at not in positions]
    if "token" in names and positions:
        raise RecordingError(
            f"the layout {text!r} names token and {names[positions[0]]}", hint="a token has one position"
        )
    form: Form = "tokens" if "token" in names else "positions" if positions else "examples"
    return Layout(names, (*first, *positions, *row), len(positions), form)


def arrange(value: torch.Tensor, layout: Layout | None, site: str) -> tuple[torch.Tensor, Form, tuple[int, ...] | None]:
    """Read a tensor by a layout: a view wherever one will do.

    Args:
        value: The tensor; a nested one (jagged or strided) is a sequence for each batch item, whatever the layout.
        layout: None reads it by its number of dimensions.
        site: For errors.

    Returns:
        The tensor as [B, …] (examples), [B, T, d] (positions) or [N, …] (tokens); what rows stand for; and
        how many tokens each example has, where that is known.

    Raises:
        RecordingError: The tensor has other dimensions than the layout, is sparse, quantized, divided among ranks or a
            part of another (`torch.vmap`), or is a single number.
    """
    if value.is_nested:
        return _unpacked(value)
    if value.is_quantized:
        raise RecordingError(f"at the site {site!r} there is a quantized tensor; only plain ones can be recorded")
    # Nothing public tells.
    if torch._C._functorch.is_batchedtensor(value):  # pyright: ignore[reportAttributeAccessIssue]
        raise RecordingError(
            f"the site {site!r} runs inside of torch.vmap, where a tensor is a part of another",
            hint="record a module outside of it, such as the one that calls torch.vmap",
        )
    if is_sharded(value):
        raise RecordingError(
            f"at the site {site!r} there is a tensor that is divided among ranks (a DTensor)",
            hint="record a site where each rank has a plain tensor, or put(…, value.full_tensor()) on every rank",
        )
    if value.layout != torch.strided:
        kind = str(value.layout).removeprefix("torch.")
        raise RecordingError(f"at the site {site!r} there is a {kind} tensor; only dense ones can be recorded")
    if value.ndim == 0:
        raise RecordingError(
            f"at the site {site!r} there is a single number, not a row for each batch item",
            hint="record single numbers with recorder.log",
        )
    if layout is None:
        return value, "positions" if value.ndim == 3 else "examples", None
    if value.ndim != len(layout.order):
        raise RecordingError(
            f"at the site {site!r} there is a tensor {list(value.shape)}, and its layout is {' '.join(layout.names)!r}",
            hint="a layout names every dimension",
        )
    value = value.permute(layout.order)
    if layout.form == "positions":
        value = value.flatten(1, layout.positions) if layout.positions > 1 else value
        value = value.flatten(2) if value.ndim > 3 else value.unsqueeze(2) if value.ndim == 2 else value
        return value, "positions", None
    return as_items(value), layout.form, None


def as_items(value: torch.Tensor) -> torch.Tensor:
    """Lay the two dimensions of an item of [N, H, d] side by side: the store reads three as items and positions."""
    return value.flatten(1) if value.ndim == 3 else value


def _unpacked(value: torch.Tensor) -> tuple[torch.Tensor, Form, tuple[int, ...]]:
    items = value.unbind()
    return as_items(torch.cat(list(items))), "tokens", tuple(item.shape[0] for item in items)
