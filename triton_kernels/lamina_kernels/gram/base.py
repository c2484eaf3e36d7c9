"""The rows of one base of a kernel as Triton kernels take them, in plain torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.functions import LOG2E
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.terms import Leaf, middle
from lamina_kernels.tiles.rounding import PARTS, parts_of, round_to_tf32, scaled_to_half
from lamina_kernels.tiles.rows import ceil_div

# The most columns that are multiplied at a time, by what multiplies them, and of rows that are loaded once.
CHUNK = {"half": 64, "bf16x6": 32, "bf16x3": 32, "fp16x3": 32, "tf32": 32, "ieee": 16}


class Base(NamedTuple):
    """The rows of one base; leaves may share it.

    Attributes:
        x: [n, width]; each row contiguous inside, but for a "norm", whose columns are.
        y: [m, width], likewise.
        x_norms: [n] float32, |x|² of the rows as they are here; None for "dot" and "norm". Of "scaled" times the weight
            of the one leaf, and times log2(e) for "exp". Of "cosine" 1 / |x|, or 1 for a row of zeros.
        y_norms: [m], likewise.
        x_row: Elements from one row of x to the next.
        x_column: Elements from one column of x to the next.
        y_row: As of x.
        y_column: As of x.
        width: Columns.
        function: What is made of products and norms, of "own"; else None.
        x_parts: [n, parts * part_width] bfloat16, x taken apart, see `parts_of`; None for rows that are multiplied as
            they are, or taken apart in every tile.
        y_parts: [m, parts * part_width], likewise.
        parts_row: Elements from one row of them to the next.
        part_width: Columns of a part.
        units: [n] float32, what products with each row of x are to be multiplied with; None for 1. See `halved`.
        y_units: [m] float32, likewise with each row of y, of parts in float16; None for 1.
    """

    x: Any
    y: Any
    x_norms: Any
    y_norms: Any
    x_row: Any
    x_column: Any
    y_row: Any
    y_column: Any
    width: Any
    function: Any = None
    x_parts: Any = None
    y_parts: Any = None
    parts_row: Any = None
    part_width: Any = None
    units: Any = None
    y_units: Any = None


def base_of(p: Pairs, kind: str, columns: tuple[int, int], *, rounds: bool) -> Base:
    """Return the base of a kind from some columns of the rows; float32 is rounded to TF32 if it is multiplied so."""
    x, y = (rows[:, slice(*columns)] for rows in (p.x, p.y))
    if p.same:
        y = x
    if kind == "norm":
        # Columns are loaded one at a time, whole ones from consecutive memory.
        x_rows = x.T.contiguous().T
        y_rows = x_rows if y is x else y.T.contiguous().T
        return _named(x_rows, y_rows, None, None)
    if kind not in ("dot", "cosine", "own"):
        x, y = moved(x, y)
    if rounds and x.dtype == torch.float32:
        same = y is x
        x = round_to_tf32(x)
        y = x if same else round_to_tf32(y)
    same = y is x
    x = _contiguous(x)
    y = x if same else _contiguous(y)
    if kind == "dot":
        return _named(x, y, None, None)
    norms = _inverse_lengths if kind == "cosine" else _norms
    x_norms = norms(x)
    return _named(x, y, x_norms, x_norms if same else norms(y))


def _named(x: Tensor, y: Tensor, x_norms: Tensor | None, y_norms: Tensor | None) -> Base:
    return Base(x, y, x_norms, y_norms, x.stride(0), x.stride(1), y.stride(0), y.stride(1), x.shape[1])


def moved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows moved by the mean of y, in which distances do not change; y is x again if it was.

    |x|² + |y|² - 2 <x, y> then cancels less. Rows in half precision are moved in the columns where this rounds none of
    them: far from zero, where it matters.
    """
    shift = middle(y)
    if x.dtype == torch.float32:
        own = x - shift.float()
        return own, own if y is x else y - shift.float()
    shift = shift.to(x.dtype)
    exact = _is_exact(x, shift) if y is x else _is_exact(x, shift) & _is_exact(y, shift)
    shift = torch.where(exact, shift, 0)
    own = x - shift
    return own, own if y is x else y - shift


def _is_exact(rows: Tensor, shift: Tensor) -> Tensor:
    """Return for each column whether the rows lose no digit when they are moved; broken rows count for none."""
    far = rows.float() - shift.float()
    return ((rows - shift).float() == far).logical_or_(far.isnan()).all(0)


def _contiguous(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 or rows.shape[1] <= 1 else rows.contiguous()


def _norms(rows: Tensor) -> Tensor:
    return rows.float().square().sum(1)


def _inverse_lengths(rows: Tensor) -> Tensor:
    squares = _norms(rows)
    return torch.where(squares == 0, 1, squares).rsqrt()


def scaled(base: Base, p: Pairs, leaf: Leaf, kind: str) -> Base:
    """Return a base with the norms of its one leaf: products with the weight would cost half an instruction a pair."""
    if kind != "scaled":
        return base
    weight = p.parameters[leaf.place, 0].float()
    if leaf.function == "exp":
        weight = weight * LOG2E
    x_norms = base.x_norms * weight
    return base._replace(x_norms=x_norms, y_norms=x_norms if base.y_norms is base.x_norms else base.y_norms * weight)


def taken_apart(base: Base, products: str, chunk: int) -> Base:
    """Return a base with its float32 rows in the parts that `products` multiplies, in multiples of a chunk."""
    parts, width = PARTS[products], part_width(base.width, chunk)
    if products == "fp16x3":
        x, units = scaled_to_half(base.x, width, together=False, parts=parts)
        y, y_units = (x, units) if base.y is base.x else scaled_to_half(base.y, width, together=False, parts=parts)
        base = base._replace(units=units, y_units=y_units)
    else:
        x = parts_of(base.x, parts, width)
        y = x if base.y is base.x else parts_of(base.y, parts, width)
    return base._replace(x_parts=x, y_parts=y, parts_row=parts * width, part_width=width)


def halved(base: Base) -> Base:
    """Return a base whose rows are float16 times powers of 2, see `Operands.halved`."""
    width = part_width(base.width, CHUNK["half"])
    x, x_units = scaled_to_half(base.x, width, together=False)
    y, y_unit = scaled_to_half(base.y, width, together=True)
    return base._replace(
        x=x, y=y, x_row=width, y_row=width, x_column=1, y_column=1, width=width, units=x_units * y_unit
    )


def part_width(width: int, chunk: int) -> int:
    """Return the columns of a part of rows: a multiple of a chunk, or a power of 2 that a matrix instruction takes."""
    return ceil_div(width, chunk) * chunk if width > chunk else max(16, 1 << (width - 1).bit_length())
