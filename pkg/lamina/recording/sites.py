"""Where something is recorded and how: the options of a site, and what a site of one model is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from lamina.errors import RecordingError
from lamina.recording.layouts import parse_layout
from lamina.recording.schedules import Every

if TYPE_CHECKING:
    from torch import nn

Pattern = str | Callable[[str], object]
"""A glob over the names of sites, or a function that tells of a module's input or output whether it is meant."""

Sites = Pattern | Iterable[Pattern] | Mapping[Pattern, "Site"]
"""What `sites=` takes: a pattern, several, or options a pattern."""

POOLS = ("last", "mean", "cls")


@dataclass(frozen=True, kw_only=True)
class Site:
    """How the sites that a pattern selects are recorded.

    Args:
        every: Their schedule; None takes the recorder's.
        layout: What the tensor's dimensions are, such as `"position batch width"`, of `batch`, `token`, `position`,
            `head`, `channel`, `depth`, `height`, `width`. `"batch channel height width"` makes every place of an
            image a row (its `position` counts row by row); `"token width"` are tokens of all examples one behind
            the other, as many as the mask says, else equally many each. None reads two dimensions as a row for each
            batch item, three as a row for each item and position, more as a row for each item, with its shape.
        positions: The positions that are kept: a number, several, or a slice; negative ones count from the end.
        pool: One row for each example: its `"last"` position that the mask leaves, the `"mean"` over those that it
            leaves, or `"cls"`, the first position.
        sample: The fraction of rows that are kept, chosen by a hash of (seed, example, position): the same rows
            at every step, site and training.
        seed: Of the sample.
        dtype: What values are converted to, such as `torch.bfloat16`; None keeps them bit for bit.

    Raises:
        RecordingError: An option that is none.

    Example:
        >>> from lamina import Site
        >>> sites = {"blocks.*.output": Site(every=100, sample=0.1), "output": Site(pool="last")}
    """

    every: Every | None = None
    layout: str | None = None
    positions: int | slice | Sequence[int] | None = None
    pool: Literal["last", "mean", "cls"] | None = None
    sample: float | None = None
    seed: int = 0
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.layout is not None:
            parse_layout(self.layout)
        if self.pool is not None and self.pool not in POOLS:
            raise RecordingError(f"pool={self.pool!r} is none of {', '.join(POOLS)}")
        if self.pool == "cls" and self.positions is not None:
            raise RecordingError("pool='cls' and positions= exclude each other", hint="cls is position 0")
        if not _chooses_positions(self.positions):
            raise RecordingError(
                f"positions={self.positions!r} chooses none", hint="give a whole number, several, or a slice"
            )
        if self.sample is not None and not 0 < self.sample <= 1:
            raise RecordingError(f"sample={self.sample!r} is no fraction", hint="give a number above 0, at most 1")
        if self.dtype is not None and not isinstance(self.dtype, torch.dtype):
            raise RecordingError(f"dtype={self.dtype!r} is no torch dtype", hint="such as torch.bfloat16")


def _chooses_positions(positions: object) -> bool:
    if positions is None or isinstance(positions, slice):
        return True
    several = list(positions) if isinstance(positions, Iterable) and not isinstance(positions, str) else [positions]
    return bool(several) and all(hasattr(one, "__index__") and not isinstance(one, bool) for one in several)


DEFAULT = Site()
"""The options of a site that has none."""


@dataclass(frozen=True)
class ResolvedSite:
    """A site of one model: a name, the module that is watched, and what is taken from it.

    Attributes:
        name: What its rows are stored under.
        module: The module.
        kind: Whether its input or its output is meant.
        path: Which element of it, from the outside in; empty if there is one tensor.
        options: How it is recorded.
        gradient: Whether the gradient is meant that flows back to it.
        part: What of the tensor is meant; None all of it.
    """

    name: str
    module: nn.Module
    kind: Literal["input", "output"]
    path: tuple[int | str, ...]
    options: Site = DEFAULT
    gradient: bool = False
    part: Callable[[torch.Tensor], torch.Tensor] | None = None


@dataclass(frozen=True)
class ParameterSite:
    """A parameter of one model, or what belongs to it.

    Attributes:
        name: What its rows are stored under.
        parameter: The parameter's name in the model.
        what: None for its value, else `grad`, `update` or a key of the optimizer's state.
        options: How it is recorded.
    """

    name: str
    parameter: str
    what: str | None
    options: Site = DEFAULT
