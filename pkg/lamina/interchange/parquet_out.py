"""A run's rows as a wide Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.extras import need
from lamina.interchange.arrow import DTYPE, EXTRA, SHAPE
from lamina.interchange.drafts import check_free, drafted
from lamina.interchange.leaving import Leaving, about, leaving
from lamina.interchange.tensors import BITS, prod
from lamina.paths import path_of
from lamina.progress import track

if TYPE_CHECKING:
    from lamina.runs import Run
    from lamina.runs.steps import Steps


def to_parquet(
    run: Run,
    path: str | Path,
    *,
    sites: str | Sequence[str] | None = None,
    step: Steps = None,
    source: str | Sequence[str] | None = None,
    where: pl.Expr | None = None,
    bits: bool = False,
    group_bytes: int = 32 << 20,
    progress: bool = True,
) -> int:
    """Exports the wide frame: `row`, the metadata columns, then a column a site, null where a row does not have it.

    Vectors are fixed-size lists, flattened if an item has a shape. bf16 and f8 become float32, exactly, or with
    `bits` the integers that hold their bits; the fields' metadata then say so, and `from_parquet` restores them.

    Args:
        run: The run.
        path: The file to be. Nothing is overwritten, and it appears when it is whole and synced to the disk.
        sites: Globs or names; all by default.
        step: A step, several, or a slice of steps.
        source: A source, or several; all by default.
        where: A Polars expression over the metadata columns.
        bits: Keep the bits of bf16 and f8.
        group_bytes: About how many bytes of vectors a row group holds.
        progress: False shows no bar.

    Returns:
        The number of rows.

    Raises:
        NotFoundError: There is no such site, step or column; the hint lists the nearest.
        StorageError: The path exists, or the file system refuses.
        MissingExtraError: pyarrow is not installed; the extra `interchange` has it.

    Cost:
        One pass over the vectors; in memory about six times `group_bytes`, and the metadata of the rows some times over
        (measured: 40 to 70 MiB for 400,000 rows of five columns). Vectors are not compressed:
        it rarely pays, and they are then written as fast as the disk takes them.

    Example:
        >>> import lamina, numpy as np, polars as pl, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> run = lamina.Run.create(folder + "/run")
        >>> with run.writer() as writer:
        ...     ticket = writer.append({"mlp.output": np.ones((3, 2), np.float32)}, step=5, example=[7, 8, 9])
        >>> lamina.interchange.to_parquet(run.refresh(), folder + "/mlp.parquet", where=pl.col("example") > 7)
        2
        >>> pl.read_parquet(folder + "/mlp.parquet").select("step", "example", "mlp.output").rows()
        [(5, 8, [1.0, 1.0]), (5, 9, [1.0, 1.0])]
    """
    need("pyarrow.parquet", extra=EXTRA)
    path = path_of(path)
    check_free(path)
    if group_bytes < 1:
        raise SchemaError(f"group_bytes={group_bytes}", hint="give a size in bytes, such as 32 << 20")
    members = leaving(run, sites, step, source, where)
    table = _Wide(members, bits)
    rows = max(1, group_bytes // max(1, sum(member.row_bytes for member in members)))
    with drafted(path, folder=False) as draft:
        groups = table.groups(rows)
        _write(draft, table, about(run, members), track(groups, f"exporting {run.name}", table.parts(rows), progress))
    return table.metadata.height


class _Wide:
    """The rows of all sites together, in order of their names."""

    def __init__(self, members: list[Leaving], bits: bool) -> None:
        self._members = members
        self._bits = bits
        self._orders = [np.argsort(member.ids, kind="stable") for member in members]
        frames = [member.metadata for member in members]
        whole = frames[0] if _alike(members) else pl.concat(frames, how="diagonal").unique("row", keep="any")
        self.metadata = whole.sort("row")

    def parts(self, rows: int) -> int:
        return -(-self.metadata.height // rows)

    def groups(self, rows: int) -> Iterator[Any]:
        """Arrow tables of at most so many rows."""
        for start in range(0, self.metadata.height, rows):
            yield self.group(start, min(start + rows, self.metadata.height))

    def group(self, start: int, stop: int) -> Any:
        """An Arrow table of these rows."""
        import pyarrow as pa

        metadata = self.metadata.slice(start, stop - start)
        table = metadata.to_arrow(compat_level=pl.CompatLevel.oldest())
        names = metadata["row"].to_numpy()
        for member, order in zip(self._members, self._orders, strict=True):
            ids = member.ids[order]
            at = np.searchsorted(ids, names)
            there = np.append(ids, np.int64(-1))[np.minimum(at, ids.size)] == names
            values = self._values(member, order[at[there]])
            spread = values
            if not there.all():
                spread = np.zeros((names.size, *values.shape[1:]), values.dtype)
                spread[there] = values
            array = pa.array(spread.reshape(-1))
            mask = None if there.all() else pa.array(~there)
            if member.shape:
                width = prod(member.shape)
                array = pa.FixedSizeListArray.from_arrays(array, type=pa.list_(array.type, width), mask=mask)
            elif mask is not None:
                array = pa.array(spread, mask=~there)
            table = table.append_column(self._field(member, array.type), array)
        return table

    def _values(self, member: Leaving, positions: np.ndarray) -> np.ndarray:
        """Rows as [k, d], or as [k] where an item is a single number."""
        if member.dtype in BITS and not self._bits:
            values = member.gather_tensor(positions).float().numpy()
        else:
            values = member.gather(positions)
        return values.reshape(positions.size, prod(member.shape)) if member.shape else values.reshape(-1)

    def _field(self, member: Leaving, kind: Any) -> Any:
        import pyarrow as pa

        said: dict[bytes | str, bytes | str] = {SHAPE: json.dumps(member.shape)} if len(member.shape) != 1 else {}
        if member.dtype in BITS and self._bits:
            said[DTYPE] = member.dtype
        return pa.field(member.site, kind, metadata=said or None)


def _alike(members: list[Leaving]) -> bool:
    return all(np.array_equal(members[0].ids, member.ids) for member in members[1:])


def _write(draft: Path, table: _Wide, described: dict[str, str], groups: Iterator[Any]) -> None:
    import pyarrow.parquet as pq

    schema = table.group(0, 0).schema
    said = {f"lamina.{name}" if name != "lamina" else name: text for name, text in described.items()}
    columns = table.metadata.columns
    sites = [name for name in schema.names if name not in columns]
    vectors = [place for name in sites for place in (name, f"{name}.list.element")]
    options: dict[str, Any] = {
        "compression": dict.fromkeys(columns, "zstd") | dict.fromkeys(vectors, "none"),
        "use_dictionary": columns,
        "write_statistics": columns,
    }
    with pq.ParquetWriter(draft, schema.with_metadata(said), **options) as writer:
        for group in groups:
            writer.write_table(group.replace_schema_metadata(said), row_group_size=max(1, group.num_rows))
