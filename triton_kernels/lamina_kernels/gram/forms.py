"""The choice between the forms of a reduction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lamina_kernels import dispatch
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.pointwise import function_of
from lamina_kernels.gram.support import NO_FUNCTION
from lamina_kernels.gram.terms import leaves
from lamina_kernels.refusals import refuse

FORMS = ("reference", "blocked", "triton")
Impl = Literal["reference", "blocked", "triton"]
SPLIT: Mapping[str, int] = {}
"""By op, the width of rows from which a GPU takes "blocked": a product that is written, and a reduction that reads it.

The last note of `python -m bench.gram_sums` is this line. It is empty because no GPU has measured one.
"""


def choose(op: str, p: Pairs, impl: str | None, *, triton: bool = True) -> str:
    """Return the form that runs, and log its name.

    Pairs of no rows are nobody's work: the form `reference` answers them.

    Args:
        op: The op's public name.
        p: The pairs.
        impl: What was asked for; None for "triton" on a GPU that it can run on, below the width of `SPLIT`, and else
            "blocked".
        triton: Whether "triton" is what runs on a GPU: "blocked" may have a shortcut that no kernel beats.
    """
    default = triton and is_written(p) and p.x.is_cuda and dispatch.triton_obstacle(p.x) is None
    default = default and (op not in SPLIT or p.x.shape[1] < SPLIT[op])
    form = dispatch.choose(op, FORMS, impl, default="triton" if default else "blocked")
    if form == "triton":
        dispatch.demand_triton(op, p.x)
        if not is_written(p):
            refuse(op, NO_FUNCTION)
    form = "reference" if 0 in (p.n, p.m) else form
    dispatch.log(op, form)
    return form


def is_written(p: Pairs) -> bool:
    """Return whether all functions of a user's own that the kernel is made of are there in Triton."""
    return all(leaf.base != "own" or function_of(leaf.degree) is not None for leaf in leaves(p.tree))
