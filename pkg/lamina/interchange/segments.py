"""Sealed segments of a run: safetensors files whose tensor `.table` says what the others are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import DamagedError, SchemaError
from lamina.interchange import cbor
from lamina.interchange.columns import StoredColumn
from lamina.interchange.tensors import FileTensor, numpy_dtype

_SITE, _COLUMN, _GROUP = 3, 4, 5
_VALUES = {"int": "i64", "time": "i64", "float": "f64", "bool": "u8"}


@dataclass(frozen=True)
class Group:
    """A row group: its sites, and its columns, of which some have one value for all rows."""

    rows: int
    sites: dict[str, FileTensor]
    columns: dict[str, StoredColumn]
    constants: dict[str, Any]


def groups_of(table: FileTensor, path: Path) -> list[Group]:
    """The row groups of a segment; those of the examples' table are left out.

    Raises:
        DamagedError: The table cannot be read, or what it lists does not lie in the file.
    """
    try:
        operations = cbor.decode(table.read(0, table.shape[0]).tobytes())
        sites = {body[0]: (body[1], body[2], tuple(body[3])) for number, body in operations if number == _SITE}
        columns = {body[0]: (body[1], body[2]) for number, body in operations if number == _COLUMN}
        groups = [body for number, body in operations if number == _GROUP and body[2] != 1]
        return [_group(group, sites, columns, path) for group in groups]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DamagedError(f"the table of the segment cannot be read: {error}", str(path), table.offset) from error


def _group(body: dict[int, Any], sites: dict[int, Any], columns: dict[int, Any], path: Path) -> Group:
    rows = body[6]
    found: dict[str, FileTensor] = {}
    parts: dict[str, dict[str, Any]] = {}
    for block in body[7]:
        role, number, offset, length = block[0], block.get(1), block[2], block[3]
        if role == 0:
            name, dtype, shape = sites[number]
            if 6 in block:
                raise SchemaError(
                    f"the rows of {name!r} lie in {path} as coded pieces",
                    hint="open the run and copy them: lamina.open(…).rows(…)",
                )
            found[name] = FileTensor(path, name, dtype, (rows, *shape), offset)
            if length != numpy_dtype(dtype).itemsize * _elements(found[name].shape):
                raise ValueError(f"the block of {name!r} has {length} bytes")
        elif role in (1, 2, 3, 4):
            name, kind = columns[number]
            part = ("values", "valid", "offsets", "bytes")[role - 1]
            dtype = (_VALUES.get(kind, "u8"), "u8", "u32", "u8")[role - 1]
            count = (rows, rows, rows + 1, length)[role - 1]
            parts.setdefault(name, {"time": kind == "time"})[part] = FileTensor(path, name, dtype, (count,), offset)
    constants = {columns[constant[0]][0]: constant.get(1) for constant in body.get(8, [])}
    return Group(rows, found, {name: StoredColumn(name, path, **part) for name, part in parts.items()}, constants)


def _elements(shape: tuple[int, ...]) -> int:
    result = 1
    for length in shape:
        result *= length
    return result
