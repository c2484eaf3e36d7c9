"""The product of an encoder by a kernel that stores all of it: what an encoder that stores what it keeps is beside.

It walks and multiplies as the kernel of `lamina_kernels.sparse.encode` does, in tiles of the same size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.sparse.encoding import tiling
from lamina_kernels.sparse.encoding.forward import products_of
from lamina_kernels.sparse.encoding.launch import PROGRAMS
from lamina_kernels.tiles.descriptors import described, fit
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.load import INDEX
from lamina_kernels.tiles.rows import ceil_div


@triton.jit(do_not_specialize=["n", "m", "parts"])
def stored_product_kernel(
    x, weight,  # [n, width], [m, width]: contiguous, or descriptors of such
    out,  # [n, m], or a descriptor
    n, m, parts, width,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Store the products of ROWS rows with one part of the units."""
    blocks = tl.cdiv(n, ROWS)
    row = tl.program_id(0) % blocks * ROWS
    share = tl.cdiv(tl.cdiv(m, COLUMNS), parts) * COLUMNS
    first = tl.program_id(0) // blocks * share
    last = tl.minimum(first + share, m)
    for unit in range(first, last, COLUMNS):
        products = products_of(
            x, row, n, width, weight, unit, m, width, width, PRECISION, DESCRIPTORS, ROWS, COLUMNS, CHUNK
        )
        if DESCRIPTORS:
            out.store([row, unit], products.to(out.dtype))
        else:
            rows, units = row + tl.arange(0, ROWS), unit + tl.arange(0, COLUMNS)
            # Of this program's own rows 32 bits count.
            into = out + row.to(INDEX) * m + (tl.arange(0, ROWS)[:, None] * m + units[None, :])
            tl.store(into, products.to(out.dtype.element_ty), mask=(rows < n)[:, None] & (units < m)[None, :])


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weightᵀ, [n, m], in half precision."""
    launch = plan(x, weight, dispatch.target(x))
    run(stored_product_kernel, launch, x)
    out = launch.arguments["out"]
    return out.base if launch.arguments["DESCRIPTORS"] else out


def plan(x: Tensor, weight: Tensor, target: str) -> Launch:
    """Plan the launch for contiguous rows and units in half precision."""
    (n, width), m = x.shape, len(weight)
    tensors = {"x": x, "weight": weight, "out": torch.empty(n, m, dtype=x.dtype, device=x.device)}
    tile = tiling.tile(target, "half", fit(tensors.values()))
    blocks, steps = ceil_div(n, tile.rows), ceil_div(m, tile.columns)
    parts = max(1, min(ceil_div(PROGRAMS, max(1, blocks)), steps))
    tiles = {
        "x": (tile.rows, tile.chunk),
        "weight": (tile.columns, tile.chunk),
        "out": (tile.rows, tile.columns),
    }
    arguments = {
        **tensors,
        "n": n,
        "m": m,
        "parts": parts,
        "width": width,
        "PRECISION": "half",
        **described(tensors, tiles, target),
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "CHUNK": tile.chunk,
    }
    # What a descriptor stores stands in shared memory first, in the room of a chunk in flight.
    stages = tile.stages - arguments["DESCRIPTORS"]
    return Launch((blocks * parts,), arguments, {"num_warps": tile.warps, "num_stages": stages})
