"""Arrow's record batches: lists of fixed length become sites, everything else columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamina.errors import DamagedError, SchemaError
from lamina.interchange.arrow_values import TEXT, Vectors, entries, plain, values_of, vectors
from lamina.interchange.blocks import BLOCK_BYTES, Block, listed
from lamina.interchange.choice import NEVER, Choice
from lamina.interchange.tensors import NAMES, as_stored, check_row_dtype, numpy_dtype, prod
from lamina.runs.columns import RESERVED_ORDER

EXTRA = "interchange"
DTYPE, SHAPE = b"lamina.dtype", b"lamina.shape"
"""What a field's metadata says where its numbers are the bits of a dtype that Arrow does not know, or its items have a
shape."""


@dataclass(frozen=True)
class Plan:
    """Which fields become what.

    Attributes:
        sites: Fields that become sites.
        positions: Fields that become columns with an entry for every position.
        columns: Fields of single values, and what they will be called.
        schema: What the plan was made for.
    """

    sites: tuple[Vectors, ...]
    positions: tuple[Vectors, ...]
    columns: dict[str, str]
    schema: Any

    @property
    def fields(self) -> list[str]:
        """The fields that are read."""
        return [*(one.field for one in (*self.sites, *self.positions)), *self.columns]

    @property
    def block_rows(self) -> int:
        """How many rows make a block."""
        size = sum(numpy_dtype(site.dtype).itemsize * prod(site.shape) for site in self.sites)
        return max(1, BLOCK_BYTES // max(1, size))

    def blocks(self, batch: Any, path: Path, first: int) -> Iterator[Block]:
        """The rows of a record batch; those that lack some of the sites stand apart.

        Args:
            batch: With the plan's fields.
            path: The file, for errors.
            first: The number of its first row in the file, for errors.
        """
        for start in range(0, max(batch.num_rows, 1), self.block_rows):
            yield from self._block(batch.slice(start, self.block_rows), path, first + start)

    def _block(self, batch: Any, path: Path, first: int) -> Iterator[Block]:
        arrays = {site.name: plain(batch.column(site.field)) for site in self.sites}
        if not any(array.null_count for array in arrays.values()):
            yield self._whole(batch, arrays, path, first)
            return
        there = np.stack([array.is_valid().to_numpy(zero_copy_only=False) for array in arrays.values()])
        if not there.any(axis=0).all():
            row = first + int(np.argmin(there.any(axis=0)))
            raise SchemaError(f"row {row:,} has none of the vectors", str(path), hint="leave such rows out first")
        patterns, which = np.unique(there.T, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            rows = np.flatnonzero(which.reshape(-1) == number)
            held = {name: array.take(rows) for (name, array), has in zip(arrays.items(), pattern, strict=True) if has}
            yield self._whole(batch.take(rows), held, path, first)

    def _whole(self, batch: Any, arrays: dict[str, Any], path: Path, first: int) -> Block:
        sites = {
            site.name: as_stored(vectors(arrays[site.name], site, path, first), site.dtype)
            for site in self.sites
            if site.name in arrays
        }
        columns = {name: values_of(batch.column(field), field, path) for field, name in self.columns.items()}
        for one in self.positions:
            columns[one.name] = entries(plain(batch.column(one.field)), one, path, first)
        return Block(batch.num_rows, sites, {name: values for name, values in columns.items() if values is not None})


def plan_of(schema: Any, first: Any, choice: Choice, path: Path) -> Plan:
    """Decides which fields become what.

    Args:
        schema: Arrow's.
        first: A record batch, which tells how long lists are whose type does not say it; or None.
        choice: What the user asked for.
        path: The file, for errors.

    Raises:
        SchemaError: There are no vectors, or a field of a type that a run cannot hold.
        NotFoundError: A field was asked for that is not there.
    """
    names = schema.names
    wanted, named, keys = choice.sites_among(names), choice.columns_among(names), choice.keys_among(names)
    lists = {name: _lengths(schema.field(name), first, path) for name in names if _depth(schema.field(name).type)}
    positions = _per_position(schema, lists) if wanted is None else {}
    if wanted is None:
        taken = {*positions, *(named or {}), *keys}
        exported = [name for name in names if SHAPE in (schema.field(name).metadata or {})]  # sites of single numbers
        wanted = {name: name for name in (*lists, *exported) if name not in taken}
    if named is None:
        named = {name: name for name in names if name not in lists and name not in (*NEVER, *wanted)} | positions | keys
    columns = {name: column for name, column in named.items() if name not in wanted}
    if not wanted:
        raise SchemaError(
            "there is no column of vectors: of lists of one length, or of arrays",
            str(path),
            hint=f"there are: {listed([f'{field.name} ({field.type})' for field in schema])}",
        )
    sites = [
        _site(schema.field(name), site, lengths, path)
        for name, site in wanted.items()
        if (lengths := lists.get(name, ())) is not None  # None: without rows nobody knows, and nothing is lost
    ]
    if texts := [site.field for site in sites if site.dtype == TEXT]:
        raise SchemaError(
            f"the column {texts[0]!r} has lists of texts, which are no vectors", str(path), hint="name it in columns="
        )
    inner = [
        _site(schema.field(name), column, lengths, path)
        for name, column in columns.items()
        if (lengths := lists.get(name))
    ]
    single = {name: column for name, column in columns.items() if name not in lists}
    for name in single:
        _check_single(schema.field(name), path)
    return Plan(tuple(sites), tuple(inner), single, schema)


def _per_position(schema: Any, lists: dict[str, Any]) -> dict[str, str]:
    """Lists as long as the arrays [positions, d] beside them, and not of floats: token ids, and texts."""
    import pyarrow as pa

    long = {lengths[0] for lengths in lists.values() if lengths and len(lengths) == 2}
    return {
        name: name
        for name, lengths in lists.items()
        if lengths
        and len(lengths) == 1
        and lengths[0] in long
        and not pa.types.is_floating(_leaf(schema.field(name).type))
    }


def _storage(kind: Any) -> Any:
    return kind.storage_type if hasattr(kind, "storage_type") else kind


def _inner(kind: Any) -> Any:
    """The type of a list's items; None if it is no list."""
    import pyarrow as pa

    kind = _storage(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.value_type if is_list else None


def _depth(kind: Any) -> int:
    inner = _inner(kind)
    return 0 if inner is None else 1 + _depth(inner)


def _leaf(kind: Any) -> Any:
    inner = _inner(kind)
    return _storage(kind) if inner is None else _leaf(inner)


def _lengths(field: Any, first: Any, path: Path) -> tuple[int, ...] | None:
    """How long the lists of a field are, from the outermost in; None if there is none to see it from."""
    import pyarrow as pa

    kind, lengths = _storage(field.type), []
    array = None if first is None else plain(first.column(field.name)).drop_null()
    while _inner(kind) is not None:
        if pa.types.is_fixed_size_list(kind):
            lengths.append(kind.list_size)
        elif array is not None and len(array):
            lengths.append(len(array[0].as_py()) if array[0].is_valid else 0)
        else:
            return None
        array = None if array is None or not len(array) else plain(array[0].values)
        kind = _storage(_inner(kind))
    if not all(lengths):
        raise SchemaError(
            f"the lists of the column {field.name!r} are empty", str(path), hint="leave it out with sites="
        )
    return tuple(lengths)


def _site(field: Any, name: str, lengths: tuple[int, ...], path: Path) -> Vectors:
    import pyarrow as pa

    leaf, metadata = _leaf(field.type), field.metadata or {}
    if not lengths or not (pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)):
        if pa.types.is_string(leaf) or pa.types.is_large_string(leaf):
            return Vectors(field.name, name, TEXT, lengths, lengths)
        if lengths or not pa.types.is_primitive(leaf):
            raise SchemaError(
                f"the column {field.name!r} has the type {field.type}, which is no vector of numbers",
                str(path),
                hint="choose others with sites= and columns=",
            )
    dtype = NAMES.get(np.dtype(leaf.to_pandas_dtype()), str(leaf))
    shape = lengths
    try:
        said = metadata.get(DTYPE, b"").decode()
        if said and numpy_dtype(said).itemsize == numpy_dtype(dtype).itemsize:
            dtype = said
        given = tuple(int(length) for length in json.loads(metadata.get(SHAPE, b"null")) or lengths)
        shape = given if prod(given) == prod(lengths) else lengths
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # somebody else's metadata under our name: the type itself tells enough
    if field.name not in RESERVED_ORDER:
        check_row_dtype(dtype, f"the column {field.name!r}", path)
    return Vectors(field.name, name, dtype, shape, lengths)


def _check_single(field: Any, path: Path) -> None:
    import pyarrow as pa

    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    tests = ("integer", "floating", "boolean", "string", "large_string", "string_view", "null", "timestamp")
    if not any(getattr(pa.types, f"is_{test}")(kind) for test in tests):
        raise SchemaError(
            f"the column {field.name!r} has the type {field.type}, which a run cannot hold",
            str(path),
            hint="say with columns= which ones to take",
        )


def damaged(path: Path, error: Exception) -> DamagedError:
    """The error for a file that Arrow cannot read."""
    return DamagedError(f"cannot be read: {str(error).splitlines()[0] if str(error) else error!r}", str(path))
