"""What each form of sums runs, by the name of the form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums import blocked
from lamina_kernels.gram.sums.blocked import Found, Weights
from lamina_kernels.gram.terms import leaves

WIDEST = 512
"""The widest rows that the kernel of gradients takes: it computes the scores anew for every 64 or 128 columns."""


class Form(NamedTuple):
    """The passes of a form; see `blocked` for what they compute."""

    sums: Callable[[Pairs, Tensor], Tensor]
    softmax: Callable[[Pairs, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    gradients: Callable[[Pairs, Tensor, Weights, Tensor], Found]


def form(name: str, p: Pairs) -> Form:
    """Return a form for some pairs; Triton is imported when it is first asked for."""
    if name == "blocked":
        return Form(blocked.sums, blocked.softmax, blocked.gradients)
    from lamina_kernels.gram.sums import backward_launch, launch

    return Form(launch.sums, launch.softmax, backward_launch.gradients if has_gradients(p) else blocked.gradients)


def has_gradients(p: Pairs) -> bool:
    """Return whether the kernel of gradients has an advantage: of products of rows that are not too wide.

    The gradient of a distance that is a sum of absolute differences is no matrix product, and that of a function of a
    user's own is torch's.
    """
    return all(
        (leaf.base in ("dot", "square") or leaf.norm == 2) and leaf.stop - leaf.start <= WIDEST
        for leaf in leaves(p.tree)
    )
