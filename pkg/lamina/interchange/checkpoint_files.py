"""One checkpoint in a file, or in a folder as Hugging Face lays it out: its parts by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.errors import LaminaWarning, NotFoundError, SchemaError
from lamina.interchange import lightning_parts
from lamina.interchange.checkpoint_parts import ArrivingPart, of_files, of_state
from lamina.interchange.sharded import files_of_index, numbered_shards, of_index, of_safetensors, read_json
from lamina.interchange.torch_files import ENDINGS, load_torch
from lamina.runs import globs
from lamina.runs.nearest import nearest_names

Parts = str | list[str] | tuple[str, ...] | Mapping[str, str] | None

MODEL = "model"
JSON = ("config", "generation_config", "trainer_state")
"""Files of a folder whose JSON is a part of its own."""
_WEIGHTS = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model", "consolidated")
_UNTRUSTED = "training_args.bin"
"""A pickle of an object, which is never opened."""


def parts_of(path: Path, wanted: Parts) -> dict[str, ArrivingPart]:
    """The parts of a checkpoint that are wanted, under the names that they are to have.

    Args:
        path: The file or folder.
        wanted: Globs; or a mapping to new names, from those of parts or of entries of a file of `torch.save`.

    Raises:
        NotFoundError: There is no such part.
        SchemaError: There is no checkpoint, or one that holds other things than tensors and plain values.
    """
    return _of_folder(path, wanted) if path.is_dir() else _of_file(path, wanted)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds the weights of one model."""
    return _weights(folder) is not None


def _of_file(path: Path, wanted: Parts) -> dict[str, ArrivingPart]:
    if path.name.endswith(".index.json"):
        return _chosen({MODEL: path}, wanted, path, _part)
    if path.suffix == ".safetensors":
        return _chosen({MODEL: [path]}, wanted, path, _part)
    if path.suffix not in ENDINGS:
        endings = ", ".join((".safetensors", *ENDINGS))
        raise SchemaError(f"{path.name} has no ending of a checkpoint", str(path), hint=f"known are {endings}")
    state = load_torch(path)
    states = lightning_parts.split(state) if lightning_parts.is_checkpoint(state) else {MODEL: state}
    if isinstance(wanted, Mapping) and isinstance(state, Mapping):
        states |= {key: value for key, value in state.items() if key in wanted}
    return _chosen(states, wanted, path, of_state)


def _of_folder(folder: Path, wanted: Parts) -> dict[str, ArrivingPart]:
    weights = _weights(folder)
    found: dict[str, Any] = {} if weights is None else {MODEL: weights}
    taken = {MODEL} if weights is None else {MODEL, *_WEIGHTS}
    for file in sorted(folder.iterdir()):
        name = file.stem
        beside = file.suffix in ENDINGS and file.name != _UNTRUSTED and name not in taken and "-of-" not in name
        if beside or (file.suffix == ".json" and name in JSON):
            found[name] = file
    if not found:
        raise SchemaError("the folder holds no checkpoint that is known", str(folder), hint="see docs/checkpoints.md")
    parts: dict[str, ArrivingPart] = {}
    for name, source in _named(found, wanted, folder).items():
        try:
            parts[name] = _part(source)
        except SchemaError as error:
            # weights that cannot come in are an error; so is a part that was asked for
            if wanted is not None or name == MODEL:
                raise
            warnings.warn(f"{folder.name}: the part {name!r} is left out: {error}", LaminaWarning, stacklevel=6)
    return parts


def _part(source: Path | list[Path]) -> ArrivingPart:
    if isinstance(source, list):
        if source[0].suffix == ".safetensors":
            return of_files(of_safetensors(source))
        return of_state({name: tensor for path in source for name, tensor in load_torch(path).items()})
    if source.name.endswith(".safetensors.index.json"):
        return of_files(of_index(source))
    if source.name.endswith(".index.json"):
        return _part(sorted({*files_of_index(source).values()}))
    return of_state(read_json(source) if source.suffix == ".json" else load_torch(source))


def _weights(folder: Path) -> Path | list[Path] | None:
    """Where the weights of a folder are: an index, or files."""
    for ending in (".safetensors", ".bin"):
        for name in _WEIGHTS:
            if (index := folder / f"{name}{ending}.index.json").is_file():
                return index
            if (file := folder / f"{name}{ending}").is_file():
                return [file]
    files = sorted(folder.glob("*.safetensors"))
    return numbered_shards(files) or (files if len(files) == 1 else None)


def _named(found: Mapping[str, Any], wanted: Parts, path: Path) -> dict[str, Any]:
    if wanted is None:
        return dict(found)
    if not isinstance(wanted, Mapping):
        return {name: found[name] for name in globs.select(wanted, list(found), what="part")}
    for name in wanted:
        if name not in found:
            raise NotFoundError(f"{path.name} has no part {name!r}", str(path), hint=nearest_names(name, list(found)))
    return {new: found[name] for name, new in wanted.items()}


def _chosen(found: Mapping[str, Any], wanted: Parts, path: Path, make: Any) -> dict[str, ArrivingPart]:
    return {name: make(one) for name, one in _named(found, wanted, path).items()}
