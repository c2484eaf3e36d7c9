"""What was captured since a step began, copied out of the model's hands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lamina import _core
from lamina.errors import RecordingError
from lamina.recording.layouts import Form, arrange, as_items, parse_layout
from lamina.recording.sites import DEFAULT, Site

LARGE = 2**18
"""Bytes from which on memory is worth being kept and lent."""


@dataclass(slots=True)
class Captured:
    """One tensor of one site.

    Attributes:
        site: The site's name.
        value: The copy: [B, …] (examples), [B, T, d] (positions), [N, …] (tokens), [units, …].
        call: How many tensors of the same site came before it in the step.
        batch: How many calls of the whole model came before the one that it belongs to, in the step.
        given: True if the user gave it by `put`, False if a module was watched.
        form: What its rows stand for; `units` are those of a parameter, which belong to no example.
        options: How the site is recorded.
        lengths: Of tokens, how many belong to each example, if the tensor says so.
        length: How many positions there were before some were chosen.
        kept: The positions that were chosen; None are all of them.
        start: The first position: behind those that a cache holds, or of the first unit of a shard.
        memory: What a large value on the CPU lies in, and fills: it can be lent to a writer.
    """

    site: str
    value: torch.Tensor
    call: int
    batch: int
    given: bool
    form: Form = "examples"
    options: Site = DEFAULT
    lengths: tuple[int, ...] | None = None
    length: int = 0
    kept: np.ndarray | None = None
    start: int = 0
    memory: _core.Memory | None = None


class Collector:
    """Collects copies of tensors during a step.

    A tensor is copied when it is seen: an in-place operation behind the hook (an in-place ReLU behind a linear
    layer) would change what a mere reference holds. All sites of a step are written together at its end, so
    that they share their rows. On the CPU large copies go into memory of a pool, which is lent to the writer until
    it is written: it is the only copy that the training waits for. A fresh buffer would cost far more in page faults
    than the copy itself: measured, six sites of 1, 4 and 64 MB took 44, 270 and 6,700 microseconds a site with
    kept buffers, 440, 1,800 and 31,000 with fresh ones, and 20, 110 and 3,100 for one copy alone. Other
    devices have allocators that keep memory themselves.
    """

    def __init__(self) -> None:
        self._captured: dict[tuple[str, int], Captured] = {}
        self._calls: Counter[str] = Counter()
        self._batches = 0
        self._start = 0
        self.step = 0
        """Counts what was drained: what arrives later than its own step is told by it."""

    def __reduce__(self) -> tuple[type[Collector], tuple[()]]:
        # A copy of a model carries copies of its hooks: these share nothing.
        return Collector, ()

    @cached_property
    def _pool(self) -> _core.Pool:
        return _core.Pool()

    def count_batch(self, start: int = 0) -> None:
        """Note that a call of the whole model begins, `start` positions behind the first."""
        self._batches += 1
        self._start = start

    def next_call(self, site: str) -> tuple[int, int]:
        """Count a call of a site whose tensor comes later; return it and the batch that it belongs to."""
        call = self._calls[site]
        self._calls[site] += 1
        return call, max(self._batches - 1, 0)

    def take(
        self,
        site: str,
        value: torch.Tensor,
        *,
        options: Site = DEFAULT,
        given: bool = False,
        call: tuple[int, int] | None = None,
    ) -> None:
        """Copy a tensor as its site's options read it.

        Args:
            site: The site's name.
            value: The tensor.
            options: Of the site.
            given: Whether `put` gave it.
            call: What `next_call` returned, if the call was counted before; a second tensor for it is added to
                the first, as gradients of several backward passes are.

        Raises:
            RecordingError: It has no rows, other dimensions than its layout, or no positions to choose or pool.
        """
        layout = None if options.layout is None else parse_layout(options.layout)
        view, form, lengths = arrange(value.detach(), layout, site)
        length, kept = (view.shape[1], None) if form == "positions" else (0, None)
        _refuse_unfit(view, form, options, site)
        if form == "positions" and options.pool == "cls" and length:
            view, form = view[:, 0], "examples"
        elif form == "positions" and options.positions is not None:
            view, kept = _chosen(view, options.positions, site)
        one = Captured(
            site, view, *(self.next_call(site) if call is None else call), given, form, options, lengths, length, kept,
            self._start if form == "positions" else 0,
        )  # fmt: skip
        self._keep(one)

    def take_units(self, site: str, value: torch.Tensor, options: Site, *, start: int = 0) -> None:
        """Copy a parameter, or what has its shape: a row for each unit, the first dimension."""
        value = value.detach()
        value = value.reshape(1) if value.ndim == 0 else as_items(value)
        self._keep(Captured(site, value, *self.next_call(site), False, "units", options, start=start))

    def drain(self) -> list[Captured]:
        """Return what was collected and begin anew."""
        captured = list(self._captured.values())
        self._captured = {}
        self._calls.clear()
        self._batches = self._start = 0
        self.step += 1
        return captured

    def _keep(self, one: Captured) -> None:
        key = (one.site, one.call)
        if key in self._captured:
            self._captured[key].value.add_(one.value)
            return
        one.value, one.memory = self._copy(one.value, one.options.dtype or one.value.dtype)
        self._captured[key] = one

    def _copy(self, value: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, _core.Memory | None]:
        size = value.numel() * dtype.itemsize
        if size < LARGE or not value.is_cpu:
            if value.dtype == dtype:
                return value.clone(memory_format=torch.contiguous_format), None
            return value.to(dtype, copy=True, memory_format=torch.contiguous_format), None
        memory = self._pool.take(size)
        return torch.frombuffer(memory, dtype=dtype).view(value.shape).copy_(value), memory


def _refuse_unfit(value: torch.Tensor, form: Form, options: Site, site: str) -> None:
    if options.dtype is not None and value.is_complex() and not options.dtype.is_complex:
        raise RecordingError(
            f"at the site {site!r} there is a {str(value.dtype).removeprefix('torch.')} tensor, and "
            f"{str(options.dtype).removeprefix('torch.')} would drop its imaginary part"
        )
    # A row for each example without any position is as good as pooled: globs may mean such sites too.
    if form == "positions" or (form == "examples" and value.ndim < 3):
        return
    for name in ("pool", "positions"):
        if getattr(options, name) is not None:
            what = "tokens of all examples one behind the other" if form == "tokens" else "a row for each example"
            raise RecordingError(
                f"at the site {site!r} there is a tensor {list(value.shape)}, {what}, and {name}= needs positions",
                hint="pool stored rows instead" if form == "tokens" else "layout= says which dimensions are positions",
            )


def _chosen(value: torch.Tensor, positions: int | slice | Sequence[int], site: str) -> tuple[torch.Tensor, np.ndarray]:
    every = np.arange(value.shape[1])
    try:
        kept = np.atleast_1d(every[positions if isinstance(positions, (int, slice)) else list(positions)])
    except IndexError:
        raise RecordingError(
            f"at the site {site!r} there are {value.shape[1]} positions, and positions= asks for {positions!r}"
        ) from None
    if isinstance(positions, slice) and (positions.step or 1) > 0:
        return value[:, positions], kept
    # Of a short sequence, 0 and -1 may be the same: one row.
    kept = np.array(list(dict.fromkeys(kept.tolist())), dtype=np.int64)
    return value.index_select(1, torch.tensor(kept, device=value.device)), kept
