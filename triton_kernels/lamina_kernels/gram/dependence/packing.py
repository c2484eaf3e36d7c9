"""The rows of many representations side by side, as the Triton kernel of their sums takes them, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lamina_kernels.gram.base import CHUNK, Base
from lamina_kernels.gram.dependence.layers import Layers
from lamina_kernels.gram.operands import Operands, in_tiles, prepare, products_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.tiles.rows import ceil_div

ALIGNED = 16
"""Columns of a representation are padded to a multiple of this: rows are then loaded 16 bytes at a time. To whole
chunks, where these are multiplied without masks."""


class Packed(NamedTuple):
    """All representations, those that run the same code behind each other.

    Attributes:
        kinds: Of each code, the fields of `forward.Kind`.
        codes: Their trees, with ";" between them, see `tree`.
        bases: Their bases, likewise.
        products: How each multiplies rows, likewise.
        order: The number of each representation among `Layers.pairs`.
        columns: Where the columns of each of its bases start and stop in its rows, in this order.
    """

    kinds: tuple[tuple[Any, ...], ...]
    codes: str
    bases: str
    products: str
    order: list[int]
    columns: list[tuple[tuple[int, int], ...]]


def pack(layers: Layers, target: str, first: Sequence[int] = (), *, chunks: bool = False) -> Packed:
    """Return the rows of all representations, of each code those with the numbers `first` before the others.

    Args:
        layers: The representations.
        target: What the kernel is compiled for.
        first: See above.
        chunks: Whether rows are padded to whole chunks, see `dot_of_chunks`.
    """
    members: dict[tuple[Any, ...], list[tuple[int, Operands]]] = {}
    for place in sorted(range(len(layers)), key=lambda place: place not in first):
        p = layers.pairs[place]
        products = products_of(p, target)
        made = prepare(p, products)
        code = made.base_code(0, together=int(chunks), filled=chunks)
        key = made.code, code, products, *(base.function for base in made.bases)
        members.setdefault(key, []).append((place, made))
    kinds, order, columns = [], [], []
    for same in members.values():
        kinds.append(_kind(layers.pairs, same, len(order), chunks=chunks))
        order += [place for place, _ in same]
        columns += [made.columns for _, made in same]
    codes, bases, products = (";".join(key[part] for key in members) for part in range(3))
    return Packed(tuple(kinds), codes, bases, products, order, columns)


def _kind(
    pairs: Sequence[Pairs], members: Sequence[tuple[int, Operands]], first: int, *, chunks: bool
) -> tuple[Any, ...]:
    made = [operands for _, operands in members]
    parameters = torch.stack([pairs[place].parameters for place, _ in members]).float()
    # Of distances by differences, single columns are loaded: they stand without gaps, as rows do elsewhere.
    beside = [
        _beside(
            [each.bases[number] for each in made],
            max(CHUNK[made[0].products], ALIGNED) if chunks and kind != "norm" else ALIGNED,
            by_columns=kind == "norm",
        )
        for number, (kind, _) in enumerate(made[0].kinds)
    ]
    spans = torch.tensor([columns for _, columns in beside], device=parameters.device).transpose(0, 1).contiguous()
    return tuple(base for base, _ in beside), spans, parameters, first, len(made)


def _beside(bases: Sequence[Base], step: int, *, by_columns: bool) -> tuple[Base, list[tuple[int, int]]]:
    """Return the same base of several representations as one, and the columns of each, a multiple of a step."""
    widths = [ceil_div(base.width, step) * step for base in bases]
    starts = [sum(widths[:place]) for place in range(len(widths))]
    shape = (sum(widths), len(bases[0].x)) if by_columns else (len(bases[0].x), sum(widths))
    rows = bases[0].x.new_zeros(shape)
    rows = rows.T if by_columns else rows
    for base, start in zip(bases, starts, strict=True):
        rows[:, start : start + base.width] = base.x
    norms = None if bases[0].x_norms is None else torch.stack([base.x_norms for base in bases])
    steps = rows.stride(0), rows.stride(1)
    one = Base(rows, rows, norms, norms, *steps, *steps, rows.shape[1], bases[0].function)
    return one, list(zip(starts, widths, strict=True))


def room_of(layers: Layers, target: str) -> tuple[torch.dtype, str]:
    """Return what tiles are kept in, and how they are multiplied.

    Values of bfloat16 rows are kept in bfloat16. Those of float16 rows are not rounded: it might not hold them. The
    interpreter cuts digits off where it makes bfloat16, and makes 9e-41 of what is true.
    """
    if {p.x.dtype for p in layers.pairs} == {torch.bfloat16}:
        return torch.float32 if target == "interpreter" else torch.bfloat16, "half"
    return torch.float32, in_tiles(layers.pairs[0].precision, target)
