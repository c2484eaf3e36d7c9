"""A problem as the arguments of a registered operator: tensors, numbers and strings, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.problem import Gradients, Problem, Sums

# Tensors that have gradients come first, in the order of `Gradients`.
_TENSORS = (*Gradients._fields, "columns", "cu_seqlens_q", "cu_seqlens_k")
# In one list: an operator takes at most 64 arguments.
_INTEGERS = ("left", "right", "max_seqlen_q", "max_seqlen_k", "tier", "topk")
_FLAGS = ("sigmoid", "causal", "bottom_right")
_MASK = tuple(field.name for field in fields(BlockMask) if field.type == "torch.Tensor")
_MASK_SIZES = ("queries", "keys_count", "block")

GRADIENTS = len(Gradients._fields)
"""How many of the first arguments have gradients."""

COUNT = len(_TENSORS) + len(_MASK) + 4
"""How many arguments a problem takes."""


def schema(prefix: str = "") -> str:
    """Return the arguments of a problem as an operator's schema names them."""
    tensors = [f"Tensor {prefix}{name}" if name in "qkv" else f"Tensor? {prefix}{name}" for name in _TENSORS]
    masks = [f"Tensor? {prefix}mask_{name}" for name in _MASK]
    others = ("float {}scale", "float? {}softcap", "str? {}precision", "SymInt[] {}numbers")
    return ", ".join([*tensors, *masks, *(other.format(prefix) for other in others)])


def flat(p: Problem) -> tuple[Any, ...]:
    """Return a problem as arguments."""
    mask = p.mask
    numbers = [getattr(p, name) for name in _INTEGERS] + [int(getattr(p, name)) for name in _FLAGS]
    numbers += [0 if mask is None else getattr(mask, name) for name in _MASK_SIZES]
    return (
        *(getattr(p, name) for name in _TENSORS),
        *(None if mask is None else getattr(mask, name) for name in _MASK),
        p.scale,
        p.softcap,
        p.precision,
        numbers,
    )


def problem(arguments: Sequence[Any]) -> Problem:
    """Return the problem of arguments."""
    tensors: dict[str, Any] = dict(zip(_TENSORS, arguments, strict=False))
    masks: dict[str, Any] = dict(zip(_MASK, arguments[len(_TENSORS) :], strict=False))
    scale, softcap, precision, numbers = arguments[COUNT - 4 : COUNT]
    integers: dict[str, Any] = dict(zip(_INTEGERS, numbers, strict=False))
    flags: dict[str, Any] = {name: bool(x) for name, x in zip(_FLAGS, numbers[len(_INTEGERS) :], strict=False)}
    sizes: dict[str, Any] = dict(zip(_MASK_SIZES, numbers[len(_INTEGERS) + len(_FLAGS) :], strict=True))
    mask = None if masks["starts"] is None else BlockMask(**sizes, **masks)
    return Problem(**tensors, scale=scale, softcap=softcap, precision=precision, **integers, **flags, mask=mask)


def packed(results: Sequence[torch.Tensor | None], like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return results as an operator returns them: tensors of their own memory, without elements where None was."""
    return tuple(like.new_empty(0) if x is None else _own(x) for x in results)


def unpacked(tensors: Sequence[torch.Tensor | None]) -> list[Any]:
    """Return None where a tensor has one dimension and no elements."""
    return [None if x is None or (x.ndim == 1 and x.shape[0] == 0) else x for x in tensors]


def empty_sums(p: Problem) -> Sums:
    """Allocate all that a forward pass of the problem's tier and `topk` leaves."""
    rows = p.q.shape[:3]

    def number(*shape: int) -> torch.Tensor:
        return p.q.new_empty(shape, dtype=p.dtype)

    def index(*shape: int) -> torch.Tensor:
        return p.q.new_empty(shape, dtype=torch.int64)

    sums = Sums(p.v.new_empty(*rows, p.v.shape[3]), max=number(*rows))
    if not p.sigmoid:
        sums = sums._replace(lse=number(*rows))
    if p.tier >= 1 and not p.sigmoid:
        sums = sums._replace(entropy=number(*rows), expected_score=number(*rows))
    if p.tier >= 2:
        sums = sums._replace(argmax=index(*rows), sum_p2=number(*rows))
    if p.tier >= 2 and not p.sigmoid:
        sums = sums._replace(distance=number(4, *rows))
    if p.tier >= 3 and p.columns is not None:
        sums = sums._replace(columns=number(*rows, p.columns.shape[3]))
    if p.topk:
        sums = sums._replace(top_scores=number(*rows, p.topk), top_keys=index(*rows, p.topk))
    return sums


def empty_gradients(p: Problem) -> Gradients:
    """Allocate the gradients by all that the problem holds."""
    held: list[Any] = [getattr(p, name) for name in Gradients._fields]
    empty: list[Any] = [None if x is None else x.new_empty(x.shape) for x in held]
    return Gradients(*empty)


def _own(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that shares its memory with no other."""
    alone = x.is_contiguous() and x.untyped_storage().nbytes() == x.numel() * x.element_size()
    return x if alone else x.clone(memory_format=torch.contiguous_format)
