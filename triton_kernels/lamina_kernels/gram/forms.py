"""The choice between the forms of a reduction."""

from __future__ import annotations

from typing import Literal

from lamina_kernels import dispatch
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.support import NO_KERNEL, refuse

FORMS = ("reference", "blocked", "triton")
Impl = Literal["reference", "blocked", "triton"]


def choose(op: str, p: Pairs, impl: str | None) -> str:
    """Return the form that runs, and log its name: what was asked for, else "blocked".

    Pairs of no rows are nobody's work: the form `reference` answers them.
    """
    form = dispatch.choose(op, FORMS, impl, default="blocked")
    if form == "triton":
        dispatch.demand_triton(op, p.x)
        refuse(op, NO_KERNEL)
    form = "reference" if 0 in (p.n, p.m) else form
    dispatch.log(op, form)
    return form
