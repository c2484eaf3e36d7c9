"""safetensors files: any, those that Lamina exports, and the sealed segments of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lamina.errors import DamagedError, StorageError
from lamina.interchange.arriving import Target, arrive
from lamina.interchange.blocks import Table, table_of, tables_of
from lamina.interchange.choice import Choice, Names
from lamina.interchange.columns import StoredColumn
from lamina.interchange.header import read_header
from lamina.interchange.segments import Group, groups_of
from lamina.interchange.tensors import FileTensor, check_row_dtype
from lamina.paths import path_of

_META = ".meta/"


def from_safetensors(
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
    """Imports the tensors of a safetensors file, or of a folder of them in the order of their names.

    Tensors with the same number of rows share their rows. Metadata that Lamina wrote (tensors `.meta/<column>`, in an
    export or in a segment of a run) come back as they were.

    Args:
        run: As in `from_npy`.
        path: The file or folder.
        sites: Which tensors are sites: globs, or a mapping from their names to those of the sites; by default all that
            are no columns.
        columns: Which are columns, likewise; by default those that are called like a reserved column.
        example: The name of the tensor that says which example a row is of, if it is not called so.
        position: The name of the one that says at which position.
        step: The step of rows that name none.
        source: The source of rows that name none; None for none.
        progress: False shows no bar.

    Returns:
        The number of rows.

    Raises:
        NotFoundError: There is no tensor of a name that was given; the hint lists the nearest.
        SchemaError: A tensor of a dtype that rows cannot have, or columns that do not fit.
        DamagedError: The file is cut short, or no safetensors file.

    Cost:
        One pass over the file, in blocks of 16 MiB.

    Example:
        >>> import lamina, tempfile, torch
        >>> from safetensors.torch import save_file
        >>> folder = tempfile.mkdtemp()
        >>> save_file({"mlp": torch.ones(6, 4), "doc": torch.arange(6) // 2}, folder + "/a.safetensors")
        >>> lamina.interchange.from_safetensors(folder + "/run", folder + "/a.safetensors", sites="mlp", example="doc")
        6
        >>> lamina.open(folder + "/run").rows("mlp").metadata(["example"])["example"].to_list()
        [0, 0, 1, 1, 2, 2]
    """
    path = path_of(path)
    choice = Choice(sites, columns, example, position)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise StorageError(f"{path} holds no .safetensors file", str(path))
    tables = [table for file in files for table in _tables(file, choice)]
    return arrive(run, tables, step=step, source=source, what=path.name, progress=progress)


def _tables(path: Path, choice: Choice) -> list[Table]:
    tensors, unknown, about = read_header(path)
    if ".table" in tensors and any("/" in name for name in tensors):
        return _segment(groups_of(tensors[".table"], path), choice, path)
    if any(name.startswith(_META) or f"/{_META}" in name for name in tensors):
        return _exported(tensors, about, choice, path)
    wanted = choice.sites_among([*tensors, *unknown])
    for name, spelled in unknown.items():
        if wanted is None or name in wanted:
            check_row_dtype(spelled, repr(name), path)
    return tables_of(tensors, choice, path)


def _segment(groups: list[Group], choice: Choice, path: Path) -> list[Table]:
    every = {name: name for group in groups for name in group.sites}
    wanted = choice.sites_among(every) or every
    known = dict.fromkeys(name for group in groups for name in (*group.columns, *group.constants))
    columns = _columns(choice, list(known))
    tables = []
    for group in groups:
        sites = {wanted[name]: tensor for name, tensor in group.sites.items() if name in wanted}
        if sites:
            of_group = {columns[name]: column for name, column in group.columns.items() if name in columns}
            alike = {columns[name]: value for name, value in group.constants.items() if name in columns}
            tables.append(_table(sites, of_group, path, alike))
    return tables


def _exported(tensors: dict[str, FileTensor], about: dict[str, str], choice: Choice, path: Path) -> list[Table]:
    """What `to_safetensors` wrote: `.meta/c` belongs to all sites, `a/.meta/c` to the site `a`."""
    meta = {name: tensor for name, tensor in tensors.items() if name.startswith(_META) or f"/{_META}" in name}
    every = [name for name in tensors if name not in meta]
    wanted = choice.sites_among(every) or {name: name for name in every}
    members = {f"{name}/": {name: site} for name, site in wanted.items()}
    if any(name.startswith(_META) for name in meta):
        members = {"": wanted}
    tables = []
    for prefix, sites in members.items():
        start = prefix + _META
        stored = _stored({name[len(start) :]: meta[name] for name in meta if name.startswith(start)}, about, path)
        columns = _columns(choice, list(stored))
        tensors_of_sites = {site: tensors[name] for name, site in sites.items()}
        tables.append(_table(tensors_of_sites, {columns[name]: stored[name] for name in columns}, path))
    return tables


def _columns(choice: Choice, known: list[str]) -> dict[str, str]:
    named = choice.columns_among(known)
    return {name: name for name in known} | choice.keys_among(known) if named is None else named


def _stored(tensors: dict[str, FileTensor], about: dict[str, str], path: Path) -> dict[str, StoredColumn]:
    try:
        types = dict(json.loads(about.get("columns", "{}")))
    except (ValueError, TypeError):
        types = {}
    parts: dict[str, dict[str, FileTensor]] = {}
    for name, tensor in tensors.items():
        stem, dot, part = name.rpartition("/.")
        inner = dot == "/." and part in ("valid", "offsets", "bytes")
        parts.setdefault(stem if inner else name, {})[part if inner else "values"] = tensor
    return {
        name: StoredColumn(name, path, time=types.get(name) == "time", **members) for name, members in parts.items()
    }


def _table(
    sites: dict[str, FileTensor], columns: dict[str, StoredColumn], path: Path, alike: dict[str, Any] | None = None
) -> Table:
    rows = {name: tensor.shape[0] if tensor.shape else 0 for name, tensor in sites.items()}
    rows |= {name: len(column) for name, column in columns.items()}
    if len(set(rows.values())) != 1:
        raise DamagedError(f"the tensors have different numbers of rows: {rows}", str(path))
    for name, tensor in sites.items():
        check_row_dtype(tensor.dtype, repr(name), path)
    return table_of(next(iter(rows.values())), sites, {}, columns, alike)
