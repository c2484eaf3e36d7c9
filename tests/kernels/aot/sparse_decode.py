"""The launches of decoding that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.sparse.decoding import launch
from lamina_kernels.sparse.decoding.forward import sums_kernel
from lamina_kernels.sparse.decoding.products import products_kernel
from lamina_kernels.sparse.decoding.units import runs
from lamina_kernels.tiles.launch import Launch

N, K, UNITS = 4096, 32, 65_536


def plan(target: str, which: str, dtype: torch.dtype, width: int) -> Launch:
    """Return the launch of "sums", of sums "by unit", or of "products" that nobody ever computes with."""
    values, ids = torch.zeros(N * K, dtype=dtype), torch.zeros(N * K, dtype=torch.int32)
    offsets = torch.arange(N + 1) * K
    table, g = torch.zeros(1024, width, dtype=dtype), torch.zeros(N, width, dtype=dtype)
    if which == "sums":
        return launch.sums_plan(values, ids, None, offsets[:-1], offsets[1:], table, g[0], dtype)
    if which == "products":
        return launch.products_plan(g, ids, offsets, table)
    r = runs(ids, offsets, UNITS)
    return launch.sums_plan(values, r.rows, r.order, r.starts, r.ends, g, None, dtype)


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches and their kernels; the second value says whether `make test` compiles it."""
    half, single = torch.bfloat16, torch.float32
    yield "bf16 d2048 sums", True, sums_kernel, partial(plan, which="sums", dtype=half, width=2048)
    yield "fp32 d768 sums", False, sums_kernel, partial(plan, which="sums", dtype=single, width=768)
    yield "bf16 d2048 by unit", False, sums_kernel, partial(plan, which="by unit", dtype=half, width=2048)
    yield "bf16 d2048 products", True, products_kernel, partial(plan, which="products", dtype=half, width=2048)
    yield "fp32 d768 products", False, products_kernel, partial(plan, which="products", dtype=single, width=768)
    yield "bf16 d8192 products", False, products_kernel, partial(plan, which="products", dtype=half, width=8192)
