"""The log-partition of outputs: log Z, the logsumexp of the logits, which a softmax does not see and training moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import RecordingError
from lamina.recording.numbers.found import Found
from lamina.recording.resolve import resolve
from lamina.recording.sites import Site
from lamina.recording.taps import Tap

if TYPE_CHECKING:
    from torch import nn

PIECE = 2**22
"""Logits that are converted to float32 at a time."""


def log_partition(logits: torch.Tensor) -> torch.Tensor:
    """Return the logsumexp over the last dimension, in float32, or float64 for float64.

    Rows are worked on some at a time: half precision is never held whole in float32.
    """
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    rows = logits.detach().reshape(-1, logits.shape[-1])
    step = max(1, PIECE // max(1, logits.shape[-1]))
    pieces = [part.to(wide).logsumexp(1) for part in rows.split(step)]
    return torch.cat(pieces).reshape(logits.shape[:-1])


class LogPartitions:
    """The log-partitions of the sites that patterns mean: their taps' collector."""

    step = 0

    def __init__(self, model: nn.Module, patterns: Iterable[str]) -> None:
        patterns = list(patterns)
        found = resolve(model, patterns)
        for site in [*found.parameters, *(one for one in found.sites if one.gradient)]:
            raise RecordingError(
                f"log_partition={site.name!r} is no output of a module", hint="such as 'lm_head.output'"
            )
        self.taps = [Tap(site, self) for site in found.sites]  # pyright: ignore[reportArgumentType]
        self._rows: dict[str, list[torch.Tensor]] = {}
        self.begin()

    @property
    def names(self) -> list[str]:
        """The metrics that a step has."""
        return ["log_partition"] if self.taps else []

    def begin(self) -> None:
        """Forget what was seen."""
        self._rows.clear()
        self._sums: dict[str, torch.Tensor] = {}
        self._greatest: dict[str, torch.Tensor] = {}

    def next_call(self, site: str) -> tuple[int, int]:
        """See `Collector.next_call`: nobody asks where no gradient is meant."""
        raise NotImplementedError

    def take(self, site: str, value: torch.Tensor, *, options: Site, call: object = None) -> None:
        """Compute the log-partitions of the logits that a tap hands on."""
        if hasattr(value, "to_local"):
            raise RecordingError(f"log_partition: the logits at {site!r} are sharded over ranks")
        if not value.is_floating_point() or value.ndim < 2:
            raise RecordingError(
                f"log_partition: at {site!r} there are no logits but {value.dtype} {list(value.shape)}"
            )
        self._rows.setdefault(site, []).append(log_partition(value))

    def end(self, mask: Any = None) -> None:
        """Add up what one `recorder.step` saw, without the rows at which a mask is false."""
        for site, calls in self._rows.items():
            rows = [call.reshape(-1) for call in calls]
            kept = [torch.ones_like(one, dtype=torch.bool) for one in rows]
            if mask is not None:
                masks, device = _masks(torch.as_tensor(mask), calls, site), rows[0].device
                kept = [one.reshape(-1).to(device, non_blocking=True) for one in masks]
            for one, keep in zip(rows, kept, strict=True):
                some = torch.where(keep, one, 0)
                sums = torch.stack([keep.sum(), some.sum(dtype=torch.float64), some.double().square().sum()])
                greatest = torch.where(keep, one, -torch.inf).max().double()
                self._sums[site] = sums + self._sums[site] if site in self._sums else sums
                earlier = self._greatest.get(site)
                self._greatest[site] = greatest if earlier is None else torch.maximum(greatest, earlier)
        self._rows.clear()

    def take_found(self) -> list[Found]:
        """Return what was found in the step."""
        found = []
        for site, (count, total, square) in self._sums.items():
            at = {
                "log_partition": total / count,
                "log_partition_square": square / count,
                "log_partition_max": self._greatest[site],
            }
            found.append(Found({name: value.reshape(1) for name, value in at.items()}, sites=[site]))
        self.begin()
        return found


def _masks(mask: torch.Tensor, calls: list[torch.Tensor], site: str) -> list[torch.Tensor]:
    """Return the mask of each call: one for all calls together is divided, one for each holds for every one."""
    masks: list[torch.Tensor] = []
    lengths = [len(call) for call in calls]
    if mask.ndim and len(mask) == sum(lengths):
        masks = list(mask.bool().split(lengths))
    elif mask.ndim and all(len(mask) == length for length in lengths):
        masks = [mask.bool()] * len(calls)
    # A mask of examples holds for all their positions.
    masks = [one.reshape(one.shape + (1,) * (call.ndim - one.ndim)) for one, call in zip(masks, calls, strict=False)]
    try:
        return [one.expand(call.shape) for one, call in zip(masks, calls, strict=True)]
    except (RuntimeError, ValueError):
        raise RecordingError(
            f"the mask of the step is {list(mask.shape)}, and at {site!r} there are rows "
            f"{[list(call.shape) for call in calls]}"
        ) from None
