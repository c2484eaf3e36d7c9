"""What operators registered with torch share, whatever they compute."""

from __future__ import annotations

from typing import Any

import torch


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
