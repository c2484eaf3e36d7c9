"""Inner products of long vectors, in plain torch."""

from __future__ import annotations

from torch import Tensor

LONG = 4096
"""Numbers of an inner product that float32 adds up; longer ones are added in float64."""


def inner(vectors: Tensor, others: Tensor | None = None) -> Tensor:
    """Return the inner products of long vectors [k, long] with each other or with others [m, long], float64 [k, m].

    Example:
        >>> import torch
        >>> inner(torch.ones(1, 10_000), torch.eye(2, 10_000)).tolist()
        [[1.0, 1.0]]
    """
    others = vectors if others is None else others
    long = vectors.shape[1] // LONG * LONG
    found = (vectors[:, long:] @ others[:, long:].T).double()
    if long:
        pieces = [each[:, :long].view(len(each), -1, LONG).transpose(0, 1) for each in (vectors, others)]
        found += (pieces[0] @ pieces[1].mT).double().sum(0)
    return found
