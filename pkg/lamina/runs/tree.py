"""A nested state as a tree, its scalars and its tensors, and back.

The tree says what is alike from save to save: the containers, their keys, and where a tensor or a scalar stands.
Scalars change from save to save (a learning rate, a step count) and are kept apart; both are JSON. Tensors that
are one tensor (the same storage, offset, shape and strides) are stored once and are one again when loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import Flat, flatten, is_tensor


class Flattened(NamedTuple):
    """A state in pieces."""

    tree: str
    scalars: str
    names: list[str]
    tensors: list[Flat]


class _Flattener:
    def __init__(self) -> None:
        self.scalars: list[Any] = []
        self.names: list[str] = []
        self.values: list[Any] = []
        self._seen: dict[tuple[Any, ...], int] = {}

    def node(self, value: Any, path: str) -> Any:
        if is_tensor(value):
            return {"t": self._tensor(value, path)}
        if isinstance(value, np.ndarray | np.generic):
            return {"n": self._add(value, path)}
        if isinstance(value, Mapping):
            return {"d": [[_key(key, path), self.node(item, _join(path, key))] for key, item in value.items()]}
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return {
                "l" if type(value) is list else "u": [
                    self.node(item, _join(path, index)) for index, item in enumerate(value)
                ]
            }
        if value is None or type(value) in (bool, int, float, str):
            self.scalars.append(_scalar(value))
            return {"s": len(self.scalars) - 1}
        raise SchemaError(
            f"the state holds a {type(value).__name__} at {path or 'its root'}",
            hint="a checkpoint holds tensors, arrays, numbers, texts, None, and mappings, lists and tuples of them",
        )

    def _tensor(self, tensor: Any, path: str) -> int:
        if hasattr(tensor, "full_tensor"):
            raise SchemaError(
                f"tensor {path!r} is divided among processes ({tensor.placements}), and a checkpoint holds whole ones",
                hint="lamina.record(checkpoint_every=) puts them together; by hand, call .full_tensor() on every rank "
                "and save on one of them",
            )
        if str(tensor.layout) != "torch.strided":
            raise SchemaError(f"tensor {path!r} has the layout {tensor.layout}", hint="call .to_dense() first")
        identity = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
        )
        if tensor.numel() and identity in self._seen:
            return self._seen[identity]
        self._seen[identity] = len(self.values)
        return self._add(tensor, path)

    def _add(self, value: Any, path: str) -> int:
        self.names.append(path)
        self.values.append(value)
        return len(self.values) - 1


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _key(key: Any, path: str) -> Any:
    # JSON keeps apart the texts and integers that a list holds, where an object would make all of them texts
    if type(key) in (str, int, bool) or key is None:
        return key
    raise SchemaError(
        f"the state has a key of type {type(key).__name__} at {path or 'its root'}", hint="use texts or integers"
    )


def _scalar(value: Any) -> Any:
    # JSON has no infinities, and not every reader keeps every digit: floats are written in hexadecimal
    return {"f": value.hex()} if isinstance(value, float) else value


def take_apart(state: Any) -> Flattened:
    """Takes a state apart; nothing is copied but what is not contiguous on the CPU.

    Raises:
        SchemaError: It holds something that a checkpoint cannot; the message names its path.
    """
    flattener = _Flattener()
    try:
        tree = flattener.node(state, "")
    except RecursionError:
        raise SchemaError("the state is nested too deeply, or contains itself") from None
    tensors = [
        flatten(value, f"tensor {name!r}") for name, value in zip(flattener.names, flattener.values, strict=True)
    ]
    texts = [json.dumps(part, separators=(",", ":")) for part in (tree, flattener.scalars)]
    return Flattened(texts[0], texts[1], flattener.names, tensors)


def put_together(tree: str, scalars: str, tensors: list[Any]) -> Any:
    """The state again. `tensors` are torch tensors in order; those that were NumPy arrays become arrays.

    Raises a plain Python error if the texts are none that `take_apart` made.
    """
    stored = json.loads(scalars)
    if not isinstance(stored, list):
        raise TypeError("the scalars are no array")
    values = [float.fromhex(value["f"]) if isinstance(value, dict) else value for value in stored]

    def build(node: dict[str, Any]) -> Any:
        ((kind, content),) = node.items()
        if kind in "tns" and content < 0:
            raise IndexError(content)
        match kind:
            case "t":
                return tensors[content]
            case "n":
                return tensors[content].numpy()
            case "s":
                return values[content]
            case "d":
                return {key: build(item) for key, item in content}
            case "l":
                return [build(item) for item in content]
            case "u":
                return tuple(build(item) for item in content)
        raise ValueError(f"a node of kind {kind!r}")

    return build(json.loads(tree))
