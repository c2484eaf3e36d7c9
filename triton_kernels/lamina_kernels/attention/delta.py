"""The Triton kernel of the products of outputs and their gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.load import INDEX, load_rows


@triton.jit(do_not_specialize=["rows"])
def delta_kernel(
    out, dout, delta,  # [B, H, Nq, Dv], [B, H, Nq, Dv], [B, H, Nq] float32
    heads, rows, width,
    out_batch, out_head, out_row, dout_batch, dout_head, dout_row,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write <out, dout> of ROWS queries of one head."""
    blocks = tl.cdiv(rows, ROWS)
    place = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    pair = (tl.program_id(0) // blocks).to(INDEX)
    batch, head = pair // heads, pair % heads
    valid = place < rows
    a = load_rows(out + batch * out_batch + head * out_head, place, out_row, valid, 0, width, WIDTH)
    b = load_rows(dout + batch * dout_batch + head * dout_head, place, dout_row, valid, 0, width, WIDTH)
    sums = tl.sum(a.to(tl.float32) * b.to(tl.float32), axis=1)
    tl.store(delta + pair * rows + place, sums, mask=valid)
