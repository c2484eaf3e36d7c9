"""Whether a pass over data sees the same data as the first one did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import torch

from lamina.errors import RecordingError


class Sameness:
    """Compares the passes over a probe's data with the first one.

    Data are the examples, if these have names, in any order; else what the model gets, in the same order each time.

    Args:
        name: The probe's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: Counter[str] | None = None
        self._seen: Counter[str] = Counter()
        self._step = self._batches = 0

    def begin(self, step: int) -> None:
        """Begin a pass."""
        self._step, self._batches = step, 0
        self._seen = Counter()

    def see(self, values: Iterable[Any], examples: Any = None) -> None:
        """Take a batch before it is passed.

        Args:
            values: What the model gets.
            examples: The names of the examples, if they have any.

        Raises:
            RecordingError: The first pass did not have it.
        """
        if examples is None:
            new = [f"{self._batches}: {_digest(values)}"]
        else:
            new = [repr(one) for one in (examples.tolist() if hasattr(examples, "tolist") else examples)]
        self._batches += 1
        self._seen.update(new)
        if self._first is not None and any(self._seen[one] > self._first[one] for one in new):
            raise self._other()

    def end(self) -> None:
        """End a pass.

        Raises:
            RecordingError: The first one had more.
        """
        if self._first is None:
            self._first = self._seen
        elif self._seen != self._first:
            raise self._other()

    def _other(self) -> RecordingError:
        return RecordingError(
            f"the probe {self._name!r} gives other data at step {self._step} than before",
            hint="a probe is the same examples in the same order each time: no shuffling, no random crops",
        )


def _digest(values: Iterable[Any]) -> str:
    """Return a digest of the first 64 KiB of each tensor."""
    digest = blake2b(digest_size=16)
    for value in values:
        for part in _dense(value):
            digest.update(repr((part.dtype, part.shape)).encode())
            head = part.detach().reshape(-1)[: 65536 // max(part.itemsize, 1)]
            digest.update(head.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _dense(value: Any) -> tuple[torch.Tensor, ...]:
    """Return what can be looked at: a tensor, those of a nested one, those in a list, nothing of any other."""
    if isinstance(value, (list, tuple)):
        return tuple(part for one in value for part in _dense(one))
    if not isinstance(value, torch.Tensor) or value.device.type == "meta":
        return ()
    if value.is_nested:
        return value.unbind()
    return (value,) if value.layout == torch.strided and not value.is_quantized else ()
