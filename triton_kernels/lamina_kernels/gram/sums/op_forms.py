"""What each form of sums runs, by the name of the form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums import blocked, blocked_sides
from lamina_kernels.gram.sums.blocked import Found, Wanted, Weights
from lamina_kernels.gram.terms import leaves


class Form(NamedTuple):
    """The passes of a form; see `blocked` for what they compute."""

    sums: Callable[[Pairs, Tensor], Tensor]
    softmax: Callable[[Pairs, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    sides: Callable[[Pairs], tuple[Tensor, Tensor]]
    gradients: Callable[[Pairs, Tensor, Weights, Tensor, Wanted], Found]


def form(name: str, p: Pairs) -> Form:
    """Return a form for some pairs; Triton is imported when it is first asked for."""
    if name == "blocked":
        return Form(blocked.sums, blocked.softmax, blocked_sides.sides, blocked.gradients)
    from lamina_kernels.gram.sums import backward_launch, launch

    gradients = backward_launch.gradients if has_gradients(p) else blocked.gradients
    return Form(launch.sums, launch.softmax, launch.sides, gradients)


def has_gradients(p: Pairs) -> bool:
    """Return whether there are kernels of gradients: those of a function of a user's own are torch's."""
    return all(leaf.base != "own" for leaf in leaves(p.tree))
