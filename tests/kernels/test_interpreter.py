"""Why kernels multiply by `tiles.dot`: what Triton's interpreter makes of bfloat16.

If the first test fails, the interpreter has learned it: `tiles.dot` need not upcast, and bfloat16 can be tested here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def product(x: torch.Tensor, y: torch.Tensor, *, impl: str) -> torch.Tensor:
    from tests.kernels.interpreted_products import product_kernel

    out = torch.empty(x.shape)
    constants: dict[str, Any] = {"N": len(x), "RAW": impl == "raw"}
    product_kernel[(1,)](x, y, out, **constants)
    return out


def is_wrong_of_bfloat16_alone(multiply: Product) -> None:
    half, brain = (torch.ones(16, 16, dtype=dtype) for dtype in (torch.float16, torch.bfloat16))
    assert (multiply(half, half) == 16).all()
    assert not (multiply(brain, brain) == 16).any()


def is_exact(multiply: Product) -> None:
    # 8 bits each: their products are exact in float32, and so are sums of 16 integers below 64.
    x, y = (normal(16, 16, seed=seed).mul(8).round().clamp(-63, 63) for seed in (0, 1))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert torch.equal(multiply(x.to(dtype), y.to(dtype)), x @ y)


def test_the_interpreters_own_product_of_bfloat16_is_still_wrong():
    Form(product, "raw", {}, "interpreter").run(is_wrong_of_bfloat16_alone)


def test_the_kernels_product_is_exact():
    Form(product, "dot", {}, "interpreter").run(is_exact)
