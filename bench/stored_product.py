"""The product of an encoder by a kernel that stores all of it: what an encoder that stores what it keeps is beside.

It walks and multiplies as the kernel of `lamina_kernels.sparse.encode` does, and takes the larger tiles that there is
room for where nothing is chosen.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.sparse.encoding.launch import PROGRAMS
from lamina_kernels.tiles.dot import dot_of_rows
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.load import INDEX
from lamina_kernels.tiles.rows import ceil_div


@triton.jit(do_not_specialize=["n", "m", "parts"])
def stored_product_kernel(
    x, weight,  # [n, width], [m, width]: contiguous
    out,  # [n, m]
    n, m, parts, width,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Store the products of ROWS rows with one part of the units."""
    blocks = tl.cdiv(n, ROWS)
    block = tl.program_id(0) % blocks
    rows = block * ROWS + tl.arange(0, ROWS)
    rows_valid = rows < n
    # Of this program's own rows 32 bits count.
    own = out + (block * ROWS).to(INDEX) * m
    into = tl.arange(0, ROWS)[:, None] * m + tl.arange(0, COLUMNS)[None, :]
    share = tl.cdiv(tl.cdiv(m, COLUMNS), parts) * COLUMNS
    first = tl.program_id(0) // blocks * share
    last = tl.minimum(first + share, m)
    for place in range(first, last, COLUMNS):
        units = place + tl.arange(0, COLUMNS)
        valid = units < last
        pre = dot_of_rows(x, rows, width, rows_valid, weight, units, width, valid, width, PRECISION, CHUNK)
        tl.store(own + place + into, pre.to(out.dtype.element_ty), mask=rows_valid[:, None] & valid[None, :])


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weightᵀ, [n, m], in half precision."""
    launch = plan(x, weight, dispatch.target(x))
    run(stored_product_kernel, launch, x)
    return launch.arguments["out"]


def plan(x: Tensor, weight: Tensor, target: str) -> Launch:
    """Plan the launch for contiguous rows and units in half precision."""
    (n, width), m = x.shape, len(weight)
    tile = tiling.scores(target, "half", m)
    blocks, steps = ceil_div(n, tile.rows), ceil_div(m, tile.columns)
    parts = max(1, min(ceil_div(PROGRAMS, max(1, blocks)), steps))
    arguments = {
        "x": x,
        "weight": weight,
        "out": torch.empty(n, m, dtype=x.dtype, device=x.device),
        "n": n,
        "m": m,
        "parts": parts,
        "width": width,
        "PRECISION": "half",
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "CHUNK": tile.width,
    }
    return Launch((blocks * parts,), arguments, {"num_warps": tile.warps, "num_stages": tile.stages})
