"""Parquet: files of other programs, row group by row group."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.errors import SchemaError, StorageError
from lamina.extras import need
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.arrow import EXTRA, Plan, damaged, plan_of
from lamina.interchange.blocks import Block, Table
from lamina.interchange.choice import Choice, Names
from lamina.interchange.tensors import cannot_read
from lamina.paths import path_of


def from_parquet(
    run: Target,
    path: str | Path,
    *,
    sites: Names = None,
    columns: Names = None,
    example: str | None = None,
    position: str | None = None,
    step: int = 0,
    source: str | None = "capture",
    progress: bool = True,
) -> int:
    """Imports Parquet: columns of vectors become sites, columns of single values metadata.

    Vectors are lists of one length, fixed-size lists, or arrays of these: rows [T, d] become T rows with `position`
    filled, and a list of T integers or texts beside them a column with an entry for each. A row where a vector is
    null does not have that site.

    Args:
        run: As in `from_npy`.
        path: A file, a folder (all `.parquet` files below it) or a pattern; several are read in order of their names.
        sites: Which columns are sites: globs, or a mapping from their names to those of the sites; by default all of
            vectors. A column of single numbers may be named, too.
        columns: Which are metadata, likewise; by default all others, less `row`.
        example: The name of the column that says which example a row is of, if it is not called so.
        position: The name of the one that says at which position.
        step: The step of rows, if no column `step` says it.
        source: Their source, if no column `source` says it; None for none.
        progress: False shows no bar.

    Returns:
        The number of rows.

    Raises:
        NotFoundError: There is no column of a name that was given; the hint lists the nearest.
        SchemaError: No vectors, lists of different lengths, or a column of a type that a run cannot hold.
        DamagedError: A file is cut short, or no Parquet.
        MissingExtraError: pyarrow is not installed; the extra `interchange` has it.

    Cost:
        One pass over the columns that are taken, in blocks of 16 MiB; of a row group no more than a block is decoded.

    Example:
        >>> import lamina, polars as pl, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> frame = pl.DataFrame({"doc": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
        >>> frame.write_parquet(folder + "/a.parquet")
        >>> lamina.interchange.from_parquet(folder + "/run", folder + "/a.parquet", example="doc")
        2
        >>> lamina.open(folder + "/run").rows("vector").metadata(["example"])["example"].to_list()
        ['a', 'b']
    """
    need("pyarrow.parquet", extra=EXTRA)
    files = _files(path)
    table = _table(files, Choice(sites, columns, example, position))
    return arrive(run, [table], step=step, source=source, what=path_of(path).name, progress=progress)


def _files(path: str | Path) -> list[Path]:
    place = path_of(path)
    if place.is_dir():
        found = sorted(file for file in place.rglob("*.parquet") if not file.name.startswith((".", "_")))
    elif place.exists():
        found = [place]
    else:
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - the pattern may be absolute
    if not found:
        raise StorageError(f"{path} names no Parquet file", str(path))
    return found


def _table(files: list[Path], choice: Choice) -> Table:
    opened = [_open(file) for file in files]
    first = next((_first(file, path) for file, path in zip(opened, files, strict=True) if file.metadata.num_rows), None)
    plan = plan_of(opened[0].schema_arrow, first, choice, files[0])
    for file, path in zip(opened, files, strict=True):
        check_alike(plan, file.schema_arrow, path)
    rows = [file.metadata.num_rows for file in opened]
    for file in opened:
        file.close()

    def blocks() -> Iterator[Block]:
        for path in files:
            yield from _blocks(plan, path)

    return Table(sum(-(-count // plan.block_rows) for count in rows), blocks)


def _blocks(plan: Plan, path: Path) -> Iterator[Block]:
    import pyarrow as pa

    at = 0
    with _open(path) as file:
        try:
            if not file.metadata.num_rows:
                yield from plan.blocks(pa.RecordBatch.from_pylist([], plan.schema).select(plan.fields), path, 0)
            for batch in file.iter_batches(plan.block_rows, columns=plan.fields):
                yield from plan.blocks(batch, path, at)
                at += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
    except FileNotFoundError as error:
        raise cannot_read(path, error) from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def _first(file: Any, path: Path) -> Any:
    import pyarrow as pa

    try:
        return next(file.iter_batches(1))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def check_alike(plan: Plan, schema: Any, path: Path) -> None:
    """Raise SchemaError if a file has other columns than the first."""
    for name in plan.fields:
        expected = plan.schema.field(name).type
        found = schema.field(name).type if name in schema.names else None
        if found != expected:
            raise SchemaError(
                f"the column {name!r} is {'missing' if found is None else found}, in the first file it is {expected}",
                str(path),
                hint="import files of different kinds one by one",
            )
