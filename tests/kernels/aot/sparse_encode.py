"""What is compiled of encoders ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from bench import stored_product
from lamina_kernels.sparse.encoding import launch
from lamina_kernels.sparse.encoding.forward import groups_above_kernel
from lamina_kernels.sparse.encoding.problem import Problem
from lamina_kernels.tiles.launch import Launch


def encode_launch(
    target: str,
    dtype: torch.dtype,
    width: int,
    *,
    bias: bool = False,
    by: str | None = None,
    mass: bool = False,
    positive: bool = False,
) -> Launch:
    """Return the launch of an encoder of 2048 rows and 16,384 units that nobody ever computes with.

    Args:
        target: What it is compiled for.
        dtype: Of the rows.
        width: Of the rows.
        bias: Whether there is one.
        by: "shift" for limits of units, "boost" for helped winners, None for one limit a row.
        mass: Whether positive pre-activations are summed.
        positive: Whether they are counted.
    """
    x, weight = torch.zeros(2048, width, dtype=dtype), torch.zeros(16_384, width, dtype=dtype)
    p = Problem(x, weight, torch.zeros(16_384, dtype=dtype) if bias else None)
    named = {} if by is None else {by: torch.zeros(16_384)}
    counts = torch.zeros(16_384, dtype=torch.int32) if positive else None
    return launch.plan(p, torch.zeros(2048), 128, target, mass=mass, positive=counts, **named)


def product_launch(target: str, width: int) -> Launch:
    """Return the launch of the product alone, stored."""
    half = torch.bfloat16
    return stored_product.plan(torch.zeros(2048, width, dtype=half), torch.zeros(16_384, width, dtype=half), target)


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Yield names, whether `make test` compiles them, kernels and plans."""
    for name, main, plan in _encoders():
        yield name, main, groups_above_kernel, plan
    for width in (1024, 4096):
        plan = partial(product_launch, width=width)
        yield f"bf16 d{width} product", False, stored_product.stored_product_kernel, plan


def _encoders() -> Iterable[tuple[str, bool, Callable[[str], Launch]]]:
    half, single = torch.bfloat16, torch.float32
    yield "bf16 d1024 bias", True, partial(encode_launch, dtype=half, width=1024, bias=True)
    yield "bf16 d4096 bias", False, partial(encode_launch, dtype=half, width=4096, bias=True)
    yield "bf16 d1024", False, partial(encode_launch, dtype=half, width=1024)
    # No multiple of what a copy engine takes.
    yield "bf16 d1001 bias", False, partial(encode_launch, dtype=half, width=1001, bias=True)
    yield "bf16 d1024 bias shift", False, partial(encode_launch, dtype=half, width=1024, bias=True, by="shift")
    yield "bf16 d1024 bias boost", False, partial(encode_launch, dtype=half, width=1024, bias=True, by="boost")
    yield "bf16 d1024 bias mass", False, partial(encode_launch, dtype=half, width=1024, bias=True, mass=True)
    yield "bf16 d1024 bias positive", False, partial(encode_launch, dtype=half, width=1024, bias=True, positive=True)
    yield "fp16 d64", False, partial(encode_launch, dtype=torch.float16, width=64)
    yield "fp32 d768 bias", False, partial(encode_launch, dtype=single, width=768, bias=True)
