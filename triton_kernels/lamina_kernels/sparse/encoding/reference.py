"""The obvious form: all pre-activations at once, sorted, and differentiated by torch itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.sparse.encoding.problem import Kept, Largest, Problem, Rule, Together, poisoned


def keep(p: Problem, rule: Rule, *, positive: bool = False) -> Kept:
    """Return what a rule keeps."""
    pre = p.x.to(p.dtype) @ p.weight.to(p.dtype).T
    pre = pre if p.bias is None else pre + p.bias.to(p.dtype)
    lost = ~pre.detach().isfinite().all(1)
    kept = _kept(pre.masked_fill(lost[:, None], 0), rule)
    counts = ((pre > 0) & ~lost[:, None]).sum(0) if positive else pre.new_empty(0, dtype=torch.int64)
    return poisoned(p, rule, kept._replace(positive=counts), lost)


def _kept(pre: Tensor, rule: Rule) -> Kept:
    n, m = pre.shape
    none = pre.new_empty(0)
    if isinstance(rule, Largest):
        scores = pre.detach() if rule.boost is None else pre.detach() * rule.boost.detach().to(pre.dtype)
        length = m // rule.groups
        order = scores.unflatten(1, (rule.groups, length)).argsort(dim=2, descending=True, stable=True)
        first = torch.arange(rule.groups, device=pre.device)[:, None] * length
        ids = (order[:, :, : rule.k] + first).flatten(1).sort(dim=1).values
        mass = pre.detach().clamp(min=0).sum(1) if rule.mass else none
        return Kept(pre.gather(1, ids), ids.int(), None, mass, none)
    if isinstance(rule, Together):
        at = pre.detach().flatten().argsort(descending=True, stable=True)[: rule.k * n].sort().values
        rows, ids = at // max(m, 1), at % max(m, 1)
    else:
        limit = 0 if rule.units is None else rule.units.detach()
        limit = limit if rule.rows is None else limit + rule.rows.detach()[:, None]
        rows, ids = (pre.detach() > limit).nonzero().unbind(1)
    counts = rows.bincount(minlength=n)
    return Kept(pre[rows, ids], ids.int(), torch.cat([counts.new_zeros(1), counts.cumsum(0)]), none, none)
