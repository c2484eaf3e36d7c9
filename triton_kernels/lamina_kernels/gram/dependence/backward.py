"""The Triton kernel of the gradients of sums over pairs of rows for any two of many kernels.

What a value of one kernel adds to the sums is linear in the values of the others at the same pair: a program keeps the
tiles of all kernels in a room of its own in memory, waits for its threads, and mixes them for each kernel. The mixture
goes down the kernel's tree, and pulls its rows, as the gradients of one kernel's sums do (`sums.backward`). What is
added to gradients in memory is added once for SPAN tiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.dependence.tile import add, bases_of, block, centered, numbers_of_member, spot
from lamina_kernels.gram.sums.backward import by_products, of_no_parameters, pulls, rows_to_pull, to_pull
from lamina_kernels.gram.sums.backward_norm import pull_differences
from lamina_kernels.gram.tile import products_of, rows_of
from lamina_kernels.tiles.dot import dot, rounded_for, weights_as
from lamina_kernels.tiles.load import INDEX, load_rows


class Given(NamedTuple):
    """The gradients of the sums; see `estimator.Sums` for these.

    Attributes:
        pairs: [layers, layers] float32, symmetric: those of K_ij L_ij, for K and for L, and for both rows.
        triples: Likewise, for one row; None without groups.
        cells: As pairs; None without groups.
        rows: [layers, n] float32.
        weighted: Likewise; None unless groups differ in size.
    """

    pairs: Any
    triples: Any
    cells: Any
    rows: Any
    weighted: Any


class Groups(NamedTuple):
    """Where groups stand, and their sizes; see `layers_kernel`."""

    ids: Any
    of_rows: Any
    of_groups: Any
    starts: Any
    groups: Any
    squares: Any


class Made(NamedTuple):
    """The gradients of a kind, zeros before: of its first members, the others have none.

    Attributes:
        rows: Of each base [splits, n, columns of these members] float32; of a "norm" [splits, columns, n]. None where
            none are wanted.
        parameters: [programs, members, leaves, 2] float64.
        widths: The columns of each base.
        members: How many there are.
    """

    rows: Any
    parameters: Any
    widths: Any
    members: Any


@triton.jit(do_not_specialize=["n", "groups", "layers", "blocks", "splits", "items", "programs", "squares"])
def layers_gradients_kernel(
    kinds,  # a tuple of Kind
    made,  # a tuple of Made
    centers,  # [layers, n] float32, see `layers_kernel`
    pairs, triples, cells, by_rows, weighted,  # see `Given`
    ids, of_rows, of_groups, starts,  # see `layers_kernel`
    room,  # [programs, SPAN, layers, ROWS * COLUMNS]
    kept,  # [programs, SPAN, ROWS * COLUMNS], what coefficients are multiplied as
    n, groups, layers, blocks, splits, items, programs, squares,
    CODES: tl.constexpr, BASES: tl.constexpr, PRECISIONS: tl.constexpr, PRECISION: tl.constexpr,
    DIAGONAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, SPAN: tl.constexpr,
    PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Add up the gradients of a block of rows from a part of the columns for each item, WIDTH columns at a time.

    A program takes every `programs`-th item. All pairs are visited, so that nobody else writes where a program writes:
    a pair counts for its row as itself and as its mirror image.
    """
    SIZE: tl.constexpr = ROWS * COLUMNS
    program = tl.program_id(0).to(INDEX)
    own = room + program * layers * (SPAN * SIZE)
    coefficients = kept + program * (SPAN * SIZE)
    given = Given(pairs, triples, cells, by_rows, weighted)
    standing = Groups(ids, of_rows, of_groups, starts, groups, squares)
    flat = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    share = tl.cdiv(blocks, splits)
    for item in range(tl.program_id(0), items, programs):
        a, split = item % blocks, item // blocks
        stop = tl.minimum((split + 1) * share, blocks)
        for first in range(split * share, stop, SPAN):
            last = tl.minimum(first + SPAN, stop)
            for b in range(first, last):
                where = spot(starts, ids, a, b, n, room, DIAGONAL, ROWS, COLUMNS)
                for KIND in tl.static_range(tree.parts(CODES)):  # pyright: ignore[reportGeneralTypeIssues]
                    kind = kinds[KIND]
                    for member in range(kind.members):
                        k = centered(
                            kind, tl.cast(member, INDEX), centers, where, n,
                            tree.part(CODES, KIND), tree.part(BASES, KIND), tree.part(PRECISIONS, KIND),
                        )  # fmt: skip
                        tl.store(own + ((b - first) * layers + kind.first + member) * SIZE + flat, k)
            # What a thread stored, others load.
            tl.debug_barrier()
            for KIND in tl.static_range(tree.parts(CODES)):  # pyright: ignore[reportGeneralTypeIssues]
                for member in range(made[KIND].members):
                    _pull(
                        kinds[KIND], made[KIND], tl.cast(member, INDEX), given, standing, own, coefficients,
                        a, first, last, split, n, layers,
                        tree.part(CODES, KIND), tree.part(BASES, KIND), tree.part(PRECISIONS, KIND), PRECISION,
                        DIAGONAL, ROWS, COLUMNS, WIDTH, PARAMETERS,
                    )  # fmt: skip


@triton.jit
def _pull(
    kind, made, member, given, standing, room, kept, a, first, last, split, n, layers,
    CODE: tl.constexpr, BASES: tl.constexpr, PRODUCTS: tl.constexpr, PRECISION: tl.constexpr,
    DIAGONAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Add what some tiles make of the gradients of one member of a kind, by one base behind the other."""
    SIZE: tl.constexpr = ROWS * COLUMNS
    flat = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    layer = tl.cast(kind.first + member, INDEX)  # pyright: ignore[reportArgumentType]
    bases = bases_of(kind, member, n, BASES)
    numbers = numbers_of_member(kind, member, CODE)
    first_row, last_row = block(standing.starts, a, n, ROWS)  # pyright: ignore[reportGeneralTypeIssues]
    rows = first_row + tl.arange(0, ROWS)
    rows_valid = rows < last_row
    of_parameters = of_no_parameters(ROWS, CODE)
    for OF in tl.static_range(tree.bases(BASES)):  # pyright: ignore[reportGeneralTypeIssues]
        base = bases[OF]
        KIND: tl.constexpr = tree.base_kind(BASES, OF)
        MOVES: tl.constexpr = tree.moves(BASES, OF)  # pyright: ignore[reportAssignmentType]
        start = tl.load(kind.spans + (member * tree.bases(BASES) + OF) * 2)
        PULLS: tl.constexpr = made.rows[OF] is not None
        whole = made.widths[OF]
        own = tl.zeros([ROWS], tl.float32)
        for b in range(first, last):
            where = spot(standing.starts, standing.ids, a, b, n, room, DIAGONAL, ROWS, COLUMNS)
            at = where.at
            left = rows_of(bases, at.rows, at.rows_valid, BASES)
            products = products_of(bases, left, at, where.itself, BASES, PRODUCTS)
            of_k = _mixed(
                room + (b - first) * layers * SIZE + flat, layer, given, standing, where, n, layers, SIZE, PRECISION
            )  # fmt: skip
            c, of_parameters = by_products(  # pyright: ignore[reportGeneralTypeIssues]
                of_k, of_parameters, products, bases, numbers, at, where.itself, CODE, BASES, OF, PARAMETERS
            )
            if DIAGONAL and MOVES:
                # A row and itself stay together.
                c = tl.where(where.itself, 0.0, c)
            if PULLS and KIND == "norm":
                into = made.rows[OF] + (tl.cast(split, INDEX) * whole + start) * n + rows
                pull_differences(c, base, products[OF], at, into, n, tree.norm(BASES, OF))
            elif PULLS:
                c = to_pull(c, base.y, PRODUCTS)
                tl.store(kept + (b - first) * SIZE + flat, c)
                if MOVES:
                    own += tl.sum(c.to(tl.float32), 1)
        # What a thread stored, others load.
        tl.debug_barrier()
        if PULLS and KIND != "norm":
            for place in range(0, base.width, WIDTH):
                pulled = tl.zeros([ROWS, WIDTH], tl.float32)
                for b in range(first, last):
                    first_column, last_column = block(standing.starts, b, n, COLUMNS)  # pyright: ignore[reportGeneralTypeIssues]
                    columns = first_column + tl.arange(0, COLUMNS)
                    y_tile = rows_to_pull(base, columns, columns < last_column, place, WIDTH)
                    c = weights_as(tl.load(kept + (b - first) * SIZE + flat), y_tile)
                    pulled = dot(c, y_tile, pulled, pulls(PRODUCTS))
                if MOVES:
                    x_tile = load_rows(base.x, rows, base.x_row, rows_valid, place, base.width, WIDTH)
                    pulled = x_tile.to(tl.float32) * own[:, None] - pulled
                columns = place + tl.arange(0, WIDTH)
                into = made.rows[OF] + ((tl.cast(split, INDEX) * n + rows) * whole + start)[:, None] + columns[None, :]
                add(into, pulled, rows_valid[:, None] & (columns < base.width)[None, :])
            # And the next coefficients wait until these are read.
            tl.debug_barrier()

    if PARAMETERS:
        program = tl.program_id(0).to(INDEX)
        into = made.parameters + (program * made.members + member) * (2 * tree.leaves(CODE))
        for number in tl.static_range(2 * tree.leaves(CODE)):  # pyright: ignore[reportGeneralTypeIssues]
            tl.store(into + number, tl.load(into + number) + tl.sum(of_parameters[number], 0))


@triton.jit
def _mixed(room, layer, given, standing, where, n, layers, SIZE: tl.constexpr, PRECISION: tl.constexpr):
    """Return the gradients of a layer's values in a tile, those of the mirror image added, from all layers' values."""
    GROUPED: tl.constexpr = standing.ids is not None  # pyright: ignore[reportAssignmentType]
    UNEQUAL: tl.constexpr = standing.of_rows is not None  # pyright: ignore[reportAssignmentType]
    at = where.at
    ROWS: tl.constexpr = at.rows.shape[0]
    COLUMNS: tl.constexpr = at.columns.shape[0]
    none = tl.zeros([ROWS, COLUMNS], tl.float32)
    down, of_triples, of_cells = none, none, none
    for other in range(layers):
        place = layer * layers + other
        weight = tl.load(given.pairs + place)
        triple, cell = weight, weight
        if GROUPED:
            triple, cell = tl.load(given.triples + place), tl.load(given.cells + place)
        # Others are not compared with this one.
        if (weight != 0.0) | (triple != 0.0) | (cell != 0.0):
            k = tl.load(room + other * SIZE).to(tl.float32)
            down += weight * k
            if GROUPED:
                of_triples += triple * k
                of_cells += cell * k
    of_row = tl.load(given.rows + layer * n + at.rows, mask=at.rows_valid, other=0.0)
    of_column = tl.load(given.rows + layer * n + at.columns, mask=at.columns_valid, other=0.0)
    if UNEQUAL:
        u = tl.load(standing.of_rows + at.rows, mask=at.rows_valid, other=0.0)[:, None]
        v = tl.load(standing.of_rows + at.columns, mask=at.columns_valid, other=0.0)[None, :]
        down *= (n - u - v) * (n - u - v) - standing.squares + u * u + v * v
        row_weighted = tl.load(given.weighted + layer * n + at.rows, mask=at.rows_valid, other=0.0)
        column_weighted = tl.load(given.weighted + layer * n + at.columns, mask=at.columns_valid, other=0.0)
        down += row_weighted[:, None] * v + column_weighted[None, :] * u
    down += of_row[:, None] + of_column[None, :]
    if GROUPED:
        rows_in, columns_in = where.rows_in, where.columns_in
        tile = rounded_for(weights_as(of_triples, columns_in), PRECISION)
        # Of each row and the groups of the columns, and the other way round.
        by_row = dot(tile, columns_in, none, PRECISION)
        by_column = dot(tl.trans(tile), rows_in, none, PRECISION)
        if UNEQUAL:
            by_row *= n - u - 2.0 * _sizes(standing, where.other_group, COLUMNS)[None, :]
            by_column *= n - tl.trans(v) - 2.0 * _sizes(standing, where.first_group, ROWS)[None, :]
        by_row = rounded_for(weights_as(by_row, columns_in), PRECISION)
        by_column = rounded_for(weights_as(by_column, rows_in), PRECISION)
        down = dot(by_row, tl.trans(columns_in), down, PRECISION)
        down += tl.trans(dot(by_column, tl.trans(rows_in), none, PRECISION))
        tile = rounded_for(weights_as(of_cells, columns_in), PRECISION)
        both = rounded_for(weights_as(dot(tile, columns_in, none, PRECISION), columns_in), PRECISION)
        both = dot(tl.trans(rows_in), both, none, PRECISION)
        both = rounded_for(weights_as(both, rows_in), PRECISION)
        both = rounded_for(weights_as(dot(rows_in, both, none, PRECISION), columns_in), PRECISION)
        down = dot(both, tl.trans(columns_in), down, PRECISION)
    return tl.where(where.counts, down, 0.0)


@triton.jit
def _sizes(standing, first, GROUPS: tl.constexpr):
    """Return the sizes of groups from the first on."""
    numbers = first + tl.arange(0, GROUPS)
    return tl.load(standing.of_groups + numbers, mask=numbers < standing.groups, other=0.0)
