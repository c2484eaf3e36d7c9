"""Which tensors of a state lie over each other in memory, and what is stored so that they do again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def place(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What to store for each tensor: itself, an equal one before it, or one that it is a view of.

    Cost: looks at no element; a few microseconds a tensor.
    """
    wholes = list(tensors)
    storages: dict[Any, dict[tuple[Any, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, tensor in enumerate(tensors):
        # a tensor that is conjugated or negated lazily has other values than the bytes that it stands on
        if tensor.numel() and not tensor.is_conj() and not tensor.is_neg() and tensor.device.type != "meta":
            storage = (tensor.untyped_storage().data_ptr(), tensor.device)
            view = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            storages[storage][view].append(at)
    for views in storages.values():
        members = [places[0] for places in views.values()]
        if len(members) == 1 and tensors[members[0]].is_contiguous():
            # the usual case, and a state may hold a thousand of it
            bases = {members[0]: tensors[members[0]]}
        else:
            bases = dict(zip(members, _bases([tensors[at] for at in members]), strict=True))
        for places in views.values():
            for at in places:
                wholes[at] = bases[places[0]]
    return wholes


def dense_strides(tensor: torch.Tensor) -> list[int] | None:
    """The strides of a tensor that fills its memory in another order than rows first; None for any other."""
    if tensor.is_contiguous() or not is_dense(tensor.shape, tensor.stride()):
        return None
    return list(tensor.stride())


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether each place of as many elements in a row is taken once."""
    expected = 1
    for stride, length in sorted((stride, length) for length, stride in zip(shape, strides, strict=True) if length > 1):
        if stride != expected:
            return False
        expected *= length
    return True


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First byte in its storage, and the one behind its last."""
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + (last + 1) * tensor.element_size()


def _bases(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """What each of several different views of one storage is stored as."""
    extents = [_extent(tensor) for tensor in tensors]
    bases, cluster, end = list(tensors), list[int](), 0
    for at in sorted(range(len(tensors)), key=extents.__getitem__):
        if cluster and extents[at][0] >= end:
            _join(tensors, extents, cluster, bases)
            cluster = []
        end = max(end, extents[at][1]) if cluster else extents[at][1]
        cluster.append(at)
    _join(tensors, extents, cluster, bases)
    return bases


def _join(
    tensors: list[torch.Tensor], extents: list[tuple[int, int]], cluster: list[int], bases: list[torch.Tensor]
) -> None:
    """Gives those whose extents meet one base, if they share an element."""
    members = [tensors[at] for at in cluster]
    if not any(_overlaps_itself(member) for member in members) and not _share(members):
        return
    start, end = min(extents[at][0] for at in cluster), max(extents[at][1] for at in cluster)
    one_dtype = len({member.dtype for member in members}) == 1
    for at in cluster:
        if extents[at] == (start, end) and tensors[at].is_contiguous() and one_dtype:
            base = tensors[at]
            break
    else:
        base = _span(members, start, end, one_dtype)
    for at in cluster:
        bases[at] = base


def _span(members: list[torch.Tensor], start: int, end: int, one_dtype: bool) -> torch.Tensor:
    """All that lies between, in their dtype if they have one, else as bytes."""
    import torch

    first = members[0].detach()
    if one_dtype:
        size = first.element_size()
        return first.as_strided(((end - start) // size,), (1,), start // size)
    # each view begins at a whole element of its own
    start -= start % max(member.element_size() for member in members)
    whole = torch.empty(0, dtype=torch.uint8, device=first.device)
    return whole.set_(first.untyped_storage(), start, (end - start,))  # pyright: ignore[reportCallIssue]


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    start, end = _extent(tensor)
    return tensor.numel() * tensor.element_size() > end - start


def _share(members: list[torch.Tensor]) -> bool:
    """Whether any two have an element in common; where that is hard to tell, they have."""
    arrays = [_array(member) for member in members]
    for at, one in enumerate(arrays):
        for other in arrays[:at]:
            try:
                if np.shares_memory(one, other, max_work=10_000):  # pyright: ignore[reportArgumentType]
                    return True
            except np.exceptions.TooHardError:
                return True
    return False


def _array(tensor: torch.Tensor) -> np.ndarray:
    """An array of bytes' places, which nobody reads: the memory may be another device's."""
    size = tensor.element_size()
    interface = {
        "version": 3,
        "typestr": f"|V{size}",
        "data": (tensor.data_ptr(), True),
        "shape": tuple(tensor.shape),
        "strides": tuple(stride * size for stride in tensor.stride()),
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface))
