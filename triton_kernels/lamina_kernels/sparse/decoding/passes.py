"""The two passes over entries that decoding and its gradients are made of, by the name of the form that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from lamina_kernels.sparse.decoding import blocked
from lamina_kernels.sparse.decoding.units import Runs


class Passes(NamedTuple):
    """The passes of a form; see `blocked` for what they compute."""

    sums: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
    products: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    by_unit: Callable[[Tensor, Runs, Sequence[Tensor]], list[Tensor]]


def passes(form: str) -> Passes:
    """Return the passes of "blocked" or "triton"; Triton is imported when it is first asked for."""
    if form == "blocked":
        return Passes(blocked.sums, blocked.products, blocked.by_unit)
    from lamina_kernels.sparse.decoding import launch

    return Passes(launch.sums, launch.products, launch.by_unit)
