"""A state's tensors as safetensors files: one, or shards with an index as Hugging Face has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lamina.errors import SchemaError
from lamina.interchange.checkpoint_parts import Piecewise, blocks_of_bytes
from lamina.interchange.header import make_header
from lamina.interchange.tensors import numpy_dtype, prod
from lamina.runs.buffers import flatten


def named_tensors(state: Any, part: str) -> dict[str, Piecewise]:
    """The tensors by their dotted names, in falling element size, so that all are aligned.

    Raises:
        SchemaError: The state holds anything else, or two tensors of one name.
    """
    found: dict[str, Piecewise] = {}
    for name, value in _walk(state, "", part):
        if name in found:
            raise SchemaError(f"two tensors of the part {part!r} are called {name!r}", hint="export it to a .pt file")
        if isinstance(value, Piecewise):
            found[name] = value
        else:
            flat = flatten(value, f"tensor {name!r}")
            found[name] = Piecewise(name, flat.dtype, flat.shape, blocks_of_bytes(flat.bytes))
        if found[name].dtype in ("c64", "c128"):
            raise SchemaError(f"{name!r} is complex, which safetensors files cannot hold", hint="export to a .pt file")
    return dict(sorted(found.items(), key=lambda item: -numpy_dtype(item[1].dtype).itemsize))


def _walk(state: Any, path: str, part: str) -> Iterator[tuple[str, Any]]:
    if hasattr(state, "dtype") and hasattr(state, "shape"):
        yield path or part, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _walk(value, f"{path}.{key}" if path else str(key), part)
    elif isinstance(state, list | tuple):
        for place, value in enumerate(state):
            yield from _walk(value, f"{path}.{place}" if path else str(place), part)
    else:
        raise SchemaError(
            f"the part {part!r} holds a {type(state).__name__} at {path or 'its root'}, "
            "and safetensors files hold tensors alone",
            hint="export it to a .pt file",
        )


def write_weights(path: Path, tensors: Mapping[str, Piecewise]) -> Iterator[int]:
    """Write a file; yields the bytes of each block."""
    with path.open("xb") as file:
        # Transformers asks for this entry, which says that the tensors are named as torch names them
        file.write(make_header({name: (one.dtype, one.shape) for name, one in tensors.items()}, {"format": "pt"}))
        for one in tensors.values():
            for block in one.blocks():
                yield file.write(block.data)


def write_shards(folder: Path, tensors: Mapping[str, Piecewise], shard_bytes: int) -> Iterator[int]:
    """Write `model.safetensors`, or shards of about this size and `model.safetensors.index.json`."""
    shards: list[dict[str, Piecewise]] = [{}]
    for name, one in tensors.items():
        if shards[-1] and _size(shards[-1]) + _bytes(one) > shard_bytes:
            shards.append({})
        shards[-1][name] = one
    if len(shards) == 1:
        yield from write_weights(folder / "model.safetensors", tensors)
        return
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        yield from write_weights(folder / file, shard)
    index = {
        "metadata": {"total_size": _size(tensors)},
        "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _size(tensors: Mapping[str, Piecewise]) -> int:
    return sum(map(_bytes, tensors.values()))


def _bytes(tensor: Piecewise) -> int:
    return numpy_dtype(tensor.dtype).itemsize * prod(tensor.shape)
