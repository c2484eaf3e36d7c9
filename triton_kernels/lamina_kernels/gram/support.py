"""What is refused although each part of it exists, by form, with the reason; docs/gram.md shows the same table."""

from __future__ import annotations

from lamina_kernels.refusals import Refusal

BY_L1 = Refusal(
    "selection or counting by l1", ("triton",), "it takes no matrix product; impl='blocked' computes it on a GPU too"
)
NO_FUNCTION = Refusal(
    "a Pointwise kernel without a function",
    ("triton",),
    "only its reference in torch was given; impl='blocked' runs that",
)
LARGE_GROUPS = Refusal(
    "HSIC of rows in groups of more than 64",
    ("triton",),
    "a tile of its kernel holds whole groups; impl='blocked' takes them on a GPU too",
)
OLD_TRITON = Refusal(
    "HSIC and CKA with Triton 3.6",
    ("triton",),
    "its compiler returns no tuples of tuples; a newer one does, and impl='blocked' runs with any",
)
THRICE = Refusal("a third derivative", ("blocked",), "only impl='reference' is differentiated by torch itself")

REFUSALS = (BY_L1, NO_FUNCTION, LARGE_GROUPS, OLD_TRITON, THRICE)
