"""When an optimizer's gradients are there: as its step begins, or behind the closure that computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def with_gradients(
    act: Callable[[], object], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Act in a hook before an optimizer's step, as soon as the gradients of the step are there.

    An optimizer may be given a closure that computes them (Lightning always does); then they are there when it has been
    evaluated for the first time. Later evaluations, such as those of LBFGS, are at other weights.

    Args:
        act: What is to be done.
        args: What the hook was given.
        kwargs: What the hook was given.

    Returns:
        What the hook has to return.
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        act()
        return None
    seen = False

    def watched() -> Any:
        nonlocal seen
        loss = closure()
        if not seen:
            act()
        seen = True
        return loss

    return args[:1], kwargs | {"closure": watched}
