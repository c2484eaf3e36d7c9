"""Values of every dtype with the odd ones among them, as bits and as what a writer takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import lamina
from lamina.interchange.tensors import ROW_DTYPES, as_bits, as_stored, numpy_dtype

DTYPES = ROW_DTYPES
PLAIN = [name for name in DTYPES if name not in ("bf16", "f8_e4m3", "f8_e5m2")]
_ODD = {  # NaNs with payloads, both signs; -0.0; the infinities where there are any; the smallest subnormal
    "f64": [0x7FF8000000000001, 0xFFF800000000DEAD, 0x7FF0000000000BAD, 1 << 63, 0x7FF0000000000000, 1],
    "f32": [0x7FC00001, 0xFFC0DEAD, 0x7F800BAD, 1 << 31, 0x7F800000, 1],
    "f16": [0x7E01, 0xFE0D, 0x7C0B, 1 << 15, 0x7C00, 1],
    "bf16": [0x7FC1, 0xFFDE, 0x7F8B, 1 << 15, 0x7F80, 1],
    "f8_e4m3": [0x7F, 0xFF, 0x80, 0x01],
    "f8_e5m2": [0x7D, 0xFE, 0x80, 0x7C, 0x01],
}


def bits(dtype: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Random values of a dtype, the odd ones first; bf16 and f8 as their bits."""
    kind, rng = numpy_dtype(dtype), np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype == "bool":
        return rng.random(shape) < 0.5
    raw = rng.integers(0, 256, count * kind.itemsize, dtype=np.uint8).view(kind)
    odd = np.array(_ODD.get(dtype, []), dtype=f"u{kind.itemsize}").view(kind)[:count]
    raw[: odd.size] = odd
    return raw.reshape(shape)


def stored(dtype: str, shape: Sequence[int], seed: int = 0) -> Any:
    """The same, as a writer takes it."""
    return as_stored(bits(dtype, shape, seed), dtype)


def held(run: lamina.Run, site: str) -> np.ndarray:
    """All rows of a site as [n, d] bits, in order of their names."""
    rows = run.rows(site)
    return as_bits(rows.gather(np.argsort(rows.ids)))


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal to the bit, whatever the shape behind the first axis."""
    return found.dtype == expected.dtype and found.tobytes() == np.ascontiguousarray(expected).tobytes()
