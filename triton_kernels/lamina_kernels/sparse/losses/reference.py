"""The obvious form of the losses: every prefix decoded by itself, in float64, differentiated by torch itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.sparse.decoding import reference as decoding
from lamina_kernels.sparse.decoding.entries import Entries


def squares(
    e: Entries, dictionary: Tensor, target: Tensor, bias: Tensor | None, given: Entries | None, prefixes: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the sum of squared residuals of each prefix, [P] float64, and of the target around its mean."""
    target = target.double()
    if given is not None:
        given = given._replace(values=given.values.detach())
        target = target - decoding.decode(given, dictionary.detach()[None], None)[:, 0]
    found = []
    for prefix in prefixes:
        some = e._replace(values=torch.where(e.ids < prefix, e.values, 0))
        out = decoding.decode(some, dictionary[None], None if bias is None else bias[None])[:, 0]
        found.append((target - out).square().sum())
    return torch.stack(found), (target - target.mean(0)).square().sum().detach()
