"""The sums of many kernels of the same rows as an operator that torch knows, differentiable twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.dependence import blocked, blocked_second, features
from lamina_kernels.gram.dependence.blocked import Found, Wanted
from lamina_kernels.gram.dependence.estimator import Sums, biased_matrix, debiased_matrix
from lamina_kernels.gram.dependence.layers import Layers, fits
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums.op_forms import has_gradients
from lamina_kernels.gram.support import LARGE_GROUPS, THRICE
from lamina_kernels.operators import operator, plainly, tensors
from lamina_kernels.refusals import refuse

_SCHEMA = "Tensor[] x, Tensor[] parameters, Tensor? sizes, str codes, int[] flags, str? precision"
_FOUND = ", ".join(f"Tensor {name}" for name in Found._fields)


def hsic(layers: Layers, form: str) -> Tensor:
    """Return HSIC of any two representations, [k, k] float64.

    The form is "blocked" or "triton", or "either": "triton" if groups fit into its tiles, which compiled code does not
    know.
    """
    *found, _ = _sums(*_flat(layers), form)
    pairs, rows, weighted, triples, cells = found
    if layers.diagonal:
        return biased_matrix(pairs, rows)
    n, u = layers.n, layers.size
    if u:
        # Weights that are one number, and sums that are the same.
        weighted = u * rows
        triples = (n - 3 * u) * (pairs if layers.sizes is None else triples)
        cells = pairs if layers.sizes is None else cells
        pairs = ((n - 2 * u) ** 2 - u * n + 2 * u * u) * pairs
    return debiased_matrix(Sums(pairs, rows, weighted, triples, cells), layers.sizes)


def _flat(layers: Layers) -> tuple[Any, ...]:
    """Return layers as arguments of the operator."""
    each = layers.pairs
    flags = [layers.left, layers.own, layers.diagonal, layers.size, layers.features]
    codes = ";".join(p.code for p in each)
    return (
        [p.x for p in each],
        [p.parameters for p in each],
        layers.sizes,
        codes,
        list(map(int, flags)),
        each[0].precision,
    )


def _unflat(arguments: Sequence[Any]) -> Layers:
    """Return the layers of arguments."""
    rows, parameters, sizes, codes, (left, own, diagonal, size, by_features), precision = arguments
    pairs = tuple(
        Pairs(x, x, each, code, same=True, precision=precision)
        for x, each, code in zip(rows, parameters, codes.split(";"), strict=True)
    )
    return Layers(pairs, left, bool(own), bool(diagonal), sizes, size, bool(by_features))


def _is_triton(form: str, layers: Layers) -> bool:
    """Return whether "triton" is what runs, now that groups can be looked at."""
    if form == "blocked":
        return False
    small = fits(layers)
    if form == "triton" and not small:
        refuse("gram", LARGE_GROUPS)
    return small


@operator("gram_layers", f"({_SCHEMA}, str form) -> {tensors(6)}")
def _sums(*arguments: Any) -> tuple[Tensor, ...]:
    layers = _unflat(arguments[:-1])
    with plainly(layers.pairs[0].x):
        if layers.features:
            return *features.sums(layers), layers.pairs[0].x.new_empty(0)
        if _is_triton(arguments[-1], layers):
            from lamina_kernels.gram.dependence import launch
            from lamina_kernels.gram.sums.launch import sums

            centers = blocked.centers(layers, sums)
            return *launch.sums(layers, centers), centers
        centers = blocked.centers(layers)
        return *blocked.sums(layers, centers), centers


@torch.library.register_fake(_sums)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    layers = _unflat(arguments[:-1])
    x = layers.pairs[0].x
    found = [x.new_empty(shape, dtype=torch.float64) for shape in blocked.shapes(layers)]
    centers = x.new_empty(0) if layers.features else x.new_empty(len(layers), layers.n, dtype=layers.dtype)
    return *found, centers


_WANTED = "bool[] rows_wanted, bool[] parameters_wanted"


@operator("gram_layers_backward", f"({_SCHEMA}, Tensor centers, {_FOUND}, {_WANTED}, str form) -> Tensor[]")
def _backward(*arguments: Any) -> list[Tensor]:
    layers, (centers, *g, of_rows, of_parameters, form) = _unflat(arguments[:6]), arguments[6:]
    with plainly(layers.pairs[0].x):
        found = _found(layers, centers, Found(*g), Wanted(of_rows, of_parameters), form)
    return [centers.new_empty(0) if each is None else each for each in found]


def _found(layers: Layers, centers: Tensor, g: Found, wanted: Wanted, form: str) -> Sequence[Tensor | None]:
    """Return the gradients of each kernel's rows, and behind these of its parameters; None for what is not wanted."""
    if layers.features:
        return features.gradients(layers, g, wanted)
    if all(map(has_gradients, layers.pairs)) and _is_triton(form, layers):
        from lamina_kernels.gram.dependence import backward_launch

        return backward_launch.gradients(layers, centers, g, wanted)
    found = blocked.gradients(layers, centers, g, wanted)
    rows = [None if each.x is None else each.x.to(p.x.dtype) for each, p in zip(found, layers.pairs, strict=True)]
    return rows + [each.by_leaf for each in found]


@torch.library.register_fake(_backward)
def _(*arguments: Any) -> list[Tensor]:
    rows, parameters, centers, *wanted = *arguments[:2], arguments[6], *arguments[-3:-1]
    held = zip((*rows, *parameters), (each for some in wanted for each in some), strict=True)
    return [x.new_empty(x.shape) if is_wanted else centers.new_empty(0) for x, is_wanted in held]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, parameters, sizes, *ctx.rest, ctx.form = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*rows, *parameters, sizes, *output)


def _gradients(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    *both, sizes, pairs, rows, weighted, triples, cells, centers = ctx.saved_tensors
    count = len(both) // 2
    found = pairs, rows, weighted, triples, cells
    g = [torch.zeros_like(x) if each is None else each for x, each in zip(found, given[:5], strict=True)]
    wanted = [list(each) for each in ctx.needs_input_grad[:2]]
    found = _backward(both[:count], both[count:], sizes, *ctx.rest, centers, *g, *wanted, ctx.form)
    made = [x if is_wanted else None for x, is_wanted in zip(found, wanted[0] + wanted[1], strict=True)]
    return made[:count], made[count:], None, None, None, None, None


class _Second(torch.autograd.Function):
    """Gradients of `_backward`'s results: they take torch's autograd, which an operator's implementation has not."""

    @staticmethod
    def forward(
        ctx: Any,
        needed: Sequence[bool],
        count: int,
        sizes: Any,
        codes: Any,
        flags: Any,
        precision: Any,
        centers: Any,
        *arguments: Any,
    ) -> tuple[Tensor | None, ...]:
        """Take the arguments of `_backward`, `count` rows and parameters among them, and gradients of its results."""
        rows, parameters, rest = arguments[:count], arguments[count : 2 * count], arguments[2 * count :]
        layers = _unflat((rows, parameters, sizes, codes, flags, precision))
        g, given = Found(*rest[: len(Found._fields)]), rest[len(Found._fields) :]
        with plainly(layers.pairs[0].x):
            return tuple(blocked_second.second(layers, centers, g, given, needed))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Refuse."""
        refuse("gram", THRICE)


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    rows, parameters, sizes, *ctx.rest, centers = inputs[:7]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*rows, *parameters, sizes, centers, *inputs[7 : 7 + len(Found._fields)])


def _second_gradients(ctx: Any, given: list[Tensor | None]) -> tuple[Any, ...]:
    fields = len(Found._fields)
    *both, sizes, centers = ctx.saved_tensors[:-fields]
    g, count = ctx.saved_tensors[-fields:], len(both) // 2
    of_rows, of_parameters, *others = ctx.needs_input_grad
    needed = [*of_rows, *of_parameters, *others[5 : 5 + fields]]
    if all(each is None for each in given):
        return (None,) * len(ctx.needs_input_grad)
    made = _Second.apply(needed, count, sizes, *ctx.rest, centers, *both, *g, *given)
    of_rows, of_parameters = list(made[:count]), list(made[count : 2 * count])
    return of_rows, of_parameters, None, None, None, None, None, *made[2 * count :], None, None, None


torch.library.register_autograd(_sums, _gradients, setup_context=_keep)
torch.library.register_autograd(_backward, _second_gradients, setup_context=_keep_backward)
