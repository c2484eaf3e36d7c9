"""How the Triton kernels of decoding are launched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lamina_kernels.sparse.decoding.forward import sums_kernel
from lamina_kernels.sparse.decoding.products import products_kernel
from lamina_kernels.sparse.decoding.units import Runs, add_pieces
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div

COLUMNS = 1024
"""The most columns of a program: 8 numbers a thread of 4 warps."""
WIDEST = 4096
"""The widest row that a program of products holds as a whole."""
TOGETHER = 8
"""The most entries in flight; the sum does not depend on it."""


def sums(values: Tensor, ids: Tensor, offsets: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
    """Return bias + the sum of value_e table[id_e] over the entries of each list, [lists, d]."""
    return _sums(sums_plan(values, ids, None, offsets[:-1], offsets[1:], table, bias, table.dtype))


def by_unit(values: Tensor, r: Runs, layers: Sequence[Tensor]) -> list[Tensor]:
    """Return the sum of value_e g[row_e] over the entries of each unit, [M, d], for each g.

    Each unit is a program; those with many entries are cut into pieces, each a program, and summed in order.
    """
    found = []
    for g in layers:
        out = _sums(sums_plan(values, r.rows, r.order, r.starts, r.ends, g, None, g.dtype))
        if len(r.owners):
            plan = sums_plan(values, r.rows, r.order, r.piece_starts, r.piece_ends, g, None, torch.float32)
            add_pieces(out, _sums(plan), r.owners)
        found.append(out)
    return found


def products(g: Tensor, ids: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    """Return <g_i, table[id_e]> of each entry e of list i, [nnz] float32."""
    launch = products_plan(g, ids, offsets, table)
    run(products_kernel, launch, table)
    return launch.arguments["out"]


def sums_plan(
    values: Tensor,
    ids: Tensor,
    order: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    table: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Launch:
    """Plan the sums of lists of entries; for the arguments see the kernel."""
    table = _contiguous(table)
    lists, width = len(starts), table.shape[1]
    columns = min(COLUMNS, max(32, 1 << (width - 1).bit_length()))
    arguments = {
        "values": values,
        "ids": ids,
        "order": order,
        "starts": starts,
        "ends": ends,
        "table": table,
        "bias": bias,
        "out": torch.empty(lists, width, dtype=dtype, device=table.device),
        "atoms": len(table),
        "width": width,
        "table_stride": table.stride(0),
        "COLUMNS": columns,
        # Short lists, such as those of most units, would load what they do not have.
        "TOGETHER": min(TOGETHER, 1 << max(0, values.numel() // max(1, lists) - 1).bit_length()),
    }
    return Launch((lists * ceil_div(width, columns),), arguments, _options(columns))


def _sums(launch: Launch) -> Tensor:
    out = launch.arguments["out"]
    run(sums_kernel, launch, out)
    return out


def products_plan(g: Tensor, ids: Tensor, offsets: Tensor, table: Tensor) -> Launch:
    """Plan the products of rows with atoms."""
    g, table = _contiguous(g), _contiguous(table)
    width = table.shape[1]
    whole = width <= WIDEST
    columns = max(32, 1 << (width - 1).bit_length()) if whole else COLUMNS
    arguments = {
        "g": g,
        "ids": ids,
        "starts": offsets[:-1],
        "ends": offsets[1:],
        "table": table,
        "out": torch.empty(ids.numel(), dtype=torch.float32, device=table.device),
        "atoms": len(table),
        "width": width,
        "g_stride": g.stride(0),
        "table_stride": table.stride(0),
        "COLUMNS": columns,
        "TOGETHER": 4,
        "WHOLE": whole,
    }
    return Launch((len(g),), arguments, _options(columns))


def _options(columns: int) -> dict[str, int]:
    """Return warps and stages: 8 numbers a thread, or more."""
    return {"num_warps": min(8, max(1, columns // 256)), "num_stages": 1}


def _contiguous(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 or rows.shape[1] <= 1 else rows.contiguous()
