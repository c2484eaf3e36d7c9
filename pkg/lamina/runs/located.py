"""Where the tensors that a state names lie among those that are stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from lamina.errors import DamagedError, LaminaError, NotFoundError, SchemaError
from lamina.runs.buffers import torch_dtype
from lamina.runs.nearest import nearest_names
from lamina.runs.saved import Saved, SavedPart


class Located(NamedTuple):
    """A tensor of a state.

    Attributes:
        number: The stored tensor that holds it.
        dtype: By the name that it has in the store.
        shape: Its own.
        start: Its first byte in the stored tensor.
    """

    number: int
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of what stands at one place of its first axis; of a single number all of it."""
        return math.prod(self.shape[1:]) * torch_dtype(self.dtype).itemsize


class Names:
    """The tensors that the state of a part names, by their paths, such as `blocks.0.mlp.weight`.

    A tied tensor is stored once and found by each of its names; one that was saved as a view of a larger one is found
    there. Parts that share a layout share this.
    """

    def __init__(self, saved: Saved, part: SavedPart) -> None:
        tree, _, self._log = saved.snapshot.part(part.step, part.name)
        self._part, self._stored = part.name, saved.tensors(part)
        self._nodes: dict[str, list[dict[str, Any]]] = {}
        with self._understood():
            for path, node in _tensors(json.loads(tree), ""):
                self._nodes.setdefault(path, []).append(node)

    def __iter__(self) -> Iterator[str]:
        """All names, in order of the state."""
        return iter(self._nodes)

    def find(self, name: str) -> Located | None:
        """Where a tensor lies; None if the state has none of that name.

        Raises:
            SchemaError: Two have that name, or it was saved as a view whose elements do not stand in order.
        """
        nodes = self._nodes.get(name)
        if not nodes:
            return None
        if len(nodes) > 1:
            raise SchemaError(f"part {self._part!r} names {len(nodes)} tensors {name!r}", hint="run.load() has both")
        with self._understood():
            found = self._located(name, nodes[0])
            size = math.prod(found.shape) * torch_dtype(found.dtype).itemsize
            if (
                min(found.number, found.start, 0, *found.shape) < 0
                or found.start + size > self._stored[found.number].bytes
            ):
                raise ValueError("a view that leaves its tensor")
        return found

    def _located(self, name: str, node: dict[str, Any]) -> Located:
        if (view := node.get("view")) is None:
            (number,) = (node[kind] for kind in _KINDS if kind in node)
            tensor = self._stored[number]
            return Located(number, tensor.dtype, tuple(tensor.shape), 0)
        number, dtype, offset, shape, strides = view
        if strides != [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]:
            text = f"tensor {name!r} was saved as a view whose elements do not stand in order"
            raise SchemaError(text, hint="run.load() gives it")
        return Located(number, dtype, tuple(shape), offset * torch_dtype(dtype).itemsize)

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """A tree that no save wrote is damage."""
        try:
            yield
        except LaminaError:
            raise
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise DamagedError(f"the state of part {self._part!r} is not understood", self._log) from error

    def nearest(self, name: str) -> NotFoundError:
        """The error for a tensor that is not there."""
        return NotFoundError(f"no tensor {name!r} in part {self._part!r}", hint=nearest_names(name, self._nodes))


_KINDS = ("t", "n", "scalar")
_LISTS = ("l", "u", "set", "frozenset")
_MAPPINGS = ("d", "counter", "ordered", "default")


def _tensors(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of tensors and arrays, by their paths."""
    if "view" in node or any(kind in node for kind in _KINDS):
        yield path, node
    items: list[tuple[Any, Any]] = []
    for kind, content in node.items():
        if kind in _LISTS:
            items += enumerate(content)
        elif kind in _MAPPINGS:
            items += content[1] if kind == "default" else content
    for key, item in items:
        yield from _tensors(item, f"{path}.{key}" if path else str(key))
