"""The checked arguments of an encoder, what is to be kept of its pre-activations, and what was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels import checks
from lamina_kernels.tiles.rows import accumulation_dtype


@dataclass(frozen=True)
class Problem:
    """Pre-activations x weightᵀ + bias.

    Attributes:
        x: [n, d].
        weight: [M, d], of the same dtype.
        bias: [M], likewise, or None.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.x.shape[0]

    @property
    def m(self) -> int:
        """The number of units."""
        return self.weight.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of pre-activations: float64 for float64, else float32."""
        return accumulation_dtype(self.x.dtype)


class Largest(NamedTuple):
    """Keep the k largest of each row in each of several runs of units of equal length; of equal ones the first.

    Attributes:
        k: How many.
        groups: The number of runs.
        boost: [M], positive: pre-activations are compared as their product with it; None for as they are.
        mass: Whether the positive pre-activations of each row are summed.
    """

    k: int
    groups: int = 1
    boost: Tensor | None = None
    mass: bool = False


class Together(NamedTuple):
    """Keep the k n largest of all n rows; of equal ones the first, rows first.

    Attributes:
        k: How many in the mean of the rows.
    """

    k: int


class Above(NamedTuple):
    """Keep what lies above the sum of a limit for each unit and one for each row.

    Attributes:
        units: [M] in the dtype of pre-activations, or None for zeros.
        rows: [n], likewise.
    """

    units: Tensor | None = None
    rows: Tensor | None = None


Rule = Largest | Together | Above


class Kept(NamedTuple):
    """What was kept, in ascending ids.

    A row with a pre-activation that is NaN or infinite has NaN in place of its values: k of the first units of each
    run, or one of the first unit. Under `Together` all rows have, k of the first units each.

    Attributes:
        pre: [n, k groups] or [nnz], pre-activations, differentiable.
        ids: Of the same shape, int32.
        indptr: None, or [n + 1] int64.
        mass: [n], the sums of positive pre-activations; no elements if not asked for.
        positive: [M] int64, how many rows have a positive pre-activation, those left out that are not finite; no
            elements if not asked for.
    """

    pre: Tensor
    ids: Tensor
    indptr: Tensor | None
    mass: Tensor
    positive: Tensor


def problem(op: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Problem:
    """Check the arguments of an encoder.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, or more units than int32 counts.
    """
    checks.matrices(op, x=x, weight=weight)
    checks.same_width(op, x=x, weight=weight)
    m = len(weight)
    if m > torch.iinfo(torch.int32).max:
        raise ValueError(f"{op}: weight has {m} rows, ids in int32 count fewer")
    if bias is not None and (bias.shape != (m,) or bias.dtype != x.dtype or bias.device != x.device):
        found = f"{bias.dtype} {list(bias.shape)} on {bias.device}"
        raise ValueError(f"{op}: bias is {found}, expected {x.dtype} [{m}] on {x.device}")
    return Problem(x, weight, bias)


def survey(p: Problem) -> tuple[Tensor, bool]:
    """Return which rows meet a number that is not finite in x, weight or bias, and whether finite ones may overflow."""
    nothing = torch.zeros(2, dtype=p.dtype, device=p.x.device)
    # NaN spreads to both ends; no copy is made.
    ends = [nothing if t is None or t.numel() == 0 else torch.stack(t.aminmax()) for t in (p.weight, p.bias)]
    weight, bias = (end.double().abs().amax() for end in ends)
    if p.m == 0 or p.x.numel() == 0:
        rows = torch.zeros(p.n, dtype=torch.float64, device=p.x.device)
    else:
        rows = torch.stack(p.x.aminmax(dim=1)).double().abs().amax(0)
    lost = ~(rows.isfinite() & weight.isfinite() & bias.isfinite())
    terms = p.x.shape[1] * rows.masked_fill(lost, 0) * weight + bias
    return lost, bool((terms > torch.finfo(p.dtype).max / 2).any())


def poisoned(p: Problem, rule: Rule, kept: Kept, lost: Tensor) -> Kept:
    """Put NaN in place of what was kept of lost rows."""
    if not bool(lost.any()):
        return kept
    if isinstance(rule, Largest):
        length = p.m // rule.groups
        first = (
            torch.arange(rule.k, device=lost.device) + torch.arange(rule.groups, device=lost.device)[:, None] * length
        )
        ids = torch.where(lost[:, None], first.flatten().int(), kept.ids)
        mass = kept.mass.masked_fill(lost, torch.nan) if rule.mass else kept.mass
        return kept._replace(pre=kept.pre.masked_fill(lost[:, None], torch.nan), ids=ids, mass=mass)
    if isinstance(rule, Together):
        ids = torch.arange(rule.k, dtype=torch.int32, device=lost.device).repeat(p.n)
        indptr = torch.arange(p.n + 1, device=lost.device) * rule.k
        return kept._replace(pre=torch.full_like(kept.pre, torch.nan), ids=ids, indptr=indptr)
    assert kept.indptr is not None
    counts = kept.indptr.diff()
    stays = ~lost.repeat_interleave(counts)
    row = torch.cat([torch.arange(p.n, device=lost.device).repeat_interleave(counts)[stays], lost.nonzero()[:, 0]])
    nothing = kept.pre.new_full((int(lost.sum()),), torch.nan)
    order = row.argsort(stable=True)
    counts = torch.where(lost, 1, counts)
    return kept._replace(
        pre=torch.cat([kept.pre[stays], nothing])[order],
        ids=torch.cat([kept.ids[stays], torch.zeros_like(nothing, dtype=torch.int32)])[order],
        indptr=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
    )
