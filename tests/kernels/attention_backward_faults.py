"""Named faults of the gradients of attention in Triton: each part of them off by a thousandth, and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.faults import fault

SLIGHTLY = 1 + 1e-3


def _named(name: str, what: str, wrong: Callable[[pytest.MonkeyPatch], None]) -> str:
    wrong.__name__, wrong.__doc__ = name, what
    fault(wrong)
    return name


def _term(name: str) -> str:
    """Make what the gradient of a score knows of its query a thousandth too large."""

    def wrong(patch: pytest.MonkeyPatch) -> None:
        from lamina_kernels.attention import gradients

        whole = gradients.terms

        def terms(*given: Any) -> Any:
            made = whole(*given)
            value = getattr(made, name)
            # Of the six of distances, two are means.
            factor = torch.tensor([1, SLIGHTLY, SLIGHTLY] * 2).view(6, 1, 1, 1) if name == "distance" else SLIGHTLY
            return made._replace(**{name: value * factor})

        patch.setattr(gradients, "terms", terms)

    return _named(f"attention_term_of_{name}_is_slightly_off", f"The term `{name}` is a thousandth too large.", wrong)


def _gradient(name: str) -> str:
    """Make a gradient a thousandth too large."""

    def wrong(patch: pytest.MonkeyPatch) -> None:
        from lamina_kernels.attention import backward_launch

        whole = backward_launch.backward

        def backward(*given: Any) -> Any:
            made = whole(*given)
            return made._replace(**{name: getattr(made, name) * SLIGHTLY})

        patch.setattr(backward_launch, "backward", backward)

    what = f"The gradient of `{name}` is a thousandth too large."
    return _named(f"attention_gradient_of_{name}_is_slightly_off", what, wrong)


TERMS = [_term(name) for name in ("constant", "log", "square", "distance", "columns", "max")]
GRADIENTS = [
    _gradient(name) for name in ("q", "k", "v", "query_scale", "key_scale", "query_bias", "key_bias", "slopes")
]


@fault
def attention_backward_gives_way(patch: pytest.MonkeyPatch) -> None:
    """Where Triton was asked for, another form runs under its name."""
    from lamina_kernels.attention import backward_launch, blocked_backward

    patch.setattr(backward_launch, "backward", blocked_backward.backward)
