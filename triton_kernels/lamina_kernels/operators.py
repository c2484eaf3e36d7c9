"""What operators registered with torch share, whatever they compute."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("lamina_kernels", "FRAGMENT")


def operator(name: str, schema: str) -> Callable[[Callable[..., Any]], torch._ops.OpOverload]:
    """Return a decorator that registers a function as the operator `lamina_kernels::name`, for every device.

    What `torch.library.custom_op` registers, but that its first call does not import torch's compiler: 3 seconds and
    160 MiB that those who compile nothing need not spend. Gradients are registered apart, also where they are refused.

    Args:
        name: What it is called.
        schema: Its arguments and results.
    """

    def register(function: Callable[..., Any]) -> torch._ops.OpOverload:
        _LIBRARY.define(f"{name}{schema}", tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(name, _not_compiled(function), "CompositeExplicitAutograd")
        return getattr(torch.ops.lamina_kernels, name).default

    return register


def _not_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that torch's compiler, once somebody has imported it, does not look into."""

    @functools.cache
    def apart() -> Callable[..., Any]:
        return torch._dynamo.disable(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return apart()(*arguments) if "torch._dynamo" in sys.modules else function(*arguments)

    return call


def followed(*tensors: torch.Tensor | None) -> bool:
    """Return whether gradients by one of the tensors, or torch's compiler, need an operator where torch has others."""
    if torch.compiler.is_compiling():
        return True
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def tensors(count: int) -> str:
    """Return what an operator returns, as a schema writes it."""
    return f"({', '.join(['Tensor'] * count)})"


def plainly(x: torch.Tensor) -> torch.autocast:
    """Return a context in which an autocast of the caller rounds none of our sums on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)


def keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
    """Keep an operator's arguments and results for its backward pass; gradients that did not come are None there."""
    ctx.set_materialize_grads(False)
    ctx.is_tensor = [isinstance(x, torch.Tensor) for x in inputs]
    ctx.others = [None if isinstance(x, torch.Tensor) else x for x in inputs]
    results = (output,) if isinstance(output, torch.Tensor) else output
    ctx.save_for_backward(*(x for x in inputs if isinstance(x, torch.Tensor)), *results)


def kept(ctx: Any) -> tuple[list[Any], list[torch.Tensor]]:
    """Return the arguments and the results that `keep` kept."""
    saved = list(ctx.saved_tensors)
    inputs = [saved.pop(0) if is_tensor else x for is_tensor, x in zip(ctx.is_tensor, ctx.others, strict=True)]
    return inputs, saved
