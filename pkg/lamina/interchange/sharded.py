"""Weights in safetensors files: one, several with an index, or several whose names say which of how many each is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.errors import DamagedError, SchemaError
from lamina.interchange.header import read_header
from lamina.interchange.tensors import FileTensor, cannot_read

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})$")


def of_safetensors(paths: list[Path]) -> dict[str, FileTensor]:
    """The tensors of the files.

    Raises:
        SchemaError: A tensor of a dtype that checkpoints do not hold.
        DamagedError: A file is none, or was cut short, or two files hold a tensor of one name.
    """
    found: dict[str, FileTensor] = {}
    for path in paths:
        tensors, unknown, _ = read_header(path)
        for name, spelled in unknown.items():
            raise SchemaError(f"{name!r} has the dtype {spelled}, which checkpoints cannot hold", str(path))
        for name in tensors.keys() & found.keys():
            raise DamagedError(f"{name!r} is in {found[name].path.name} too", str(path))
        found |= tensors
    return found


def of_index(path: Path) -> dict[str, FileTensor]:
    """The tensors that a `….safetensors.index.json` names, in its order."""
    files = files_of_index(path)
    tensors = of_safetensors(sorted({*files.values()}))
    for name, file in files.items():
        if name not in tensors or tensors[name].path != file:
            raise DamagedError(f"{name!r} is not in it, although {path.name} says so", str(file))
    return {name: tensors[name] for name in files}


def files_of_index(path: Path) -> dict[str, Path]:
    """The file of each tensor.

    Raises:
        DamagedError: It is no index, or names a file elsewhere.
    """
    named = read_json(path)
    weights = named.get("weight_map") if isinstance(named, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise DamagedError("no index of weights: it has no weight_map", str(path))
    for file in weights.values():
        if not isinstance(file, str) or Path(file).name != file or file.startswith("."):
            raise DamagedError(f"the index names a file {file!r}, which is not beside it", str(path))
    return {str(name): path.with_name(file) for name, file in weights.items()}


def numbered_shards(paths: list[Path]) -> list[Path] | None:
    """The files if their names say that they are all shards of one thing; None if the names are others.

    Raises:
        DamagedError: One of them is missing.
    """
    matches = [_SHARD.match(path.stem) for path in paths]
    names = {(match[1], int(match[3])) for match in matches if match}
    if len(names) != 1 or not all(matches):
        return None
    ((name, count),) = names
    there = {int(match[2]) for match in matches if match}
    if missing := sorted({*range(1, count + 1)} - there):
        raise DamagedError(f"shard {missing[0]} of {count} of {name} is missing", str(paths[0].parent))
    return sorted(paths)


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"no JSON: {error}", str(path)) from error
