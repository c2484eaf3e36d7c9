"""What stands before the values of a `.npy` array, alone or in an archive."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from lamina.errors import DamagedError, SchemaError
from lamina.interchange.tensors import NAMES

_LONGEST = 10_000


class ArrayHeader(NamedTuple):
    """Shape, order in memory, and dtype."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]


def array_header(file: IO[bytes], path: Path, name: str) -> ArrayHeader:
    """Read the header of an array; the file then stands at its first value. DamagedError where it is none."""
    try:
        version = np.lib.format.read_magic(file)
        width = 2 if version[0] == 1 else 4
        length = int.from_bytes(file.read(width), "little")
        if length > _LONGEST:
            raise ValueError(f"its header takes {length:,} bytes")
        text = file.read(length).decode("latin1" if version[0] < 3 else "utf-8")
        header = ast.literal_eval(text.strip())
        shape, fortran, dtype = header["shape"], header["fortran_order"], np.lib.format.descr_to_dtype(header["descr"])
        if not all(type(number) is int and number >= 0 for number in shape):
            raise ValueError(f"its shape is {shape}")
    except (ValueError, KeyError, IndexError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "from_npz reads archives" if path.suffix == ".npz" and name == path.name else None
        raise DamagedError(f"{name!r} is no .npy array: {why}", str(path), hint=hint) from error
    return ArrayHeader(tuple(shape), "F" if fortran else "C", dtype)


def dtype_name(dtype: np.dtype[Any], path: Path, name: str) -> str:
    """What Lamina calls the dtype; SchemaError for objects, fields, and whatever else is no plain number."""
    if dtype.hasobject:
        raise SchemaError(
            f"{name!r} holds Python objects, which Lamina never unpickles",
            str(path),
            hint="save numbers: if the rows differ in length, pad them, or save one array of all rows",
        )
    if (known := NAMES.get(dtype.newbyteorder("="))) is None:
        what = "fields" if dtype.fields else f"the dtype {dtype}"
        raise SchemaError(f"{name!r} has {what}", str(path), hint="save arrays of plain numbers")
    return known
