"""A hash of values that follows from what they are alone: alike in every process, on every machine."""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

import numpy as np
import polars as pl


class NotCanonicalError(TypeError):
    """A value that cannot be told from others by its contents."""


def digest(value: Any) -> bytes:
    """Return 16 bytes that two values share if they have the same type and contents.

    Args:
        value: None, numbers, texts, bytes, paths, tensors, arrays, series, frames and expressions, dtypes and devices,
            members of enumerations, and sequences, sets, mappings (in any order) and dataclasses of them.

    Raises:
        NotCanonicalError: Anything else.

    Example:
        >>> digest({"a": 1, "b": [2.0, None]}) == digest({"b": [2.0, None], "a": 1}), digest(1) == digest(1.0)
        (True, False)
    """
    hasher = blake2b(digest_size=16)
    kind, parts = _parts(value)
    hasher.update(kind.encode() + b"\0")
    for part in parts:
        hasher.update(struct.pack("<q", len(part)) + part)
    return hasher.digest()


def _parts(value: Any) -> tuple[str, list[bytes]]:
    kind = type(value).__name__
    if value is None or value is Ellipsis or isinstance(value, bool | int | str) or type(value) in (slice, range):
        return kind, [str(value).encode()]
    if isinstance(value, float | complex):
        return kind, [struct.pack("<dd", value.real, value.imag)]
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", [bytes(value)]
    if isinstance(value, enum.Enum):
        return f"{type(value).__module__}.{type(value).__qualname__}", [value.name.encode()]
    if isinstance(value, PurePath):
        return "path", [str(value).encode()]
    if isinstance(value, list | tuple):
        return kind, [digest(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(digest(item) for item in value)
    if isinstance(value, Mapping):
        return "mapping", sorted(digest(key) + digest(item) for key, item in value.items())
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            raise NotCanonicalError(f"an array of {array.dtype}")
        return "array", [array.dtype.str.encode(), str(np.shape(value)).encode(), array.tobytes()]
    if isinstance(value, pl.Series | pl.DataFrame):
        frame = value.to_frame() if isinstance(value, pl.Series) else value
        texts = [str(dict(frame.schema)).encode(), str(frame.height).encode()]
        return kind, texts + [digest(column.to_list()) for column in frame.get_columns()]
    if isinstance(value, pl.Expr):
        return kind, [value.meta.serialize()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]
        return f"{type(value).__module__}.{type(value).__qualname__}", [digest(fields)]
    return _torch_parts(value)


def _torch_parts(value: Any) -> tuple[str, list[bytes]]:
    module = type(value).__module__.split(".")[0]
    if module == "torch" or hasattr(value, "detach"):
        import torch

        if isinstance(value, torch.dtype | torch.device):
            return type(value).__name__, [str(value).encode()]
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
            return "tensor", [str(plain.dtype).encode(), str(list(plain.shape)).encode(), data]
    raise NotCanonicalError(f"a {type(value).__module__}.{type(value).__qualname__}")
