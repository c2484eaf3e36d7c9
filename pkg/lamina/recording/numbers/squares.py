"""Sums of squares of many tensors, at the speed at which they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

# A launch for many tensors; the public functions take one each.
from torch import _foreach_norm, _foreach_sub  # pyright: ignore[reportPrivateImportUsage]

from lamina import _core
from lamina.runs.buffers import name_of_torch

PORTION = 2**26
"""Elements whose differences a GPU holds at a time."""


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return the real numbers that a tensor holds, without a copy where it is dense: their order means nothing.

    Of a tensor that is sharded over ranks, this rank's part; of a sparse one, what is not zero, each place once.
    """
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()  # pyright: ignore[reportAttributeAccessIssue]
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce().values()
    elif tensor.layout != torch.strided:
        tensor = tensor.values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.itemsize < 2:
        tensor = tensor.float()
    # Dense in another order of its dimensions, as channels_last is: flat in the order in which it lies.
    order = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))
    return tensor.permute(order).reshape(-1)


def sums_of_squares(tensors: Sequence[torch.Tensor], minus: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """Return the sum of squares of each tensor, or of each difference, in float64.

    Half precision is summed, and subtracted, in float32: nothing overflows below 1e19.

    Args:
        tensors: Flat tensors, as `plain` gives them, of any devices and dtypes.
        minus: What is subtracted from each, or None.

    Returns:
        One number for each tensor, on the GPU if any of them is on one. Nothing waits for it.
    """
    if not tensors:
        return torch.zeros(0, dtype=torch.float64, device="cpu")
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(index)
    found: list[torch.Tensor] = []
    for (device, _), indices in groups.items():
        own = [tensors[index] for index in indices]
        others = None if minus is None else [minus[index] for index in indices]
        found.append(_on_cpu(own, others) if device.type == "cpu" else _on_device(own, others))
    if len(found) == 1:
        return found[0]
    target = max((one.device for one in found), key=lambda device: device.type != "cpu")
    order = torch.tensor([index for indices in groups.values() for index in indices], device="cpu").argsort()
    joined = torch.cat([one.to(target, non_blocking=True) for one in found])
    return joined[order.to(target, non_blocking=True)]


def _on_cpu(own: list[torch.Tensor], others: list[torch.Tensor] | None) -> torch.Tensor:
    """Read every byte once: what torch has for it converts half precision first, or takes differences, in memory."""
    name, threads = name_of_torch(own[0].dtype), torch.get_num_threads()
    minus = None if others is None else [_bytes(one) for one in others]
    sums = _core.sums_of_squares(str(name), [_bytes(one) for one in own], minus, threads=threads)
    return torch.tensor(sums, dtype=torch.float64, device="cpu")


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.resolve_neg().contiguous().view(torch.uint8).numpy()


def _on_device(own: list[torch.Tensor], others: list[torch.Tensor] | None) -> torch.Tensor:
    wide = torch.float64 if own[0].dtype == torch.float64 else torch.float32
    if others is None:
        return _exact(torch.stack(_foreach_norm(own, 2, dtype=wide))).square()
    norms: list[torch.Tensor] = []
    for few in _portions(own):
        changed = _foreach_sub([one.to(wide) for one in own[few]], [one.to(wide) for one in others[few]])
        norms += _foreach_norm(changed, 2)
    return _exact(torch.stack(norms)).square()


def _portions(tensors: list[torch.Tensor]) -> Iterator[slice]:
    """Yield consecutive parts of a list, so that the differences of one take little memory."""
    start = size = 0
    for index, tensor in enumerate(tensors):
        if size > 0 and size + tensor.numel() > PORTION:
            yield slice(start, index)
            start, size = index, 0
        size += tensor.numel()
    yield slice(start, len(tensors))


def _exact(norms: torch.Tensor) -> torch.Tensor:
    # Some devices know no float64.
    return norms if norms.device.type == "mps" else norms.double()
