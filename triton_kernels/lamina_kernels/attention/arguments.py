"""From the arguments of `attend` to a `Problem`; every error names the argument and what was expected."""

from __future__ import annotations

from typing import Any

import torch

from lamina_kernels import checks
from lamina_kernels.attention.biases import ALiBi, Bias, KeyBias, RelativeBias
from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.normalizers import Normalizer, Sigmoid, Softmax
from lamina_kernels.attention.packed import Packing, packing
from lamina_kernels.attention.problem import Problem
from lamina_kernels.attention.scores import Cosine, Dot, Score, SquaredDistance, by_head, factors
from lamina_kernels.attention.support import CAPPED_KEYS, PACKED_MASK
from lamina_kernels.refusals import refuse

LARGEST_DIM = 256
PRECISIONS = ("bf16x6", "tf32", "ieee")
ALIGNMENTS = ("bottom-right", "top-left")


def build(
    op: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    *,
    causal: bool,
    align: str,
    window: tuple[int | None, int | None] | None,
    mask: BlockMask | None,
    bias: Bias | None,
    score: Score,
    normalizer: Normalizer,
    scale: float | None,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen_q: int | None,
    max_seqlen_k: int | None,
    precision: str | None,
) -> Problem:
    """Check the arguments and return what they ask to compute, but for the statistics; no values are such of dim 0."""
    _check_rows(op, packed=cu_seqlens_q is not None or cu_seqlens_k is not None, q=q, k=k, v=v)
    if v is None:
        v = k.new_empty(*k.shape[:-1], 0)
    lengths = packing(op, q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    if lengths is not None:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    lengths = lengths or Packing(None, None, q.shape[2], k.shape[2])
    _check_kinds(op, score, normalizer, bias, mask)
    if scale is not None and not isinstance(score, Dot):
        raise ValueError(
            f"{op}: scale is {scale!r} with {type(score).__name__}, which has its own; scale belongs to Dot()"
        )
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"{op}: precision is {precision!r}, expected None, 'bf16x6', 'tf32' or 'ieee'")
    if align not in ALIGNMENTS:
        raise ValueError(f"{op}: align is {align!r}, expected 'bottom-right' or 'top-left'")
    left, right = _window(op, window)
    if mask is not None:
        _check_mask(op, mask, q, k, packed=lengths.starts_q is not None)
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    _check_learned(op, score, normalizer, q)
    parts: dict[str, Any] = factors(score, q, k, scale, dtype)._asdict()
    if isinstance(normalizer, Sigmoid):
        added = torch.as_tensor(normalizer.bias, dtype=dtype, device=q.device)
        parts["query_bias"] = _sum(parts["query_bias"], by_head(added, dtype).expand(q.shape[:3]))
    if isinstance(bias, KeyBias):
        parts["key_bias"] = _sum(parts["key_bias"], _key_bias(op, bias.values, q, k).to(dtype))
    if isinstance(bias, ALiBi):
        _check_shape(op, "bias.slopes", bias.slopes, q, (q.shape[1],), "one a query head")
        parts["slopes"] = bias.slopes.to(dtype)
    if isinstance(bias, RelativeBias):
        if bias.table.ndim != 2 or bias.table.shape[1] % 2 == 0:
            raise ValueError(f"{op}: bias.table has shape {list(bias.table.shape)}, expected [{q.shape[1]}, 2 R + 1]")
        _check_shape(op, "bias.table", bias.table, q, (q.shape[1], bias.table.shape[1]), "[H, 2 R + 1]")
        parts["table"] = bias.table.to(dtype)
    return Problem(
        q=q,
        k=k,
        v=v,
        **parts,
        softcap=normalizer.softcap if isinstance(normalizer, Softmax) else None,
        sigmoid=isinstance(normalizer, Sigmoid),
        causal=bool(causal),
        left=left,
        right=right,
        bottom_right=align == "bottom-right",
        mask=mask,
        cu_seqlens_q=lengths.starts_q,
        cu_seqlens_k=lengths.starts_k,
        max_seqlen_q=lengths.longest_q,
        max_seqlen_k=lengths.longest_k,
        precision=precision,
    )


def _check_rows(op: str, *, packed: bool, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None) -> None:
    """Raise ValueError unless q, k and v, if there is one, are rows of heads that fit each other."""
    dims, layout = (3, "(total, heads, dim)") if packed else (4, "(batch, heads, rows, dim)")
    rows = {"q": q, "k": k} if v is None else {"q": q, "k": k, "v": v}
    for name, x in rows.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{op}: {name} is {type(x).__name__}, expected a tensor")
        if x.ndim != dims:
            also = "" if packed else "; packed rows (total, heads, dim) come with cu_seqlens_q and cu_seqlens_k"
            raise ValueError(f"{op}: {name} has shape {list(x.shape)}, expected {layout}{also}")
        if x.dtype not in checks.DTYPES:
            raise ValueError(f"{op}: {name} is {x.dtype}, expected float16, bfloat16, float32 or float64")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(f"{op}: {name} is {x.dtype} on {x.device}, but q is {q.dtype} on {q.device}")
        if not 1 <= x.shape[-1] <= LARGEST_DIM:
            raise ValueError(f"{op}: {name} has heads of dim {x.shape[-1]}, expected 1 to {LARGEST_DIM}")
    at = 1  # of the heads, packed or not
    if not packed and any(x.shape[0] != q.shape[0] for x in rows.values()):
        others = ", ".join(f"{name} {list(x.shape)}" for name, x in rows.items() if name != "q")
        raise ValueError(f"{op}: q has shape {list(q.shape)}, {others}: batches must be equal")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{op}: q has shape {list(q.shape)} and k {list(k.shape)}: the last dimensions must be equal")
    if v is not None and k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            f"{op}: k has shape {list(k.shape)} and v {list(v.shape)}: they must be equal but for the last dimension"
        )
    if k.shape[at] == 0 or q.shape[at] % k.shape[at] or q.shape[at] == 0:
        raise ValueError(
            f"{op}: q has shape {list(q.shape)} and k {list(k.shape)}: the {q.shape[at]} heads of q must be a "
            f"multiple of the {k.shape[at]} of k"
        )


def _check_kinds(op: str, score: Score, normalizer: Normalizer, bias: Bias | None, mask: BlockMask | None) -> None:
    for name, value, kinds, expected in (
        ("score", score, (Dot, Cosine, SquaredDistance), "Dot(), Cosine(temperature) or SquaredDistance(bandwidth)"),
        ("normalizer", normalizer, (Softmax, Sigmoid), "Softmax() or Sigmoid()"),
        (
            "bias",
            bias,
            (ALiBi, RelativeBias, KeyBias, type(None)),
            "ALiBi(slopes), RelativeBias(table) or KeyBias(values)",
        ),
        ("mask", mask, (BlockMask, type(None)), "what block_mask(fn, Nq, Nk) or documents(ids) return"),
    ):
        if not isinstance(value, kinds):
            what = f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
            hint = ""
            if name == "mask" and isinstance(value, torch.Tensor):
                hint = "; block_mask(lambda b, h, i, j: dense[b, h, i, j], …) makes one, KeyBias hides padding"
            raise TypeError(f"{op}: {name} is {what}, expected {expected}{hint}")
    if isinstance(normalizer, Softmax) and normalizer.softcap is not None and isinstance(bias, KeyBias):
        refuse(op, CAPPED_KEYS)


def _check_learned(op: str, score: Score, normalizer: Normalizer, q: torch.Tensor) -> None:
    """Raise ValueError unless tensors that scores and normalizers hold are one number, or one a query head."""
    learned = {
        "score.temperature": score.temperature if isinstance(score, Cosine) else None,
        "score.bandwidth": score.bandwidth if isinstance(score, SquaredDistance) else None,
        "normalizer.sink": normalizer.sink if isinstance(normalizer, Softmax) else None,
        "normalizer.bias": normalizer.bias if isinstance(normalizer, Sigmoid) else None,
    }
    for name, value in learned.items():
        if isinstance(value, torch.Tensor):
            _check_shape(op, name, value, q, (1,) if value.numel() == 1 else (q.shape[1],), "one, or one a query head")


def _check_shape(
    op: str, name: str, value: torch.Tensor, q: torch.Tensor, shape: tuple[int, ...], meaning: str
) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: {name} is {type(value).__name__}, expected a tensor of shape {list(shape)}")
    if value.shape != shape and not (value.ndim == 0 and shape == (1,)):
        raise ValueError(f"{op}: {name} has shape {list(value.shape)}, expected {list(shape)}: {meaning}")
    if not value.is_floating_point() or value.device != q.device:
        raise ValueError(
            f"{op}: {name} is {value.dtype} on {value.device}, expected floating point on {q.device}, as q is"
        )


def _window(op: str, window: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """Return how many keys are seen before and behind the query's, -1 for all."""
    if window is None:
        return -1, -1
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ValueError(f"{op}: window is {window!r}, expected (left, right)")
    for size in window:
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise ValueError(
                f"{op}: window is {window!r}, expected two numbers that are not negative, None for no limit"
            )
    left, right = (-1 if size is None else size for size in window)
    return left, right


def _check_mask(op: str, mask: BlockMask, q: torch.Tensor, k: torch.Tensor, *, packed: bool) -> None:
    if packed:
        refuse(op, PACKED_MASK)
    B, H = mask.starts.shape[:2]
    if (
        (mask.queries, mask.keys_count) != (q.shape[2], k.shape[2])
        or B not in (1, q.shape[0])
        or H not in (1, q.shape[1])
    ):
        raise ValueError(
            f"{op}: mask is of {mask.queries} queries and {mask.keys_count} keys, {B} sequences and {H} heads, "
            f"expected {q.shape[2]} and {k.shape[2]}, 1 or {q.shape[0]} and 1 or {q.shape[1]}"
        )
    if mask.blocks.device != q.device:
        raise ValueError(f"{op}: mask is on {mask.blocks.device}, but q is on {q.device}; mask.to(q.device) moves it")


def _key_bias(op: str, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return a bias of keys as [B, H, Nk]."""
    B, H, Nk = q.shape[0], q.shape[1], k.shape[2]
    fits = isinstance(values, torch.Tensor) and 1 <= values.ndim <= 3 and values.shape[-1] == Nk
    if not fits or any(n not in (1, m) for n, m in zip(values.shape[-2::-1], (H, B), strict=False)):
        what = f"has shape {list(values.shape)}" if isinstance(values, torch.Tensor) else f"is {type(values).__name__}"
        raise ValueError(
            f"{op}: bias.values {what}, expected [{Nk}], [{H}, {Nk}] or [{B}, {H}, {Nk}] (H and B may be 1)"
        )
    if not values.is_floating_point() or values.device != q.device:
        raise ValueError(
            f"{op}: bias.values is {values.dtype} on {values.device}, expected floating point on {q.device}, as q is"
        )
    return values.expand(B, H, Nk)


def _sum(a: torch.Tensor | None, b: torch.Tensor) -> torch.Tensor:
    return b if a is None else a + b
