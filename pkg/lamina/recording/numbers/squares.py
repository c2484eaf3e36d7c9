"""Sums of squares of many tensors, at the speed at which they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import _foreach_norm, _foreach_sub  # pyright: ignore[reportPrivateImportUsage]

ROW = 2**10
"""Elements that are summed in float32: a relative error of at most 1e-6. Sums of rows are added in float64."""

PIECE = 2**18
"""Elements a thread that are worked on at a time where something has to be computed first: they stay in its cache."""

SMALL = 2**13
"""Tensors of fewer elements are worked on together: what a call costs counts for more than what it computes."""


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
    groups: dict[tuple[torch.device, torch.dtype, bool], list[int]] = {}
    for index, tensor in enumerate(tensors):
        small = tensor.device.type != "cpu" or tensor.numel() < SMALL
        groups.setdefault((tensor.device, tensor.dtype, small), []).append(index)
    found: list[torch.Tensor] = []
    for (_, dtype, together), indices in groups.items():
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        own = [tensors[index] for index in indices]
        others = None if minus is None else [minus[index] for index in indices]
        found.append(_together(own, others, wide) if together else _one_by_one(own, others, wide))
    if len(found) == 1:
        return found[0]
    target = max((one.device for one in found), key=lambda device: device.type != "cpu")
    order = torch.tensor([index for indices in groups.values() for index in indices], device="cpu").argsort()
    joined = torch.cat([one.to(target, non_blocking=True) for one in found])
    return joined[order.to(target, non_blocking=True)]


def _together(own: list[torch.Tensor], others: list[torch.Tensor] | None, wide: torch.dtype) -> torch.Tensor:
    if others is None:
        if own[0].device.type == "cpu":
            # Converting first is faster there.
            own = [one.to(wide) for one in own]
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


def _one_by_one(own: list[torch.Tensor], others: list[torch.Tensor] | None, wide: torch.dtype) -> torch.Tensor:
    scratch = torch.empty(PIECE * torch.get_num_threads(), dtype=wide, device="cpu")
    return torch.stack(
        [
            _of_one(one, None if others is None else others[index], scratch).square().sum()
            for index, one in enumerate(own)
        ]
    )


def _of_one(tensor: torch.Tensor, other: torch.Tensor | None, scratch: torch.Tensor) -> torch.Tensor:
    if other is None and tensor.dtype == scratch.dtype:
        return _norms_of_rows(tensor)
    norms = []
    for start in range(0, tensor.numel(), scratch.numel()):
        piece = tensor[start : start + scratch.numel()]
        work = scratch[: piece.numel()]
        if other is None:
            work.copy_(piece)
        elif piece.dtype == work.dtype:
            torch.sub(piece, other[start : start + scratch.numel()], out=work)
        else:
            work.copy_(piece).sub_(other[start : start + scratch.numel()])
        norms.append(_norms_of_rows(work))
    return torch.cat(norms)


def _norms_of_rows(flat: torch.Tensor) -> torch.Tensor:
    whole = flat.numel() // ROW * ROW
    norms = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:]).reshape(1)
    return torch.cat([norms, rest]).double()


def _exact(norms: torch.Tensor) -> torch.Tensor:
    # Some devices know no float64.
    return norms if norms.device.type == "mps" else norms.double()
