"""The form of flat memory against the reference in float64: sums, gradients, second pass, divergence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lamina_kernels.attention import blocked, blocked_backward, blocked_divergence, blocked_mass, reference
from lamina_kernels.attention.problem import Gradients, Problem, Sums, Wanted
from tests.faults import broken
from tests.kernels.attention_problems import EVERY, PROBLEMS, problem

VISITS = "lamina_kernels.attention.blocked_visits"
SOFTMAX = [name for name, options in PROBLEMS.items() if not options.get("sigmoid")]


@pytest.fixture(params=["whole", "tiles"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with the sizes of tiles that the product has, and with small ones."""
    if request.param == "tiles":
        small(monkeypatch)


def small(patch: pytest.MonkeyPatch) -> None:
    for name, value in {"QUERIES": 32, "KEYS": 24, "SCORES": 3000}.items():
        patch.setattr(f"{VISITS}.{name}", value)
    patch.setattr("lamina_kernels.attention.blocked_top.GROUP", 4)


def close(got: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
    assert got.dtype == wanted.dtype, name
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")


def check_sums(name: str) -> None:
    p = problem(**EVERY, **PROBLEMS[name])
    wanted, got = reference.forward(p), blocked.forward(p)
    for field, value in wanted._asdict().items():
        if value is None:
            assert getattr(got, field) is None
        else:
            close(getattr(got, field), value, field)


def leaves(p: Problem) -> dict[str, torch.Tensor]:
    """Return all that a problem has gradients by, as leaves."""
    held = {name: getattr(p, name) for name in Gradients._fields}
    return {name: x.detach().clone().requires_grad_() for name, x in held.items() if x is not None}


def draw(like: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


def check_gradients(name: str) -> None:
    p = problem(**EVERY, **PROBLEMS[name])
    by = leaves(p)
    wanted = reference.forward(replace(p, **by))
    found = blocked.forward(p)
    given = {
        # Where nothing is seen, -inf is no function of anything.
        field: draw(value, seed).masked_fill(value == -torch.inf, 0)
        for seed, (field, value) in enumerate(wanted._asdict().items())
        if value is not None and value.requires_grad
    }
    outputs = [getattr(wanted, field).nan_to_num(neginf=0) for field in given]
    expected = torch.autograd.grad(outputs, list(by.values()), list(given.values()))
    blank: dict[str, Any] = dict.fromkeys(Sums._fields)
    got = blocked_backward.backward(p, found, Sums(**(blank | given)))
    for field, value in zip(by, expected, strict=True):
        close(getattr(got, field), value, field)


@pytest.mark.parametrize("name", PROBLEMS)
def test_sums_are_those_of_the_reference(name, size):
    check_sums(name)


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_are_those_of_the_reference(name, size):
    check_gradients(name)


@pytest.mark.parametrize("name", PROBLEMS)
def test_masses_are_those_of_the_reference(name, monkeypatch):
    small(monkeypatch)
    p = problem(**PROBLEMS[name])
    # As if a sink took its share.
    lse = reference.forward(p).lse
    lse = None if lse is None else lse + 0.3
    wanted = Wanted(received=True, blocks=True, share=0.05)
    for field, value in reference.mass(p, lse, wanted)._asdict().items():
        close(getattr(blocked_mass.mass(p, lse, wanted), field), value, field)


@pytest.mark.parametrize("kind", ["kl", "js", "tv"])
@pytest.mark.parametrize("name", SOFTMAX)
def test_divergences_are_those_of_the_reference(name, kind, monkeypatch):
    small(monkeypatch)
    first, second = problem(**PROBLEMS[name]), problem(seed=1, **PROBLEMS[name])
    # The second model has keys for each head.
    second = replace(second, k=second.k.repeat_interleave(second.q.shape[1] // second.k.shape[1], 1))
    by, other_by = leaves(first), leaves(second)
    wanted = reference.divergence(replace(first, **by), replace(second, **other_by), kind)
    found = blocked_divergence.divergence(first, second, kind)
    known = blocked_divergence.divergence(first, second, kind, (found.lse, found.other_lse))
    for field, value in wanted._asdict().items():
        close(getattr(found, field), value.detach(), field)
        assert torch.equal(getattr(known, field), getattr(found, field))
    gradient = draw(found.value, 0)
    held = {f"first {n}": x for n, x in by.items()} | {f"second {n}": x for n, x in other_by.items()}
    expected = torch.autograd.grad(wanted.value, list(held.values()), gradient, allow_unused=True)
    both: dict[str, Any] = dict(
        zip(
            ("first", "second"),
            blocked_divergence.divergence_backward(first, second, kind, found, gradient),
            strict=True,
        )
    )
    for at, value in zip(held, expected, strict=True):
        side, field = at.split()
        if value is not None:
            close(getattr(both[side], field), value, at)


def test_a_key_that_one_model_does_not_see_has_its_share_of_the_divergence():
    p = problem()
    bias = torch.zeros(2, 2, 70, dtype=torch.float64)
    gone = bias.clone()
    gone[:, 1, 3] = -torch.inf
    first, second = replace(p, key_bias=bias), replace(p, key_bias=gone)
    weights, others = (reference.scores(x)[0].softmax(-1) for x in (first, second))
    middle = (weights + others) / 2
    js = (torch.xlogy(weights, weights / middle) + torch.xlogy(others, others / middle)).sum(-1) / 2
    for one, other in ((first, second), (second, first)):
        close(blocked_divergence.divergence(one, other, "js").value, js, "js")
        tv = (weights - others).abs().sum(-1) / 2
        close(blocked_divergence.divergence(one, other, "tv").value, tv, "tv")
    kl = blocked_divergence.divergence(first, second, "kl").value
    assert kl[:, 0].eq(0).all()
    assert kl[:, 1].isposinf().all()
    back = torch.xlogy(others, torch.where(others > 0, others / weights, 1)).sum(-1)
    close(blocked_divergence.divergence(second, first, "kl").value, back, "kl")


@pytest.mark.parametrize(
    ("fault", "check", "name"),
    [
        ("blocked_attention_forgets_to_rescale", check_sums, "plain"),
        ("blocked_attention_sees_past_the_window", check_sums, "window"),
        ("blocked_attention_sees_past_the_window", check_gradients, "causal"),
        ("blocked_attention_ignores_bits", check_sums, "mask"),
        ("blocked_attention_leaves_out_a_block", check_sums, "mask by head"),
        ("blocked_attention_forgets_the_scale_of_keys", check_gradients, "factors"),
        ("blocked_attention_measures_from_the_wrong_key", check_sums, "cap and slopes"),
        ("blocked_attention_numbers_packed_keys_through", check_sums, "packed"),
    ],
)
def test_a_fault_is_found_out(fault, check, name, monkeypatch):
    small(monkeypatch)
    with broken(fault), pytest.raises(AssertionError):
        check(name)
