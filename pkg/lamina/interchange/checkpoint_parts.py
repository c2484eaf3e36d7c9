"""Parts of checkpoints on their way: the state's tree, and tensors that are read block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.interchange.tensors import FileTensor, numpy_dtype, prod
from lamina.runs.divided import Divided
from lamina.runs.tree import take_apart

if TYPE_CHECKING:
    from lamina._core import CheckpointStream

BLOCK = 16 << 20
"""A whole number of chunks."""


@dataclass(frozen=True)
class Piecewise:
    """A tensor that is read from the first byte to the last.

    Attributes:
        name: Its dotted name.
        dtype: The dtype's name.
        shape: Its shape.
        blocks: Its bytes, all blocks but the last of 16 MiB.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class ArrivingPart:
    """A part of a checkpoint.

    Attributes:
        tree: As `lamina.runs.tree` writes it.
        scalars: Likewise.
        tensors: Those that the tree names, in order.
    """

    tree: str
    scalars: str
    tensors: list[Piecewise]

    def put(self, stream: CheckpointStream, advance: Callable[[int], None]) -> tuple[Any, ...]:
        """Write the chunks; returns what the stream's `save` takes but for the part's name."""
        keys = []
        for tensor in self.tensors:
            for block in tensor.blocks():
                keys.append(stream.put(tensor.dtype, block))
                advance(block.nbytes)
        specs = [(tensor.name, tensor.dtype, tensor.shape) for tensor in self.tensors]
        return self.tree, self.scalars, specs, b"".join(keys)


def of_files(tensors: Mapping[str, FileTensor]) -> ArrivingPart:
    """A part that maps names to tensors, which are read from their files and never mapped."""
    tree = {"d": [[name, {"t": index}] for index, name in enumerate(tensors)]}
    return ArrivingPart(
        json.dumps(tree, separators=(",", ":")),
        "[]",
        [Piecewise(name, one.dtype, one.shape, _blocks_of_file(one)) for name, one in tensors.items()],
    )


def of_state(state: Any) -> ArrivingPart:
    """A part that is in memory, or mapped.

    Raises:
        SchemaError: It holds something that a checkpoint cannot; the message names its path.
    """
    pieces = take_apart(state)
    tensors = []
    for name, flat in zip(pieces.names, pieces.tensors, strict=True):
        if isinstance(flat, Divided):
            raise SchemaError(f"tensor {name!r} is divided among processes, and no file holds such")
        tensors.append(Piecewise(name, flat.dtype, flat.shape, blocks_of_bytes(flat.bytes)))
    return ArrivingPart(pieces.tree, pieces.scalars, tensors)


def _blocks_of_file(tensor: FileTensor) -> Callable[[], Iterator[np.ndarray]]:
    def blocks() -> Iterator[np.ndarray]:
        # opened here and closed with the last block: a model may have more tensors than a process may open files
        flat = replace(tensor, shape=(prod(tensor.shape),))
        length = BLOCK // numpy_dtype(tensor.dtype).itemsize
        for start in range(0, flat.shape[0], length):
            yield flat.read(start, min(start + length, flat.shape[0])).view(np.uint8)

    return blocks


def blocks_of_bytes(data: Any) -> Callable[[], Iterator[np.ndarray]]:
    """The blocks of what is in memory."""

    def blocks() -> Iterator[np.ndarray]:
        flat = np.frombuffer(data, np.uint8)
        for start in range(0, flat.size, BLOCK):
            yield flat[start : start + BLOCK]

    return blocks
