"""Counts as operators that torch knows: compiled without a break, and without gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.counting import blocked
from lamina_kernels.gram.counting.thresholds import Thresholds
from lamina_kernels.gram.pairs import COUNT, SCHEMA, Pairs, flat, unflat
from lamina_kernels.operators import operator, plainly

_SCHEMA = f"({SCHEMA}, Tensor values, bool root, Tensor weight, bool strict, str form) -> Tensor"


def count(p: Pairs, radii: Thresholds, form: str) -> Tensor:
    """Return how many rows of y lie within the radius of each row of x, [n] int64. "blocked" or "triton"."""
    return _count(*_flat(p), *radii, form)


def histogram(p: Pairs, edges: Thresholds, form: str) -> Tensor:
    """Return how many pairs lie in each bin, [edges - 1] int64. The form is "blocked" or "triton"."""
    return _histogram(*_flat(p), *edges, form)


def _flat(p: Pairs) -> tuple[Any, ...]:
    """Return pairs as arguments of an operator that has no gradients."""
    return flat(replace(p, x=p.x.detach(), y=p.y.detach(), parameters=p.parameters.detach()))


@operator("gram_count", _SCHEMA)
def _count(*arguments: Any) -> Tensor:
    p, radii = unflat(arguments), Thresholds(*arguments[COUNT:-1])
    with plainly(p.x):
        return _form(arguments[-1]).count(p, radii)


@torch.library.register_fake(_count)
def _(*arguments: Any) -> Tensor:
    p = unflat(arguments)
    return p.x.new_empty(p.n, dtype=torch.int64)


@operator("gram_histogram", _SCHEMA)
def _histogram(*arguments: Any) -> Tensor:
    p, edges = unflat(arguments), Thresholds(*arguments[COUNT:-1])
    with plainly(p.x):
        return _form(arguments[-1]).histogram(p, edges).clone()


@torch.library.register_fake(_histogram)
def _(*arguments: Any) -> Tensor:
    p, edges = unflat(arguments), Thresholds(*arguments[COUNT:-1])
    return p.x.new_empty(len(edges.values) - 1, dtype=torch.int64)


def _form(name: str) -> Any:
    """Return the module of a form; Triton is imported when it is first asked for."""
    if name == "blocked":
        return blocked
    from lamina_kernels.gram.counting import launch

    return launch
