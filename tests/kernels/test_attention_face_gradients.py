from __future__ import annotations

import pytest
import torch

from lamina_kernels.attention import attend
from tests.kernels import attention_gradient_checks as checks
from tests.kernels.attention_forms import FORMS


@pytest.mark.parametrize("name", checks.LEARNED)
def test_gradients_are_differences(name):
    FORMS["reference"].run(checks.gradients_are_differences, name)


@pytest.mark.parametrize("name", checks.LEARNED)
def test_gradients_of_flat_memory_are_those_of_the_reference(name):
    FORMS["blocked"].run(checks.gradients_are_those_of_the_reference, name)


# A table has no gradient there.
@pytest.mark.parametrize("name", [name for name in checks.LEARNED if name != "relative"])
def test_gradients_of_triton_are_those_of_the_reference(name):
    FORMS["triton"].run(checks.gradients_are_those_of_the_reference, name, 1e-4, torch.float32)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
@pytest.mark.parametrize("kind", ["kl", "js", "tv"])
def test_divergences_have_gradients(kind, impl):
    checks.divergences_have_gradients(impl, kind)


@pytest.mark.parametrize("name", ["distance", "cosine"])
def test_a_norm_without_a_gradient_is_noticed(name):
    with pytest.raises(AssertionError):
        FORMS["reference"].run(
            checks.gradients_are_differences, name, fault="attention_looks_at_norms_without_gradients"
        )


def test_rows_of_zeros_have_no_cosine_and_finite_gradients():
    from lamina_kernels.attention import Cosine

    q, k = torch.zeros(1, 1, 3, 16, requires_grad=True), torch.zeros(1, 1, 4, 16, requires_grad=True)
    stats = attend(q, k, k, score=Cosine(0.1), statistics=("lse", "max")).stats
    assert stats.max is not None
    assert stats.lse is not None
    assert not stats.max.any()
    (stats.lse.sum() + stats.max.sum()).backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_the_gradient_of_the_largest_score_goes_to_its_key():
    q, k = torch.ones(1, 1, 1, 16), torch.zeros(1, 1, 3, 16)
    k[0, 0, 1] = 1
    k.requires_grad_()
    stats = attend(q, k, k.detach(), scale=2.0, statistics=("max",)).stats
    assert stats.max is not None
    stats.max.sum().backward()
    assert k.grad is not None
    assert k.grad[0, 0].tolist() == [[0.0] * 16, [2.0] * 16, [0.0] * 16]


def entropy_falls_by_its_gradient() -> None:
    """Training on the entropy alone makes attention uniform."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 1, 8, 16, generator=generator, requires_grad=True)
    k, v = torch.randn(1, 1, 8, 16, generator=generator), torch.zeros(1, 1, 8, 16)
    for _ in range(60):
        entropy = attend(q, k, v, statistics=("entropy",)).stats.entropy
        assert entropy is not None
        (gradient,) = torch.autograd.grad(entropy.sum(), q)
        q = (q + 2 * gradient).detach().requires_grad_()
    entropy = attend(q, k, v, statistics=("entropy",)).stats.entropy
    assert entropy is not None
    assert (entropy > 0.95 * torch.tensor(8.0).log()).all()


def test_entropy_falls_by_its_gradient():
    entropy_falls_by_its_gradient()


def test_integers_have_no_gradient():
    q, k, v = (torch.ones(1, 1, 3, 16, requires_grad=True) for _ in range(3))
    stats = attend(q, k, v, statistics=("argmax", "max"), topk=2, share=0.1).stats
    assert stats.max is not None
    assert stats.max.requires_grad
    for value in (stats.argmax, stats.top_keys, stats.top_scores, stats.keys_above):
        assert value is not None
        assert not value.requires_grad
