"""Folders that Hugging Face `datasets` saved: Arrow streams, and JSON that says which. The package is not needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.errors import DamagedError, SchemaError, StorageError
from lamina.extras import need
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.arrow import EXTRA, Plan, damaged, plan_of
from lamina.interchange.blocks import Block, Table
from lamina.interchange.choice import Choice, Names
from lamina.interchange.parquet import check_alike
from lamina.interchange.tensors import cannot_read
from lamina.paths import path_of


def from_datasets(
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
    """Imports what `datasets` saved with `save_to_disk`: a dataset, a dict of them, or a cache of activations.

    What becomes a site and what a column is as in `from_parquet`; arrays [context, d] become rows with `position`
    filled, token ids beside them a column. The splits of a dict get a column `split`.

    Args:
        run: As in `from_npy`.
        path: The folder, one with several such folders below it (shards), or one `.arrow` file.
        sites: As in `from_parquet`.
        columns: As in `from_parquet`.
        example: As in `from_parquet`.
        position: As in `from_parquet`.
        step: As in `from_parquet`.
        source: As in `from_parquet`.
        progress: False shows no bar.

    Returns:
        The number of rows.

    Raises:
        NotFoundError: There is no column of a name that was given; the hint lists the nearest.
        SchemaError: As in `from_parquet`.
        DamagedError: A file is missing, cut short, or no Arrow.
        MissingExtraError: pyarrow is not installed; the extra `interchange` has it.

    Cost:
        One pass. One record batch at a time is in memory: `datasets` writes 1,000 items in one, if not told otherwise.

    Example:
        >>> import lamina, tempfile, pyarrow as pa
        >>> folder = tempfile.mkdtemp()
        >>> table = pa.table({"vector": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]})
        >>> with pa.OSFile(folder + "/data-00000-of-00001.arrow", "wb") as file:
        ...     with pa.ipc.new_stream(file, table.schema) as stream:
        ...         stream.write_table(table)
        >>> lamina.interchange.from_datasets(folder + "/run", folder)
        2
    """
    need("pyarrow", extra=EXTRA)
    choice = Choice(sites, columns, example, position)
    # `datasets` writes no file where there are no rows
    tables = [_table(files, choice, split) for split, files in _splits(path_of(path)).items() if files]
    if not tables:
        raise SchemaError("the dataset holds no rows", str(path))
    return arrive(run, tables, step=step, source=source, what=path_of(path).name, progress=progress)


def _splits(path: Path) -> dict[str | None, list[Path]]:
    """The Arrow files by split; None where there are no splits."""
    if path.is_file():
        return {None: [path]}
    if not path.is_dir():
        raise StorageError(f"cannot read {path}: there is no such folder", str(path))
    if (path / "dataset_dict.json").exists():
        listed = _json(path / "dataset_dict.json").get("splits")
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DamagedError("it names no splits", str(path / "dataset_dict.json"))
        return {name: _files(path / _inside(name, path)) for name in listed}
    return {None: _files(path)}


def _files(path: Path) -> list[Path]:
    """The Arrow files of one dataset in their order, or those of all datasets right below."""
    if (state := path / "state.json").exists():
        about = _json(state)
        if about.get("_indices_data_files") or about.get("_indices_files"):
            raise SchemaError(
                "the dataset is a selection of another", str(path), hint="call flatten_indices() before saving"
            )
        try:
            return [path / _inside(entry["filename"], path) for entry in about["_data_files"]]
        except (KeyError, TypeError) as error:
            raise DamagedError("it names no data files", str(state)) from error
    files = sorted(path.glob("*.arrow")) or [
        file for inner in sorted(path.iterdir()) if (inner / "state.json").exists() for file in _files(inner)
    ]
    if not files:
        raise StorageError(f"{path} holds no Arrow file", str(path), hint="give a folder that save_to_disk wrote")
    return files


def _inside(name: Any, path: Path) -> str:
    """A name that a file gave, if it does not lead out of the folder."""
    if not isinstance(name, str) or Path(name).name != name:
        raise DamagedError(f"the dataset names the file {name!r}, which does not lie in it", str(path))
    return name


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"it is no JSON: {error}", str(path)) from error
    if not isinstance(value, dict):
        raise DamagedError("it holds no JSON object", str(path))
    return value


def _table(files: list[Path], choice: Choice, split: str | None) -> Table:
    schema, first = None, None
    for path in files:
        found, first = next(_batches(path))
        schema = found if schema is None else schema
        if first is not None and first.num_rows:
            break
    plan = plan_of(schema, first, choice, files[0])
    del first  # a batch may be large
    alike = {} if split is None else {"split": split}

    def blocks() -> Iterator[Block]:
        for path in files:
            for block in _blocks(plan, path):
                yield block._replace(columns=block.columns | alike)

    return Table(None, blocks)


def _blocks(plan: Plan, path: Path) -> Iterator[Block]:
    at = 0
    for schema, batch in _batches(path):
        if not at:
            check_alike(plan, schema, path)
        if batch is not None:
            yield from plan.blocks(batch.select(plan.fields), path, at)
            at += batch.num_rows


def _batches(path: Path) -> Iterator[tuple[Any, Any]]:
    """The schema and each record batch of a file; None for the batch of a file that has none."""
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as file:
            magic = file.read(6)
            file.seek(0)
            if magic == b"ARROW1":
                reader = pa.ipc.open_file(file)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                batches = reader = pa.ipc.open_stream(file)
            none = True
            for batch in batches:
                none = False
                yield reader.schema, batch
            if none:
                yield reader.schema, None
    except FileNotFoundError as error:
        raise cannot_read(path, error) from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
