"""The header of a safetensors file: eight bytes of length, JSON, and from there on the tensors without gaps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.errors import DamagedError
from lamina.interchange.tensors import FileTensor, cannot_read, file_size, numpy_dtype, prod

_LONGEST = 100 << 20
_DTYPES = {
    "F64": "f64",
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "F8_E4M3": "f8_e4m3",
    "F8_E5M2": "f8_e5m2",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U64": "u64",
    "U32": "u32",
    "U16": "u16",
    "U8": "u8",
    "BOOL": "bool",
}
_SPELLED = {name: spelled for spelled, name in _DTYPES.items()}


def read_header(path: Path) -> tuple[dict[str, FileTensor], dict[str, str], dict[str, str]]:
    """The tensors of a file, those of a dtype that Lamina does not know (by name), and what it says of itself.

    Raises:
        DamagedError: It is no safetensors file, or was cut short.
    """
    size = file_size(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _LONGEST):
                raise DamagedError(f"no safetensors file: its header would take {length:,} bytes", str(path), 0)
            text = file.read(length)
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        header = json.loads(text)
        about = header.pop("__metadata__", None) or {}
        entries = {name: _entry(entry) for name, entry in header.items()}
        about = {str(key): str(value) for key, value in about.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"the header of the safetensors file cannot be read: {error}", str(path), 8) from error
    tensors: dict[str, FileTensor] = {}
    unknown: dict[str, str] = {}
    for name, (spelled, shape, begin, end) in entries.items():
        if (dtype := _DTYPES.get(spelled)) is None:
            unknown[name] = spelled
            continue
        if end - begin != prod(shape) * numpy_dtype(dtype).itemsize:
            raise DamagedError(
                f"{name!r} of shape {list(shape)} and dtype {spelled} has {end - begin:,} bytes", str(path), 8
            )
        tensors[name] = FileTensor(path, name, dtype, shape, 8 + length + begin)
    return tensors, unknown, about


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    shape, offsets = entry["shape"], entry["data_offsets"]
    begin, end = offsets
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or end < begin:
        raise ValueError(f"a tensor of shape {shape} at {offsets}")
    return str(entry["dtype"]), tuple(shape), begin, end


def make_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], about: Mapping[str, str]) -> bytes:
    """The header of a file with these tensors (dtype and shape by name), one after another in this order."""
    entries: dict[str, Any] = {"__metadata__": dict(about)}
    at = 0
    for name, (dtype, shape) in tensors.items():
        end = at + numpy_dtype(dtype).itemsize * prod(shape)
        entries[name] = {"dtype": _SPELLED[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def is_safetensors(path: Path) -> bool:
    """Whether the name says so."""
    return os.fspath(path).endswith(".safetensors")
