"""Codes side by side: the units of several encoders as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lamina_kernels.sparse.codes import Codes


def hstack(codes: Sequence[Codes]) -> Codes:
    """Put codes of the same rows side by side, as `torch.hstack` does with matrices.

    It is how a cross-layer transcoder reads: what its l-th layer writes is decoded from the codes of layers 1 to l.

    Args:
        codes: One or more, of n rows each, in one dtype and on one device; M_1, M_2, ... units.

    Returns:
        Codes of M_1 + M_2 + ... units, differentiable in the values of all. The entries of a row are those of the first
        codes, then those of the second, and so on; [n, k_1 + k_2 + ...] where none has an indptr. Ids are int32, or
        int64 where there are more units than that counts; one that was out of range becomes -1.

    Raises:
        ValueError: No codes; numbers of rows, dtypes or devices that differ.

    Cost:
        One copy of the entries.

    Example:
        >>> import torch
        >>> first = Codes(torch.tensor([[1.0], [2.0]]), torch.tensor([[0], [1]]), width=2)
        >>> second = Codes(torch.tensor([3.0]), torch.tensor([0]), 3, indptr=torch.tensor([0, 1, 1]))
        >>> hstack([first, second]).dense().tolist()
        [[1.0, 0.0, 3.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0, 0.0]]
    """
    if len(codes) == 0:
        raise ValueError("hstack: no codes")
    first, width = codes[0], sum(each.width for each in codes)
    for place, each in enumerate(codes):
        own, like = ((len(c), c.values.dtype, c.values.device) for c in (each, first))
        if own != like:
            raise ValueError(
                f"hstack: codes {place} are {own[0]} rows of {own[1]} on {own[2]}, but codes 0 are {like[0]} of "
                f"{like[1]} on {like[2]}"
            )
    dtype = torch.int32 if width <= torch.iinfo(torch.int32).max else torch.int64
    ids, before = [], 0
    for each in codes:
        own = each.ids.to(dtype)
        # What names no unit must not name one of the next.
        ids.append(torch.where((own >= 0) & (own < each.width), own + before, -1))
        before += each.width
    values = [each.values for each in codes]
    if all(each.indptr is None for each in codes):
        return Codes(torch.cat(values, 1), torch.cat(ids, 1), width, check=False)
    order = torch.cat([each.row_ids() for each in codes]).argsort(stable=True)
    flat, units = (torch.cat([part.flatten() for part in parts])[order] for parts in (values, ids))
    counts = torch.stack([each.counts() for each in codes]).sum(0)
    return Codes(flat, units, width, torch.cat([counts.new_zeros(1), counts.cumsum(0)]), check=False)
