"""Attention of `torch.nn.MultiheadAttention`, on its own and in encoder layers that call it by no name.

Hooks would change what they watch: an encoder layer leaves its fast path when any of its modules has one. So the
`forward` of these classes takes a detour; the original one runs untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from lamina.recording.attention.inputs import Attention
from lamina.recording.attention.watch import Call, Detour, Watch


class MultiheadWatch(Watch):
    """Reads what a `torch.nn.MultiheadAttention` is given, and projects it to queries and keys once more."""

    reached = False
    length: int | None = None

    def _attention(self, call: Call) -> Attention:
        q, k, (mask, padding) = call.q, call.k, call.masks
        module = self.module
        assert isinstance(module, nn.MultiheadAttention)
        if q.ndim == 2:
            q, k, padding = q[None], k[None], None if padding is None else padding[None]
        elif not module.batch_first:
            q, k = q.transpose(0, 1), k.transpose(0, 1)
        q, k = _projected(module, q, k)
        first = k.shape[1] - q.shape[1]
        extra = _extra(module)
        if module.bias_k is not None:
            k = torch.cat([k, module.bias_k.expand(len(k), 1, -1).to(k.dtype)], 1)
        if module.add_zero_attn:
            k = nn.functional.pad(k, (0, 0, 0, 1))
        if mask is not None and mask.ndim == 3:  # an item and head after the other
            mask = mask.unflatten(0, (-1, module.num_heads))
        if padding is not None:
            padding = padding[:, None, None]
        given = tuple(_reach(each, extra) for each in (mask, padding) if each is not None)
        q, k = (x.unflatten(2, (module.num_heads, -1)).transpose(1, 2) for x in (q, k))
        return Attention(q=q, k=k, masks=given, first=first)

    def _rows(self, statistic: str, value: torch.Tensor) -> torch.Tensor:
        # The module's own keys, which stand behind those that it was given, are nobody's rows.
        assert isinstance(self.module, nn.MultiheadAttention)
        return value[:, : value.shape[1] - _extra(self.module)] if statistic == "received" else value


def find(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the paths and modules of a model that are a `torch.nn.MultiheadAttention`."""
    return ((path, module) for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention))


@functools.cache
def detours() -> tuple[Detour, ...]:
    """Return the ways around the `forward` of attention, of encoder layers and of encoders."""
    return (
        Detour(nn.MultiheadAttention, "forward", _around),
        Detour(nn.TransformerEncoderLayer, "forward", _around_layer),
        Detour(nn.TransformerEncoder, "forward", _around_encoder),
    )


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(
        self: nn.MultiheadAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Any:
        watch = Watch.of(self)
        if isinstance(watch, MultiheadWatch):
            # `is_causal` only tells what `attn_mask` holds anyway.
            _see(watch, query, key, attn_mask, key_padding_mask)
        return original(
            self,
            query,
            key,
            value,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )

    return forward


def _around_layer(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(
        self: nn.TransformerEncoderLayer,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        watch = Watch.of(self.self_attn)
        if not isinstance(watch, MultiheadWatch) or not watch.looks():
            return original(self, src, src_mask, src_key_padding_mask, is_causal)
        watch.reached = False
        result = original(self, src, src_mask, src_key_padding_mask, is_causal)
        if not watch.reached:  # the fast path computes the whole layer without a call of its modules
            _see(watch, src, src, src_mask, src_key_padding_mask, self.norm1 if self.norm_first else None)
        return result

    return forward


def _around_encoder(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: nn.TransformerEncoder, src: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # never packs
            return original(self, src, *args, **kwargs)
        found = (Watch.of(module) for module in self.modules())
        watches = [watch for watch in found if isinstance(watch, MultiheadWatch) and watch.due]
        for watch in watches:
            watch.length = src.shape[1] if src.ndim == 3 and not src.is_nested else None
        try:
            return original(self, src, *args, **kwargs)
        finally:
            for watch in watches:
                watch.length = None

    return forward


def _see(
    watch: MultiheadWatch,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    padding: torch.Tensor | None,
    norm: nn.LayerNorm | None = None,
) -> None:
    watch.reached = True
    if not watch.looks():
        return
    if query.is_nested:
        # The encoder packs items without their padding. Nobody reads the rows that it left out: they are out of reach.
        items = query.unbind()
        lengths = torch.tensor([len(item) for item in items], device=query.device)
        longest = watch.length or max(len(item) for item in items)
        query = key = query.to_padded_tensor(0.0, (len(items), longest, items[0].shape[1]))
        left_out = torch.arange(query.shape[1], device=query.device) >= lengths[:, None]
        mask = (left_out[:, :, None] | left_out[:, None, :])[:, None]
    if norm is not None:
        query = key = nn.functional.layer_norm(query, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    watch.see(query, key, (mask, padding))


def _projected(
    module: nn.MultiheadAttention, query: torch.Tensor, key: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if module.in_proj_weight is not None:
        q_weight, k_weight, _ = module.in_proj_weight.chunk(3)
    else:
        q_weight, k_weight = module.q_proj_weight, module.k_proj_weight
    q_bias, k_bias = (None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[:2]
    return nn.functional.linear(query.to(q_weight.dtype), q_weight, q_bias), nn.functional.linear(
        key.to(k_weight.dtype), k_weight, k_bias
    )


def _reach(mask: torch.Tensor, extra: int) -> torch.Tensor:
    """Return a mask in our terms: True where a query may attend, always for the module's own keys."""
    return (
        nn.functional.pad(~mask, (0, extra), value=True)
        if mask.dtype == torch.bool
        else nn.functional.pad(mask, (0, extra))
    )


def _extra(module: nn.MultiheadAttention) -> int:
    return (module.bias_k is not None) + module.add_zero_attn
