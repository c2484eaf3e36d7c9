"""What the kernels of a divergence take of each of the two models."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from lamina_kernels.attention.rows import load_tile, row_of, slope_of, table_of, vector_or
from lamina_kernels.attention.score import Scoring


class Model(NamedTuple):
    """One of two models, named as in `operands.arguments`; its rows come apart, as no tuple brings descriptors."""

    query_scale: tl.tensor | None
    query_bias: tl.tensor | None
    key_scale: tl.tensor | None
    key_bias: tl.tensor | None
    slopes: tl.tensor | None
    table: tl.tensor | None
    q_batch: tl.tensor
    q_head: tl.tensor
    q_row: tl.tensor
    k_batch: tl.tensor
    k_head: tl.tensor
    k_row: tl.tensor
    key_scale_batch: tl.tensor
    key_scale_head: tl.tensor
    key_bias_batch: tl.tensor
    key_bias_head: tl.tensor
    group: tl.tensor
    width: tl.tensor
    scale: tl.tensor
    cap: tl.tensor | None
    radius: tl.tensor


@triton.jit
def queries_of(model, q, at, head, DESCRIPTORS: tl.constexpr):
    """Return the first query of a sequence and head, or the descriptor of all."""
    return row_of(q, at.part, head, at.first_query, model.q_batch, model.q_head, model.q_row, DESCRIPTORS)


@triton.jit
def keys_of(model, k, at, head, DESCRIPTORS: tl.constexpr):
    """Return the first key that a query head looks at, or the descriptor of all."""
    return row_of(k, at.part, head // model.group, at.first_key, model.k_batch, model.k_head, model.k_row, DESCRIPTORS)


@triton.jit
def factors_of_keys(model, at, head):
    """Return the factor of the first key that a query head looks at, or None."""
    return row_of(model.key_scale, at.part, head, at.first_key, model.key_scale_batch, model.key_scale_head, 1, False)


@triton.jit
def terms_of_keys(model, at, head):
    """Return the term of the first key that a query head looks at, or None."""
    return row_of(model.key_bias, at.part, head, at.first_key, model.key_bias_batch, model.key_bias_head, 1, False)


@triton.jit
def scoring_of(
    model, q, k, first, valid, positions, place, at, head, DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Return the `Scoring` by ROWS queries from `first` on; they stand at `positions`, and in [B, H, Nq] at `place`."""
    q_from, k_from = queries_of(model, q, at, head, DESCRIPTORS), keys_of(model, k, at, head, DESCRIPTORS)
    rows = load_tile(q_from, first, valid, at.part, head, model.q_row, model.width, DESCRIPTORS, ROWS, WIDTH)
    # A tuple that a function returns holds None as it is written, not as another function returns it.
    u = None if model.query_bias is None else vector_or(None, model.query_bias, place, valid, 1)
    key_scale = None if model.key_scale is None else factors_of_keys(model, at, head)
    key_bias = None if model.key_bias is None else terms_of_keys(model, at, head)
    slope = None if model.slopes is None else slope_of(model.slopes, head)
    table = None if model.table is None else table_of(model.table, head, model.radius)
    a = vector_or(model.scale, model.query_scale, place, valid, 1)
    return Scoring(
        rows, k_from, at.keys, positions, a, u, key_scale, key_bias, slope, table, model.radius, model.cap,
        at.part, head // model.group, model.k_row, model.width,
    )  # fmt: skip
