"""A run's rows as a zarr hierarchy, version 3: plain chunks and JSON, which are written here without the package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.interchange.drafts import check_free, drafted
from lamina.interchange.leaving import Leaving, about, count_rows, leaving, share_rows
from lamina.interchange.tensors import BITS, numpy_dtype
from lamina.paths import path_of
from lamina.progress import track

if TYPE_CHECKING:
    from lamina.runs import Run
    from lamina.runs.steps import Steps


def to_zarr(
    run: Run,
    path: str | Path,
    *,
    sites: str | Sequence[str] | None = None,
    step: Steps = None,
    source: str | Sequence[str] | None = None,
    where: pl.Expr | None = None,
    progress: bool = True,
) -> int:
    """Exports sites as arrays of a zarr group, version 3, in chunks of whole rows of about 16 MiB, not compressed.

    An array is named by its site; `/` and `%` in a name are written `%2F` and `%25`, and the attribute `site` has the
    name itself. bf16 and f8 are the unsigned integers that hold their bits, with the dtype's name in the attribute
    `dtype`. Metadata are arrays in the group `.meta`, or `.meta/<site>` where the sites have different rows; where
    some rows have no value, the attribute `valid` names an array that says which have one. The group's attribute
    `lamina` names the run, the steps, the sites and the columns' types.

    Args:
        run: The run.
        path: The folder to be. Nothing is overwritten, and it appears when it is whole and synced to the disk.
        sites: Globs or names; all by default.
        step: A step, several, or a slice of steps.
        source: A source, or several; all by default.
        where: A Polars expression over the metadata columns.
        progress: False shows no bar.

    Returns:
        The number of rows, each counted once.

    Raises:
        NotFoundError: There is no such site, step or column; the hint lists the nearest.
        StorageError: The path exists, or the file system refuses.

    Cost:
        One pass over the vectors in blocks of 16 MiB, and the metadata of the rows in memory.

    Example:
        >>> import lamina, json, numpy as np, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = lamina.Run.create(folder / "run")
        >>> with run.writer() as writer:
        ...     ticket = writer.append({"mlp.output": np.ones((3, 2), np.float32)}, step=5, example=[7, 8, 9])
        >>> lamina.interchange.to_zarr(run.refresh(), folder / "mlp.zarr")
        3
        >>> json.loads((folder / "mlp.zarr/mlp.output/zarr.json").read_text())["shape"]
        [3, 2]
    """
    path = path_of(path)
    check_free(path)
    members = leaving(run, sites, step, source, where)
    blocks = sum(len(range(0, len(member), member.block_rows())) for member in members)
    with drafted(path, folder=True) as draft:
        for _ in track(_written(run, members, draft), f"exporting {run.name}", blocks, progress):
            pass
    return count_rows(members)


def _written(run: Run, members: list[Leaving], draft: Path) -> Iterator[None]:
    """Write everything, and yield whenever a chunk of a site is written."""
    described = {name: _loaded(text) for name, text in about(run, members).items()}
    _group(draft, {"lamina": described})
    _group(draft / ".meta", {})
    if share_rows(members):
        _metadata(draft / ".meta", members[0].metadata)
    for member in members:
        name = _node(member.site)
        if not share_rows(members):
            _group(draft / ".meta" / name, {})
            _metadata(draft / ".meta" / name, member.metadata)
        chunks = (block for block in member.blocks(0, len(member)))
        attributes = {"site": member.site} | ({"dtype": member.dtype} if member.dtype in BITS else {})
        shape = (len(member), *member.shape)
        yield from _array(draft / name, shape, numpy_dtype(member.dtype), member.block_rows(), chunks, attributes)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # the run's id


def _node(name: str) -> str:
    """The name of a node: no path, none of the names that zarr keeps to itself, and never that of the metadata."""
    quoted = name.replace("%", "%25").replace("/", "%2F")
    return f"%{ord(quoted[0]):X}{quoted[1:]}" if quoted.startswith((".", "__")) or quoted == "zarr.json" else quoted


def _group(path: Path, attributes: Mapping[str, Any]) -> None:
    path.mkdir(exist_ok=True)
    _json(path, {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})


def _json(path: Path, value: Mapping[str, Any]) -> None:
    (path / "zarr.json").write_text(json.dumps(value, indent=1))


def _metadata(path: Path, frame: pl.DataFrame) -> None:
    for column, values in frame.to_dict(as_series=True).items():
        name = _node(column)
        attributes: dict[str, Any] = {"column": column}
        if values.null_count():
            attributes["valid"] = f"{name}%valid"
            _whole(path / f"{name}%valid", values.is_not_null().to_numpy(), {})
        if values.dtype == pl.String:
            _texts(path / name, values, attributes)
            continue
        if values.dtype.is_temporal():
            values, attributes["unit"] = values.cast(pl.Int64), "microseconds since 1970-01-01, UTC"
        empty = False if values.dtype == pl.Boolean else 0
        _whole(path / name, values.fill_null(empty).to_numpy(), attributes)


def _whole(path: Path, values: np.ndarray, attributes: Mapping[str, Any]) -> None:
    """An array in one chunk."""
    for _ in _array(path, values.shape, values.dtype, max(1, len(values)), iter([values]), attributes):
        pass


def _array(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rows: int,
    chunks: Iterator[np.ndarray],
    attributes: Mapping[str, Any],
) -> Iterator[None]:
    """An array from its chunks of so many rows; the last is filled up with zeros, as zarr wants it."""
    codec = {"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1 else {"name": "bytes"}
    _describe(path, shape, dtype.name, (rows, *shape[1:]), codec, False if dtype.kind == "b" else 0, attributes)
    for number, chunk in enumerate(chunks):
        if not len(chunk):
            continue
        place = path / "c" / "/".join(map(str, (number, *(0 for _ in shape[1:]))))
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            file.write(np.ascontiguousarray(chunk).data)
            file.truncate(rows * dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)))
        yield


def _texts(path: Path, values: pl.Series, attributes: Mapping[str, Any]) -> None:
    """Texts in one chunk: how many, and for each its length and its UTF-8."""
    rows = max(1, len(values))
    _describe(path, (len(values),), "string", (rows,), {"name": "vlen-utf8"}, "", attributes)
    if len(values):
        (path / "c").mkdir()
        with (path / "c" / "0").open("xb") as file:
            file.write(rows.to_bytes(4, "little"))
            for text in values.fill_null(""):
                data = text.encode()
                file.write(len(data).to_bytes(4, "little") + data)


def _describe(
    path: Path,
    shape: tuple[int, ...],
    dtype: str,
    chunk: tuple[int, ...],
    codec: Mapping[str, Any],
    fill: Any,
    attributes: Mapping[str, Any],
) -> None:
    path.mkdir()
    described = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [codec],
        "dimension_names": ["row", *(None for _ in shape[1:])],
        "attributes": dict(attributes),
    }
    _json(path, described)
