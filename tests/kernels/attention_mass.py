"""The second pass by the Triton kernels, against `reference` in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lamina_kernels.attention import reference
from lamina_kernels.attention.problem import Masses, Problem, Wanted
from tests.kernels.attention_backward import FACTORS as OF_BACKWARD
from tests.kernels.attention_backward import problem_of
from tests.kernels.covering import pairwise
from tests.kernels.hsic_checks import poisoned

Mass = Callable[[Problem, torch.Tensor | None, Wanted], Masses]


def mass(problem: Problem, lse: torch.Tensor | None, wanted: Wanted, *, impl: str) -> Masses:
    """Run the second pass of a form."""
    assert impl == "triton"
    from lamina_kernels.attention import mass_launch

    return mass_launch.mass(problem, lse, wanted)


FACTORS: dict[str, list[Any]] = {
    **{name: OF_BACKWARD[name] for name in OF_BACKWARD if name not in ("value_width", "gradients", "score")},
    "score": [*OF_BACKWARD["score"], "table"],
    "wanted": ["all", "received", "blocks", "share"],
}
CASES = pairwise(FACTORS)


def wanted_of(case: dict[str, Any]) -> Wanted:
    """Return what a case asks for; kernels have no blocks of packed sequences."""
    received, blocks, share = (case["wanted"] in ("all", name) for name in ("received", "blocks", "share"))
    return Wanted(received, blocks and case["places"] != "packed", 0.0503 if share else None)


def agrees_with_the_reference(mass: Mass, case: dict[str, Any]) -> None:
    problem = problem_of({"value_width": 16, "gradients": "out"} | case)
    exact = replace(problem, **{name: getattr(problem, name).double() for name in ("q", "k", "v")})
    lse, wanted = reference.forward(exact).lse, wanted_of(case)
    expected = reference.mass(exact, lse, wanted)
    with poisoned():
        got = mass(problem, None if lse is None else lse.float(), wanted)
    for name, value in got._asdict().items():
        exactly = getattr(expected, name)
        assert (value is None) == (exactly is None), name
        if value is None:
            continue
        if name == "above":
            assert torch.equal(value, exactly)
        else:
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), exactly, rtol=1e-5, atol=1e-5)


def some(**changes: Any) -> tuple[Problem, torch.Tensor | None, Wanted]:
    """Return a problem, its log-sum-exps, and everything that can be asked."""
    case = {name: values[0] for name, values in FACTORS.items()} | {"queries": 40, "keys": 70, "value_width": 16}
    problem = problem_of(case | changes)
    return problem, reference.forward(problem).lse, Wanted(received=True, blocks=True, share=0.05)


def equal(first: Masses, second: Masses) -> None:
    for a, b in zip(first, second, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


def the_same_bits_every_time(mass: Mass) -> None:
    given = some(score="capped", window="both", group=2)
    equal(mass(*given), mass(*given))


def addresses_take_64_bits(mass: Mass) -> None:
    # The last of 40 keys starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    problem, lse, wanted = some(queries=20, keys=40, group=2, dtype=torch.float16)
    far = torch.empty(39 * stride + 16, dtype=torch.float16).as_strided((1, 1, 40, 16), (0, 0, stride, 1))
    far.copy_(problem.k)
    equal(mass(replace(problem, k=far), lse, wanted), mass(problem, lse, wanted))


CHECKS = [the_same_bits_every_time, addresses_take_64_bits]
