"""Decoding as operators that torch knows: compiled without a break, and differentiable as often as asked.

Each of the three is linear in two of its tensors, and its gradients are the other two: sums of atoms, products of
rows with atoms, and sums of rows by unit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina_kernels.operators import operator, plainly
from lamina_kernels.sparse.decoding.entries import Entries
from lamina_kernels.sparse.decoding.passes import passes
from lamina_kernels.sparse.decoding.units import runs
from lamina_kernels.tiles.rows import accumulation_dtype


def decode(e: Entries, dictionary: Tensor, bias: Tensor | None, form: str) -> Tensor:
    """Return bias_l + the sum of value_e dictionary[l, id_e] over the entries of each list, [n, L, d]."""
    return _decode(*e, dictionary, bias, form)


def products(g: Tensor, ids: Tensor, offsets: Tensor, dictionary: Tensor, form: str) -> Tensor:
    """Return sum_l <g_il, dictionary[l, id_e]> of each entry e of list i, [nnz], for g [n, L, d]."""
    return _products(g, ids, offsets, dictionary, form)


def by_unit(e: Entries, g: Tensor, units: int, form: str) -> Tensor:
    """Return the sum of value_e g_il over the entries e of each unit, i being the list of e, [L, units, d]."""
    return _by_unit(*e, g, units, form)


@operator(
    "sparse_decode", "(Tensor values, Tensor ids, Tensor offsets, Tensor dictionary, Tensor? bias, str form) -> Tensor"
)
def _decode(values: Tensor, ids: Tensor, offsets: Tensor, dictionary: Tensor, bias: Tensor | None, form: str) -> Tensor:
    with plainly(values):
        run = passes(form)
        biases = [None] * len(dictionary) if bias is None else bias.detach().contiguous()
        layers = [
            run.sums(values.detach(), ids, offsets, atoms, own)
            for atoms, own in zip(dictionary.detach(), biases, strict=True)
        ]
        return layers[0][:, None] if len(layers) == 1 else torch.stack(layers, 1)


@torch.library.register_fake(_decode)
def _(values: Tensor, ids: Tensor, offsets: Tensor, dictionary: Tensor, bias: Tensor | None, form: str) -> Tensor:
    return dictionary.new_empty(offsets.shape[0] - 1, dictionary.shape[0], dictionary.shape[2])


@operator("sparse_products", "(Tensor g, Tensor ids, Tensor offsets, Tensor dictionary, str form) -> Tensor")
def _products(g: Tensor, ids: Tensor, offsets: Tensor, dictionary: Tensor, form: str) -> Tensor:
    with plainly(g):
        run = passes(form)
        first, *others = (
            run.products(rows.contiguous(), ids, offsets, atoms)
            for rows, atoms in zip(g.detach().unbind(1), dictionary.detach(), strict=True)
        )
        for other in others:
            first += other
        return first.to(dictionary.dtype)


@torch.library.register_fake(_products)
def _(g: Tensor, ids: Tensor, offsets: Tensor, dictionary: Tensor, form: str) -> Tensor:
    return dictionary.new_empty(ids.shape[0])


@operator("sparse_by_unit", "(Tensor values, Tensor ids, Tensor offsets, Tensor g, SymInt units, str form) -> Tensor")
def _by_unit(values: Tensor, ids: Tensor, offsets: Tensor, g: Tensor, units: int, form: str) -> Tensor:
    with plainly(g):
        rows = [layer.contiguous() for layer in g.detach().unbind(1)]
        layers = passes(form).by_unit(values.detach(), runs(ids, offsets, units), rows)
        return layers[0][None] if len(layers) == 1 else torch.stack(layers)


@torch.library.register_fake(_by_unit)
def _(values: Tensor, ids: Tensor, offsets: Tensor, g: Tensor, units: int, form: str) -> Tensor:
    return g.new_empty(g.shape[1], units, g.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.form = inputs
    ctx.units = tensors.pop() if isinstance(tensors[-1], int) else 0
    ctx.save_for_backward(*tensors)


def _decode_gradients(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    values, ids, offsets, dictionary, bias = ctx.saved_tensors
    of_values, _, _, of_dictionary, of_bias, _ = ctx.needs_input_grad
    e = Entries(values, ids, offsets)
    return (
        products(g, ids, offsets, dictionary, ctx.form) if of_values else None,
        None,
        None,
        by_unit(e, g, dictionary.shape[1], ctx.form) if of_dictionary else None,
        g.sum(0, dtype=accumulation_dtype(g.dtype)).to(bias.dtype) if of_bias else None,
        None,
    )


def _products_gradients(ctx: Any, h: Tensor) -> tuple[Any, ...]:
    g, ids, offsets, dictionary = ctx.saved_tensors
    of_g, _, _, of_dictionary, _ = ctx.needs_input_grad
    e = Entries(h.contiguous(), ids, offsets)
    return (
        decode(e, dictionary, None, ctx.form) if of_g else None,
        None,
        None,
        by_unit(e, g, dictionary.shape[1], ctx.form) if of_dictionary else None,
        None,
    )


def _by_unit_gradients(ctx: Any, h: Tensor) -> tuple[Any, ...]:
    values, ids, offsets, g = ctx.saved_tensors
    of_values, _, _, of_g, _, _ = ctx.needs_input_grad
    return (
        products(g, ids, offsets, h, ctx.form) if of_values else None,
        None,
        None,
        decode(Entries(values, ids, offsets), h, None, ctx.form) if of_g else None,
        None,
        None,
    )


torch.library.register_autograd(_decode, _decode_gradients, setup_context=_keep)
torch.library.register_autograd(_products, _products_gradients, setup_context=_keep)
torch.library.register_autograd(_by_unit, _by_unit_gradients, setup_context=_keep)
