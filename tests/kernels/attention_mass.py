"""The second pass by the Triton kernels, against `reference` in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lamina_kernels.attention import reference
from lamina_kernels.attention.problem import Masses, Problem, Wanted
from tests.kernels.attention_backward import problem_of
from tests.kernels.hsic_checks import poisoned

Mass = Callable[[Problem, torch.Tensor | None, Wanted], Masses]


def agrees_with_the_reference(mass: Mass, case: dict[str, Any]) -> None:
    problem = problem_of(case)
    exact = replace(problem, **{name: getattr(problem, name).double() for name in ("q", "k", "v")})
    lse = reference.forward(exact).lse
    wanted = Wanted(received=True, blocks=case["places"] != "packed", share=0.0503)
    expected = reference.mass(exact, lse, wanted)
    with poisoned():
        got = mass(problem, None if lse is None else lse.float(), wanted)
    for name, value in got._asdict().items():
        exactly = getattr(expected, name)
        if name == "above":
            assert torch.equal(value, exactly)
        elif exactly is not None:
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), exactly, rtol=1e-5, atol=1e-5)
