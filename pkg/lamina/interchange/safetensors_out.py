"""A run's rows as safetensors files that any other program reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.interchange.columns import as_tensors
from lamina.interchange.drafts import check_free, drafted
from lamina.interchange.header import make_header
from lamina.interchange.leaving import Leaving, about, count_rows, leaving, share_rows
from lamina.interchange.tensors import NAMES, numpy_dtype
from lamina.paths import path_of
from lamina.progress import track

if TYPE_CHECKING:
    from lamina.runs import Run
    from lamina.runs.steps import Steps


def to_safetensors(
    run: Run,
    path: str | Path,
    *,
    sites: str | Sequence[str] | None = None,
    step: Steps = None,
    source: str | Sequence[str] | None = None,
    where: pl.Expr | None = None,
    shard_bytes: int | None = None,
    progress: bool = True,
) -> int:
    """Exports sites as tensors `<site>` of the stored dtype, [n, d] (or [n], or [n, *shape of an item]).

    Metadata are tensors `.meta/<column>`, one entry a row, or `<site>/.meta/<column>` where the sites have different
    rows. Texts are `.meta/<column>/.bytes` (UTF-8) and `.meta/<column>/.offsets` (where each begins, and the last
    ends); where some rows have no value, `.meta/<column>/.valid` says which have one. `.meta/row` holds the rows'
    permanent names. The header names the run, the steps, the sites and the columns' types.

    Args:
        run: The run.
        path: The file to be; with `shard_bytes` a folder. Nothing is overwritten, and it appears when it is whole and
            synced to the disk.
        sites: Globs or names; all by default.
        step: A step, several, or a slice of steps.
        source: A source, or several; all by default.
        where: A Polars expression over the metadata columns.
        shard_bytes: About the size of one file; the folder then holds `00000-of-00003.safetensors` with the first rows
            of every site, and so on.
        progress: False shows no bar.

    Returns:
        The number of rows, each counted once.

    Raises:
        NotFoundError: There is no such site, step or column; the hint lists the nearest.
        StorageError: The path exists, or the file system refuses.

    Cost:
        One pass over the vectors in blocks of 16 MiB, and the metadata of the rows in memory.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> from safetensors.numpy import load_file
        >>> folder = tempfile.mkdtemp()
        >>> run = lamina.Run.create(folder + "/run")
        >>> with run.writer() as writer:
        ...     ticket = writer.append({"mlp.output": np.ones((3, 2), np.float32)}, step=5, example=[7, 8, 9])
        >>> lamina.interchange.to_safetensors(run.refresh(), folder + "/mlp.safetensors")
        3
        >>> found = load_file(folder + "/mlp.safetensors")
        >>> found["mlp.output"].shape, found[".meta/example"].tolist(), found[".meta/step"].tolist()
        ((3, 2), [7, 8, 9], [5, 5, 5])
    """
    path = path_of(path)
    check_free(path)
    if shard_bytes is not None and shard_bytes < 1:
        raise SchemaError(f"shard_bytes={shard_bytes}", hint="give a size in bytes, such as 1 << 30")
    members = leaving(run, sites, step, source, where)
    total = sum(len(member) * member.row_bytes for member in members)
    count = 1 if shard_bytes is None else max(1, -(-total // shard_bytes))
    with drafted(path, folder=shard_bytes is not None) as draft:
        names = [f"{number:05}-of-{count:05}.safetensors" for number in range(count)]
        files = [draft] if shard_bytes is None else [draft / name for name in names]
        blocks = sum(len(range(0, len(member), member.block_rows())) for member in members)
        for _ in track(_written(run, members, files), f"exporting {run.name}", blocks, progress):
            pass
    return count_rows(members)


class _Tensor(NamedTuple):
    """A tensor of a file: rows of a site, or an array in memory."""

    dtype: str
    shape: tuple[int, ...]
    site: Leaving | None
    start: int
    values: np.ndarray | None

    def blocks(self) -> Iterator[np.ndarray]:
        if self.site is not None:
            yield from self.site.blocks(self.start, self.start + self.shape[0])
        elif self.values is not None:
            yield self.values


def _written(run: Run, members: list[Leaving], files: list[Path]) -> Iterator[None]:
    """Write the files, and yield whenever a block of a site is written."""
    shared = share_rows(members)
    described = about(run, members)
    for number, path in enumerate(files):
        tensors = _tensors(members, number, len(files), shared)
        with path.open("xb") as file:
            file.write(make_header({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}, described))
            for tensor in tensors.values():
                for block in tensor.blocks():
                    file.write(np.ascontiguousarray(block).data)
                    if tensor.site is not None:
                        yield


def _tensors(members: list[Leaving], number: int, count: int, shared: bool) -> dict[str, _Tensor]:
    """The tensors of one file of several, in falling element size, so that all are aligned."""
    found: dict[str, _Tensor] = {}
    for index, member in enumerate(members):
        start, stop = (len(member) * at // count for at in (number, number + 1))
        found[member.site] = _Tensor(member.dtype, (stop - start, *member.shape), member, start, None)
        if shared and index:
            continue
        for column, values in member.metadata.slice(start, stop - start).to_dict(as_series=True).items():
            prefix = ".meta/" if shared else f"{member.site}/.meta/"
            for name, array in as_tensors(column, values).items():
                found[prefix + name] = _Tensor(NAMES[array.dtype], array.shape, None, 0, array)
    return dict(sorted(found.items(), key=lambda item: -numpy_dtype(item[1].dtype).itemsize))
