"""What each form runs, by the name of the form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from lamina_kernels.attention import blocked, blocked_backward, blocked_divergence, blocked_mass
from lamina_kernels.attention.problem import Divergences, Gradients, Known, Masses, Problem, Sums, Wanted


class Form(NamedTuple):
    """The passes of a form; see `problem.py` for what they compute."""

    forward: Callable[[Problem], Sums]
    backward: Callable[[Problem, Sums, Sums], Gradients]
    mass: Callable[[Problem, torch.Tensor | None, Wanted], Masses]
    divergence: Callable[[Problem, Problem, str, Known], Divergences]
    divergence_backward: Callable[
        [Problem, Problem, str, Divergences, torch.Tensor, tuple[bool, bool]], tuple[Gradients | None, Gradients | None]
    ]


def form(name: str) -> Form:
    """Return a form; Triton is imported when it is first asked for."""
    if name == "blocked":
        return Form(
            blocked.forward,
            blocked_backward.backward,
            blocked_mass.mass,
            blocked_divergence.divergence,
            blocked_divergence.divergence_backward,
        )
    from lamina_kernels.attention import backward_launch, divergence_launch, launch, mass_launch

    return Form(
        launch.forward,
        backward_launch.backward,
        mass_launch.mass,
        divergence_launch.divergence,
        divergence_launch.divergence_backward,
    )
