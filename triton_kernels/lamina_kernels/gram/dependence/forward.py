"""The Triton kernel of sums over pairs of rows for any two of many kernels: a tile of each is made once.

A program keeps the tiles of all kernels in a room of its own in memory: it stores them, waits for its threads, and
loads them as vectors, whose product with each other is what any two kernels have in common. Registers hold one tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.dependence.tile import add, block, centered, spot
from lamina_kernels.tiles.dot import dot, dot_rows, rounded_for, weights_as
from lamina_kernels.tiles.load import INDEX


@triton.jit(do_not_specialize=["n", "groups", "layers", "blocks", "across", "span", "squares"])
def layers_kernel(
    kinds,  # a tuple of Kind
    centers,  # [layers, n] float32: taken away from the values of each row and of each column
    ids,  # [n] int32 ascending, the group of each row; None without groups
    of_rows, of_groups,  # [n], [groups] float32: sizes of groups; None unless they differ
    starts,  # [blocks + 1] int32, the rows where blocks of whole groups start; None for every ROWS rows
    corners,  # [programs, 2] int32: which blocks of rows a program has, and which of columns, not before them
    room,  # [programs, 1 or with groups 4, layers, ROWS * ROWS]
    pairs, triples, cells,  # [programs, layers, layers] float64, zeros; the last two None without groups
    sums, weighted,  # [across + 1, layers, n] float64, zeros; the second None unless groups differ in size
    n, groups, layers, blocks, across, span,
    squares,  # the sum of the squared sizes of groups, if they differ
    CODES: tl.constexpr, BASES: tl.constexpr, PRECISIONS: tl.constexpr, PRECISION: tl.constexpr,
    DIAGONAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LAYERS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Sum over the pairs of `span` blocks of rows and as many blocks of columns, not before them.

    Pairs beyond the diagonal stand for their mirror images as well. DIAGONAL counts all pairs, else those of a row with
    itself and of a group are left out. Nobody else writes where a program writes. ROWS is COLUMNS.
    """
    GROUPED: tl.constexpr = ids is not None  # pyright: ignore[reportAssignmentType]
    UNEQUAL: tl.constexpr = of_rows is not None  # pyright: ignore[reportAssignmentType]
    SIZE: tl.constexpr = ROWS * COLUMNS
    program = tl.program_id(0).to(INDEX)
    upper, left = tl.load(corners + 2 * program), tl.load(corners + 2 * program + 1)
    own = room + program * (4 if GROUPED else 1) * layers * SIZE
    total = program * layers * layers
    flat = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    for a in range(upper * span, tl.minimum((upper + 1) * span, blocks)):
        first_row, last_row = block(starts, a, n, ROWS)  # pyright: ignore[reportGeneralTypeIssues]
        for b in range(tl.maximum(a, left * span), tl.minimum((left + 1) * span, blocks)):
            first_column, last_column = block(starts, b, n, COLUMNS)  # pyright: ignore[reportGeneralTypeIssues]
            where = spot(starts, ids, a, b, n, room, DIAGONAL, ROWS, COLUMNS)
            rows, rows_valid, columns, columns_valid, _ = where.at
            rows_in, columns_in = where.rows_in, where.columns_in
            first_group, other_group = where.first_group, where.other_group
            mirrored = b > a

            for KIND in tl.static_range(tree.parts(CODES)):  # pyright: ignore[reportGeneralTypeIssues]
                kind = kinds[KIND]
                for member in range(kind.members):
                    layer = tl.cast(kind.first + member, INDEX)
                    k = centered(
                        kind, tl.cast(member, INDEX), centers, where, n,
                        tree.part(CODES, KIND), tree.part(BASES, KIND), tree.part(PRECISIONS, KIND),
                    )  # fmt: skip
                    tl.store(own + layer * SIZE + flat, rounded_for(k, PRECISION))
                    # Sums over columns behind, and over rows before: another program, another place.
                    here = (left.to(INDEX) * layers + layer) * n
                    there = (tl.where(upper == left, across, upper).to(INDEX) * layers + layer) * n
                    add(sums + here + rows, tl.sum(k, 1), rows_valid)
                    add(sums + there + columns, tl.sum(k, 0), columns_valid & mirrored)
                    if UNEQUAL:
                        u = tl.load(of_rows + rows, mask=rows_valid, other=0.0)
                        v = tl.load(of_rows + columns, mask=columns_valid, other=0.0)
                        add(weighted + here + rows, tl.sum(k * v[None, :], 1), rows_valid)
                        add(weighted + there + columns, tl.sum(k * u[:, None], 0), columns_valid & mirrored)
                    if GROUPED:
                        none = tl.zeros([ROWS, COLUMNS], tl.float32)
                        tile = rounded_for(weights_as(k, columns_in), PRECISION)
                        by_row = rounded_for(dot(tile, columns_in, none, PRECISION), PRECISION)
                        by_column = rounded_for(dot(tl.trans(tile), rows_in, none, PRECISION), PRECISION)
                        both = dot(tl.trans(rows_in), weights_as(by_row, rows_in), none, PRECISION)
                        tl.store(own + (layers + layer) * SIZE + flat, by_row)
                        tl.store(own + (2 * layers + layer) * SIZE + flat, by_column)
                        tl.store(own + (3 * layers + layer) * SIZE + flat, rounded_for(both, PRECISION))

            # What a thread stored, others load.
            tl.debug_barrier()
            twice = tl.where(mirrored, 2.0, 1.0)
            once = tl.where(mirrored, 1.0, 0.0)
            if UNEQUAL:
                x, y = of_rows + first_row, of_rows + first_column
                x_count, y_count = last_row - first_row, last_column - first_column
                _multiply(
                    own, pairs + total, twice, x, x_count, y, y_count, n, squares, layers,
                    "pairs", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                )  # fmt: skip
                _multiply(
                    own + layers * SIZE, triples + total, 1.0, x, x_count, of_groups + other_group,
                    groups - other_group, n, squares, layers, "triples", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                )  # fmt: skip
                _multiply(
                    own + 2 * layers * SIZE, triples + total, once, y, y_count, of_groups + first_group,
                    groups - first_group, n, squares, layers, "triples", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                )  # fmt: skip
            else:
                _multiply(
                    own, pairs + total, twice, None, 0, None, 0, n, squares, layers,
                    "none", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                )  # fmt: skip
            if GROUPED:
                if not UNEQUAL:
                    _multiply(
                        own + layers * SIZE, triples + total, 1.0, None, 0, None, 0, n, squares, layers,
                        "none", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                    )  # fmt: skip
                    _multiply(
                        own + 2 * layers * SIZE, triples + total, once, None, 0, None, 0, n, squares, layers,
                        "none", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                    )  # fmt: skip
                _multiply(
                    own + 3 * layers * SIZE, cells + total, twice, None, 0, None, 0, n, squares, layers,
                    "none", SIZE, COLUMNS, LAYERS, CHUNK, PRECISION,
                )  # fmt: skip
            # And the next tiles wait until these are read.
            tl.debug_barrier()


@triton.jit
def _multiply(
    room, out, factor, x_sizes, x_count, y_sizes, y_count, n, squares, layers,
    WEIGHTS: tl.constexpr, SIZE: tl.constexpr, COLUMNS: tl.constexpr, LAYERS: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the inner products of the tiles of any two layers, times a factor, to their totals.

    WEIGHTS says how often each place of a tile counts, by the sizes of its two groups: "pairs" of rows, "triples" of
    a row, or "none". Only layers that are not before the others, LAYERS of them at a time.
    """
    for top in range(0, layers, LAYERS):
        above = top + tl.arange(0, LAYERS)
        for side in range(top, layers, LAYERS):
            beside = side + tl.arange(0, LAYERS)
            product = tl.zeros([LAYERS, LAYERS], tl.float32)
            for first in range(0, SIZE, CHUNK):
                place = first + tl.arange(0, CHUNK)
                a = tl.load(room + above[:, None] * SIZE + place[None, :], mask=(above < layers)[:, None], other=0.0)
                b = tl.load(room + beside[:, None] * SIZE + place[None, :], mask=(beside < layers)[:, None], other=0.0)
                if WEIGHTS != "none":
                    u = tl.load(x_sizes + place // COLUMNS, mask=place // COLUMNS < x_count, other=0.0)
                    v = tl.load(y_sizes + place % COLUMNS, mask=place % COLUMNS < y_count, other=0.0)
                    if WEIGHTS == "pairs":
                        often = (n - u - v) * (n - u - v) - squares + u * u + v * v
                    else:
                        often = n - u - 2.0 * v
                    a = rounded_for((a * often[None, :]).to(a.dtype), PRECISION)
                product = dot_rows(a, b, product, PRECISION)
            into = out + above[:, None] * layers + beside[None, :]
            inside = (above < layers)[:, None] & (beside < layers)[None, :]
            add(into, product * factor, inside)
