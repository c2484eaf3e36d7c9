"""HSIC, CKA, contrastive losses and class probabilities on a GPU: the numbers of the CPU, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import (
    RBF,
    Distance,
    Linear,
    cka_matrix,
    difference_moments,
    distance_correlation,
    harmonic,
    hsic,
    pairwise_loss,
)
from tests.kernels.gram_kernels import normal

pytestmark = pytest.mark.gpu

IDS = torch.arange(300) // 7


def everything(x: Tensor, y: Tensor, b: Tensor, ids: Tensor | None) -> list[Tensor]:
    """What is differentiable, once."""
    options: dict[str, Any] = {"groups": ids}
    return [
        cka_matrix([x, y, x + y], kernel=RBF(b), **options).value,
        hsic(x, y, kernel_x=Linear(), kernel_y=Linear(), **options),
        hsic(x, y, kernel_x=RBF(b), kernel_y=Distance(), **options),
        distance_correlation(x, y, **options),
        difference_moments(x, y, kernel=RBF(b)),
        pairwise_loss(x, y, temperature=b, bias=-2.0),
        pairwise_loss(x, y, kind="infonce", temperature=b),
        harmonic(x, y[:20], torch.arange(300, device=x.device) % 20, exponent=3.0).log_probability,
    ]


@pytest.mark.parametrize("ids", [None, IDS], ids=["rows", "groups"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_numbers_are_those_of_the_cpu(dtype: torch.dtype, ids: Tensor | None) -> None:
    found = []
    for device in ("cpu", "cuda"):
        rows = [normal(300, 6, seed=seed, dtype=dtype) for seed in (0, 1)]
        rows[1] += rows[0]
        x, y, b = (each.to(device).requires_grad_() for each in (*rows, torch.tensor(2.0, dtype=dtype)))
        values = everything(x, y, b, None if ids is None else ids.to(device))
        loss = torch.stack([value.double().square().sum() for value in values]).sum()
        found.append([each.cpu() for each in (*values, *torch.autograd.grad(loss, [x, y, b]))])
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for one, other in zip(*found, strict=True):
        scale = other.detach().abs().max()
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)
