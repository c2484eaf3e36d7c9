"""Batches of a DataLoader's workers, in shared memory that is used again.

torch sends a tensor of another process as a new file of shared memory, which costs several times what it costs to fill
it. Here a worker keeps its files. Each is a slot: memory for one batch, and a byte that says who has it.

A slot is sent the first time that it is used; from then on a message names it. The receiver makes an ordinary tensor
over it, and says that the slot is free when nothing shares the tensor's storage any more (see `pool`). A slot is
used again when that was said and the worker's own tensor is gone too. So a batch that is never sent frees its slot in
the worker, one that is received and dropped frees it there, and one that nobody receives belongs to a dead worker.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import reduce_tensor

MOST = 16
"""Most slots of a worker; what a consumer keeps beyond them is sent as torch sends it."""

KEPT_BYTES = 128 << 20
"""Most bytes of a worker's slots. They are made one by one, when none is free."""

_FREE, _SENT, _RECEIVED, _INHERITED = range(4)
_STATE, _KNOWN = -1, -2
"""Where in a slot's bytes it says who has it, and whether the receiver keeps it."""

_received: dict[str, dict[int, np.ndarray]] = {}
"""The bytes of the slots of workers of this process, by worker and number."""


class Slots:
    """The slots of a worker."""

    def __init__(self, size: int) -> None:
        """Make slots of so many bytes, none of them yet."""
        self._size = size
        self._most = min(MOST, KEPT_BYTES // size) if size else 0
        self._worker = f"{os.getpid()} {os.urandom(8).hex()}"
        self._numbers = itertools.count()
        self._slots: list[Slot] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """An uninitialised tensor in a slot; None if every slot is in use."""
        if not 0 < math.prod(shape) * dtype.itemsize <= self._size:
            return None
        # a process that was forked off the receiver sees the slots that this one had then, nobody knows for how long
        self._slots = [slot for slot in self._slots if slot.bytes[_STATE] != _INHERITED]
        free = next((slot for slot in self._slots if slot.free), None)
        if free is None and len(self._slots) < self._most:
            free = Slot(self._worker, next(self._numbers), self._size)
            self._slots.append(free)
        return free and free.lend(shape, dtype)


class Slot:
    """Shared memory for a batch, in the worker that fills it."""

    def __init__(self, worker: str, number: int, size: int) -> None:
        self.worker = worker
        self.number = number
        self.memory = torch.zeros(size + 2, dtype=torch.uint8).share_memory_()
        self.bytes = self.memory.numpy()
        self._lent = False

    @property
    def free(self) -> bool:
        """Whether nobody sees what lies in it, here or there."""
        return not self._lent and self.bytes[_STATE] == _FREE

    def lend(self, shape: tuple[int, ...], dtype: torch.dtype) -> Batch:
        """A tensor over it."""
        self._lent = True
        lent = self.bytes[: math.prod(shape) * dtype.itemsize]
        weakref.finalize(lent, self._give_back).atexit = False
        batch = torch.from_numpy(lent).view(dtype).view(shape).as_subclass(Batch)
        # torch may give the storage other memory, in order to share it: the slot is in use until the batch is gone too
        batch.slot, batch.lent = self, lent
        return batch

    def _give_back(self) -> None:
        self._lent = False


class Batch(torch.Tensor):
    """A tensor in a slot, in the worker. What is computed from it, views of it as well, is a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    slot: Slot | None
    lent: np.ndarray

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """A plain copy."""
        return self.as_subclass(torch.Tensor).clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A plain copy, for who pickles it but to send it to another process."""
        return self.as_subclass(torch.Tensor).clone().__reduce_ex__(protocol)


def _send(batch: Batch) -> tuple[Any, ...]:
    """The slot's name, the first time that the batch is sent and if it lies there still; else as torch sends it."""
    slot, batch.slot = batch.slot, None
    lies_there = slot is not None and batch.data_ptr() == slot.memory.data_ptr() and batch.is_contiguous()
    if slot is None or not lies_there or batch.requires_grad:
        return reduce_tensor(batch)
    slot.bytes[_STATE] = _SENT
    memory = None if slot.bytes[_KNOWN] else slot.memory
    return _receive, (slot.worker, slot.number, memory, tuple(batch.shape), batch.dtype)


ForkingPickler.register(Batch, _send)


def _receive(
    worker: str, number: int, memory: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """The batch in a slot, in the process that started the worker."""
    size = math.prod(shape) * dtype.itemsize
    if memory is not None and not _keep(worker, number, memory.numpy()):
        batch = memory[:size].clone().view(dtype).view(shape)
        memory[_STATE] = _FREE
        return batch
    held = _received[worker][number]
    held[_STATE] = _RECEIVED
    lent = held[:size]
    weakref.finalize(lent, _give_back, held, os.getpid()).atexit = False
    return torch.from_numpy(lent).view(dtype).view(shape)


def _keep(worker: str, number: int, memory: np.ndarray) -> bool:
    """Keep a slot until its worker's process object is gone; False in a process that did not start the worker."""
    if worker not in _received:
        pid = int(worker.split()[0])
        process = next((child for child in multiprocessing.active_children() if child.pid == pid), None)
        if process is None:
            return False
        _received[worker] = {}
        weakref.finalize(process, _received.pop, worker, None).atexit = False
    _received[worker][number] = memory
    memory[_KNOWN] = 1
    return True


def _give_back(memory: np.ndarray, receiver: int) -> None:
    # a fork of the receiver drops what the receiver still has
    if memory[_STATE] == _RECEIVED and os.getpid() == receiver:
        memory[_STATE] = _FREE


def _bequeath() -> None:
    """What is held while this process forks is the child's too, and never used again."""
    for slots in list(_received.values()):
        for number, memory in list(slots.items()):
            if memory[_STATE] == _RECEIVED:
                memory[_STATE] = _INHERITED
                slots.pop(number, None)


os.register_at_fork(before=lambda: _bequeath(), after_in_child=_received.clear)  # noqa: PLW0108
