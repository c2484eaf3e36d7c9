"""What was captured since a step began, copied out of the model's hands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from lamina.errors import RecordingError


@dataclass(frozen=True)
class Captured:
    """One tensor of one site.

    Attributes:
        site: The site's name.
        value: The copy.
        call: How many tensors of the same site came before it in the step.
        batch: How many calls of the whole model came before the one that it belongs to, in the step.
        given: True if the user gave it by `put`, False if a module was watched.
    """

    site: str
    value: torch.Tensor
    call: int
    batch: int
    given: bool


class Collector:
    """Collects copies of tensors during a step.

    A tensor is copied when it is seen: an in-place operation behind the hook (an in-place ReLU behind a linear
    layer) would change what a mere reference holds. All sites of a step are written together at its end, so
    that they share their rows, and the writer copies once more into its own memory. On the CPU the copies here
    go into buffers that are kept from step to step, because a fresh buffer costs far more in page faults than
    the copy itself: measured, six sites of 1, 4 and 64 MB took 44, 270 and 6,700 microseconds a site with
    kept buffers, 440, 1,800 and 31,000 with fresh ones, and 20, 110 and 3,100 for one copy alone. Other
    devices have allocators that keep memory themselves.
    """

    def __init__(self) -> None:
        self._captured: list[Captured] = []
        self._calls: Counter[str] = Counter()
        self._batches = 0
        self._buffers: dict[tuple[str, int], torch.Tensor] = {}

    def count_batch(self) -> None:
        """Note that a call of the whole model begins."""
        self._batches += 1

    def take(self, site: str, value: torch.Tensor, *, given: bool = False) -> None:
        """Copy a tensor whose first dimension is the batch; RecordingError if it has none."""
        if value.ndim == 0:
            raise RecordingError(
                f"at the site {site!r} there is a single number, not a row for each batch item",
                hint="record single numbers with recorder.log",
            )
        if value.layout != torch.strided or value.is_nested:
            layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
            raise RecordingError(f"at the site {site!r} there is a {layout} tensor; only dense ones can be recorded")
        call = self._calls[site]
        copy = self._copy((site, call), value.detach())
        self._captured.append(Captured(site, copy, call, max(self._batches - 1, 0), given))
        self._calls[site] += 1

    def drain(self) -> list[Captured]:
        """Return what was collected and begin anew. The tensors hold until the next `take`."""
        captured = self._captured
        self._captured = []
        self._calls.clear()
        self._batches = 0
        return captured

    def _copy(self, key: tuple[str, int], value: torch.Tensor) -> torch.Tensor:
        if value.device.type != "cpu":
            return value.clone(memory_format=torch.contiguous_format)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            # A tensor made in inference mode could not be written again outside of it.
            with torch.inference_mode(False):
                buffer = torch.empty(value.shape, dtype=value.dtype, device="cpu")
            self._buffers[key] = buffer
        return buffer.copy_(value)
