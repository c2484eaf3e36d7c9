"""What arrives: tables of sites and columns, in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lamina.errors import SchemaError
from lamina.interchange.choice import NEVER, Choice
from lamina.interchange.tensors import Tensor, as_stored, check_row_dtype, item_bytes

BLOCK_BYTES = 16 << 20
"""How many bytes of sites one block holds, if a single row is not larger."""


class Entries(Protocol):
    """Entries of a column, one a row."""

    def __getitem__(self, part: slice, /) -> Any:
        """Some of them; parts are asked for in order."""
        ...


class Block(NamedTuple):
    """Some rows: arrays or tensors by site, and by column arrays or lists of `rows` entries, or one for all."""

    rows: int
    sites: dict[str, Any]
    columns: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows that belong together.

    Attributes:
        parts: How many blocks there will be, about, for the progress bar; None if nobody knows.
        blocks: Begins to read them.
    """

    parts: int | None
    blocks: Callable[[], Iterator[Block]]


def tables_of(
    tensors: Mapping[str, Tensor],
    choice: Choice,
    path: Path,
    *,
    texts: Mapping[str, list[Any]] | None = None,
) -> list[Table]:
    """Divides the tensors of a file into tables: those with the same number of rows belong together.

    Args:
        tensors: By name.
        choice: Which are sites and columns. By default those are columns that bear the name of a reserved column.
        path: The file, for errors.
        texts: Columns that no tensor holds; by default they are columns, too.
    """
    texts = texts or {}
    known = [*tensors, *texts]
    columns = choice.columns_among(known)
    columns = choice.keys_among(known) | {name: name for name in texts} if columns is None else columns
    sites = choice.sites_among(list(tensors))
    if sites is None:
        sites = {name: name for name in tensors if name not in columns and name not in NEVER}
    columns = {name: column for name, column in columns.items() if name not in sites}
    if not sites:
        raise SchemaError("there is no tensor to make a site of", str(path), hint=f"there are: {listed(known)}")
    for name in sites:
        if not tensors[name].shape:
            raise SchemaError(f"{name!r} is a single number and has no rows", str(path), hint="choose with sites=")
        check_row_dtype(tensors[name].dtype, repr(name), path)
    lengths = {name: len(texts[name]) if name in texts else (*tensors[name].shape, 0)[0] for name in columns}
    by_rows: dict[int, dict[str, Tensor]] = {}
    for name, site in sites.items():
        by_rows.setdefault(tensors[name].shape[0], {})[site] = tensors[name]
    for name, rows in lengths.items():
        if rows not in by_rows:
            expected = " or ".join(f"{n:,}" for n in by_rows)
            raise SchemaError(f"the column {name!r} has {rows:,} entries, the sites have {expected} rows", str(path))
    return [
        table_of(
            rows,
            members,
            {columns[name]: tensors[name] for name in columns if name in tensors and lengths[name] == rows},
            {columns[name]: texts[name] for name in columns if name in texts and lengths[name] == rows},
        )
        for rows, members in by_rows.items()
    ]


def table_of(
    rows: int,
    sites: Mapping[str, Tensor],
    columns: Mapping[str, Tensor],
    lists: Mapping[str, Entries],
    alike: Mapping[str, Any] | None = None,
) -> Table:
    """The table of these sites and columns, `rows` entries each, and of columns that are alike in all rows."""
    step = max(1, BLOCK_BYTES // max(1, sum(map(item_bytes, sites.values()))))
    starts = range(0, max(rows, 1), step)  # without rows there is one block, which declares the sites

    def blocks() -> Iterator[Block]:
        for start in starts:
            stop = min(start + step, rows)
            yield Block(
                stop - start,
                {name: as_stored(tensor.read(start, stop), tensor.dtype) for name, tensor in sites.items()},
                {name: as_stored(tensor.read(start, stop), tensor.dtype) for name, tensor in columns.items()}
                | {name: values[start:stop] for name, values in lists.items()}
                | {name: value for name, value in (alike or {}).items() if value is not None},
            )

    return Table(len(starts), blocks)


def listed(names: Sequence[str], most: int = 12) -> str:
    """The names for a hint, not all if there are many."""
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"
