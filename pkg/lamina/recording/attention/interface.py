"""Attention modules of Transformers: they ask its attention interface for a function and hand it q and k."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from lamina.errors import RecordingError
from lamina.recording.attention.inputs import Attention, lowest
from lamina.recording.attention.watch import Call, Detour, Watch

_OPEN = (None, "eager", "sdpa")

# What an implementation may be given besides q, k and masks that changes the weights in a way that is not ours.
_FOREIGN = {
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "indices": "a choice of keys",
    "block_indices": "a choice of keys",
    "cache": "a paged cache",
}


class InterfaceWatch(Watch):
    """Reads what an attention module of Transformers hands to the attention interface."""

    def check(self) -> None:
        """Raise unless the module's implementation shows its masks."""
        config = getattr(self.module, "config", None)
        _check(self.name, getattr(config, "_attn_implementation", None))

    def call(
        self,
        implementation: str | None,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor | None,
        options: dict[str, Any],
    ) -> None:
        """Take note of a call of the interface."""
        if not self.looks():
            return
        _check(self.name, implementation)
        for name, meaning in _FOREIGN.items():
            if options.get(name) is not None:
                raise RecordingError(
                    f"the attention of {self.name} uses {meaning} ({name}=), which its statistics do not know",
                    hint="leave attention= out, or record another model's",
                )
        # As sdpa reads it: the mask has the last word, and a single query sees all keys. Eager code knows no flag.
        causal = False
        if implementation == "sdpa" and mask is None and query.shape[2] > 1:
            flag = options.get("is_causal")
            causal = bool(getattr(self.module, "is_causal", True) if flag is None else flag)
        bias = options.get("position_bias")
        self.see(
            query, key, (mask, bias), causal=causal, scaling=options.get("scaling"), softcap=options.get("softcap")
        )

    def _attention(self, call: Call) -> Attention:
        q, k, masks, causal, scaling, softcap = call
        items = max(len(q), len(k))
        q, k = (x.expand(items, -1, -1, -1) for x in (q, k))
        given = tuple(mask[..., : k.shape[2]] for mask in masks if mask is not None)
        # A flag alone counts from the first key, also where a cache has room for more keys than there are queries.
        first = 0 if causal else None
        if masks[0] is not None and k.shape[2] > q.shape[2] and getattr(self.module, "is_causal", False):
            first = _first(given[0], q.shape[2])
        return Attention(q=q, k=k, masks=given, causal=causal, scaling=scaling, softcap=softcap, first=first)


def find(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the paths and modules of a model that ask the attention interface of Transformers."""
    if "transformers.modeling_utils" in sys.modules:
        for path, module in model.named_modules():
            if _asks(type(module)):
                yield path, module


@functools.cache
def detour() -> Detour:
    """Return the way around `AttentionInterface.get_interface`."""
    from transformers.modeling_utils import AttentionInterface

    return Detour(AttentionInterface, "get_interface", _around)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        chosen = original(self, attn_implementation, default)

        def watched(
            module: nn.Module,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            attention_mask: torch.Tensor | None = None,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            watch = Watch.of(module)
            if isinstance(watch, InterfaceWatch):
                watch.call(attn_implementation, query, key, attention_mask, kwargs)
            return chosen(module, query, key, value, attention_mask, *args, **kwargs)

        return watched

    return get_interface


def _check(name: str, implementation: str | None) -> None:
    if implementation not in _OPEN:
        raise RecordingError(
            f"{name} runs the attention implementation {implementation!r}, which hides how keys are masked",
            hint="load the model with attn_implementation='sdpa', or call model.set_attn_implementation('sdpa')",
        )


def _first(mask: torch.Tensor, queries: int) -> int | None:
    """Return the position of the first query, if the last one reaches no further than itself."""
    last = mask[..., -1, :]
    reached = last if mask.dtype == torch.bool else last > lowest(mask)
    keys = reached.flatten(0, -2).any(0).nonzero()
    return int(keys[-1]) - queries + 1 if len(keys) else None


@functools.cache
def _asks(kind: type) -> bool:
    functions = (f for base in kind.__mro__ if _foreign(base) for f in vars(base).values() if callable(f))
    return any({"ALL_ATTENTION_FUNCTIONS", "get_interface"} <= _names(function) for function in functions)


def _foreign(base: type) -> bool:
    return not base.__module__.startswith("torch.") and base.__module__ != "transformers.modeling_utils"


def _names(function: Any) -> set[str]:
    """Return the global names and attributes that a function uses, behind its decorators and in its inner code."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if not isinstance(function, FunctionType):
        return set()
    codes = [function.__code__]
    for code in codes:
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return {name for code in codes for name in code.co_names}
