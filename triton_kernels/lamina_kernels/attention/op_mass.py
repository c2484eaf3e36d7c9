"""The second pass of attention as an operator that torch knows.

Its gradients need no kernel of their own. With g the gradient of a key's mass, sum_j g_j received_j is the sum over
the queries of sum_j p_ij g_j, the mean of a column g of the keys under p: so they are those of `Sums.columns`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from lamina_kernels.attention.op import attend, backward
from lamina_kernels.attention.op_arguments import COUNT, GRADIENTS, flat, packed, problem, schema, unpacked
from lamina_kernels.attention.op_forms import form
from lamina_kernels.attention.problem import MASS_BLOCK, Masses, Problem, Sums, Wanted
from lamina_kernels.operators import keep, kept, operator, plainly, tensors
from lamina_kernels.tiles.rows import ceil_div

# What a pass takes at a time.
_COLUMNS = 16


def mass(p: Problem, lse: torch.Tensor | None, wanted: Wanted, name: str) -> Masses:
    """Run the second pass of a form; differentiable in all that the problem holds and in `lse`."""
    return Masses(*unpacked(_mass(*flat(p), lse, *wanted, name)))


@operator(
    "attention_mass", f"({schema()}, Tensor? lse, bool received, bool blocks, float? share, str form) -> {tensors(3)}"
)
def _mass(*arguments: Any) -> tuple[torch.Tensor, ...]:
    p, (lse, *wanted, name) = problem(arguments[:COUNT]), arguments[COUNT:]
    with plainly(p.q):
        return packed(form(name).mass(p, lse, Wanted(*wanted)), p.q)


@torch.library.register_fake(_mass)
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    p, (_, received, blocks, share, _) = problem(arguments[:COUNT]), arguments[COUNT:]
    B, H, Nq, _ = p.q.shape
    Nk = p.k.shape[2]
    sizes = ceil_div(Nq, MASS_BLOCK), ceil_div(Nk, MASS_BLOCK)
    made = Masses(
        p.q.new_empty(B, H, Nk, dtype=p.dtype) if received else None,
        p.q.new_empty(B, H, *sizes, dtype=p.dtype) if blocks else None,
        p.q.new_empty(B, H, Nq, dtype=torch.int64) if share is not None else None,
    )
    return packed(made, p.q)


def _differentiate(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
    inputs, _ = kept(ctx)
    p = replace(problem(inputs[:COUNT]), topk=0, tier=3)
    p, lse, name = replace(p, v=p.v[..., :0]), inputs[COUNT], inputs[-1]
    found: list[torch.Tensor | None] = [None] * GRADIENTS
    by_lse = None
    for columns, weights in _columns(p, *gradients[:2]):
        asked = replace(p, columns=columns.to(p.dtype))
        given, wanted = Sums(p.v.new_empty(0), lse=lse), Sums(p.v.new_empty(0), columns=weights)
        given = given._replace(max=weights[..., 0], columns=torch.zeros_like(weights))
        found = [_sum(a, b) for a, b in zip(found, backward(asked, given, wanted, name), strict=True)]
        if lse is not None:
            means = attend(asked, name)
            assert means.columns is not None
            assert means.lse is not None
            # The weights are those of the lse that was given, which may count a sink.
            share = (means.lse - lse).masked_fill(lse == -torch.inf, 0).exp()
            by_lse = _sum(by_lse, -share * (means.columns * weights).sum(-1))
    # Values get no gradient.
    found[2] = None
    return *found, *([None] * (COUNT - GRADIENTS)), by_lse, None, None, None, None


def _columns(
    p: Problem, received: torch.Tensor | None, blocks: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield columns of the keys [B, H, Nk, C] and weights of the queries [B, H, Nq, C].

    The sums over C of their products are the gradients by p_ij.
    """
    B, H, Nq, _ = p.q.shape
    if received is not None:
        yield received[..., None], received.new_ones(B, H, Nq, 1)
    if blocks is not None:
        of_query, of_key = (torch.arange(n, device=p.q.device) // MASS_BLOCK for n in (Nq, p.k.shape[2]))
        for start in range(0, blocks.shape[3], _COLUMNS):
            some = torch.arange(start, min(start + _COLUMNS, blocks.shape[3]), device=p.q.device)
            yield (of_key[:, None] == some)[None, None], blocks[:, :, of_query][..., some]


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return b if a is None else a if b is None else a + b


torch.library.register_autograd(_mass, _differentiate, setup_context=keep)
