"""What is refused although each part of it exists, by form, with the reason; docs/attention.md shows the same table."""

from __future__ import annotations

import torch

from lamina_kernels.attention.problem import Problem, Wanted
from lamina_kernels.refusals import Refusal

ALL = ("reference", "blocked", "triton")

DROPOUT = Refusal("dropout", ALL, "weights that are dropped have no statistics; dropout_p has to be 0")
CAPPED_KEYS = Refusal(
    "a KeyBias with a softcap",
    ALL,
    "terms of keys are added before the cap, which would cap -inf too; hide keys by mask=",
)
PACKED_MASK = Refusal("a mask of packed sequences", ALL, "cu_seqlens keeps them apart; pad them to use another mask")
TABLE_GRADIENT = Refusal(
    "gradients of a RelativeBias",
    ("triton",),
    "its kernels add to no table, which takes atomics; impl='blocked' has them",
)
PACKED_BLOCKS = Refusal(
    "block_mass of packed sequences", ("triton",), "a tile of its kernel is a block; impl='blocked' has it"
)
TWICE = Refusal(
    "gradients of gradients", ("blocked", "triton"), "only impl='reference' is differentiated by torch itself"
)

REFUSALS = (DROPOUT, CAPPED_KEYS, PACKED_MASK, TABLE_GRADIENT, PACKED_BLOCKS, TWICE)


def refusal_of(p: Problem, wanted: Wanted, form: str) -> Refusal | None:
    """Return why a form cannot compute what others can, or None."""
    if form != "triton":
        return None
    if p.table is not None and p.table.requires_grad and torch.is_grad_enabled():
        return TABLE_GRADIENT
    return PACKED_BLOCKS if wanted.blocks and p.cu_seqlens_q is not None else None
