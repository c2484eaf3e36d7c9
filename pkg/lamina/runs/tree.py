"""A nested state as a tree, its scalars and its tensors. `rebuilt` goes the other way; docs/format.md lists the nodes.

The tree says what is alike from save to save: the containers, their keys, and where a tensor or a scalar stands.
Scalars change from save to save (a learning rate, a step count) and are kept apart; both are JSON. Tensors that
are one tensor (the same storage, offset, shape and strides) are stored once and are one again when loaded, and those
that overlap overlap again.
"""

from __future__ import annotations

import json
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import Flat, flatten, is_tensor, name_of_torch
from lamina.runs.divided import Divided
from lamina.runs.sharing import dense_strides, place

if TYPE_CHECKING:
    import torch

    from lamina.runs.staging import Staging

FACTORIES = {kind.__name__: kind for kind in (dict, list, set, int, float, str, bool, tuple)}
"""What a defaultdict may make its values with."""
_SEQUENCES = {list: "l", tuple: "u", set: "set", frozenset: "frozenset"}
_HINT = (
    "a checkpoint holds tensors, arrays, numbers, texts, bytes, None, torch's dtypes, devices and sizes, and mappings, "
    "lists, tuples and sets of them"
)


class Flattened(NamedTuple):
    """A state in pieces."""

    tree: str
    scalars: str
    names: list[str]
    tensors: list[Flat | Divided]


class _Flattener:
    def __init__(self, divide: Callable[[Any, str], Divided] | None) -> None:
        self._divide = divide
        self.scalars: list[Any] = []
        self.names: list[str] = []
        self.values: list[Any] = []
        # where tensors stand; what they are stored as is known when all have been seen
        self._tensors: list[tuple[dict[str, Any], torch.Tensor, str]] = []
        self._arrays: dict[tuple[Any, ...], int] = {}
        self._constant = False

    def node(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is Divided:
            return {"t": self._add(value, path)}
        if is_tensor(value):
            return self._tensor(value, path)
        if value is None or kind in (bool, int, float, str, complex):
            return self._scalar(value)
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if (sequence := _SEQUENCES.get(kind)) is not None:
            return {sequence: [self.node(item, _join(path, index)) for index, item in enumerate(value)]}
        if isinstance(value, np.ndarray):
            return {"n": self._array(value, path)}
        if isinstance(value, np.generic):
            return {"scalar": self._add(value, path)}
        if kind in (bytes, bytearray):
            return {kind.__name__: self._add(np.frombuffer(value, np.uint8), path)}
        if (torch := sys.modules.get("torch")) is not None:
            if kind is torch.Size:
                return {"size": list(value)}
            if kind is torch.dtype:
                return {"dtype": str(value).removeprefix("torch.")}
            if kind is torch.device:
                return {"device": str(value)}
        raise SchemaError(f"the state holds a {kind.__name__} at {path or 'its root'}", hint=_HINT)

    def _mapping(self, value: Mapping[Any, Any], path: str) -> dict[str, Any]:
        items = [[_key(key, path), self.node(item, _join(path, key))] for key, item in value.items()]
        if type(value) is OrderedDict:
            node: dict[str, Any] = {"ordered": items}
            # the versions of a module's layout, by which it reads states of older versions of torch
            if (metadata := getattr(value, "_metadata", None)) is not None:
                self._constant = True
                node["metadata"] = self.node(metadata, _join(path, "_metadata"))
                self._constant = False
            return node
        if type(value) is defaultdict:
            factory = value.default_factory
            name = None if factory is None else getattr(factory, "__name__", "")
            if name is not None and FACTORIES.get(name) is not factory:
                text = f"the state holds a defaultdict of {factory!r} at {path or 'its root'}"
                raise SchemaError(text, hint=f"make it a dict, or use one of {', '.join(FACTORIES)}")
            return {"default": [name, items]}
        return {"counter" if type(value) is Counter else "d": items}

    def _scalar(self, value: Any) -> dict[str, Any]:
        if self._constant:
            return {"constant": _scalar(value)}
        self.scalars.append(_scalar(value))
        return {"s": len(self.scalars) - 1}

    def _tensor(self, tensor: torch.Tensor, path: str) -> dict[str, Any]:
        import torch

        if hasattr(tensor, "full_tensor"):
            if self._divide is not None:
                return {"t": self._add(self._divide(tensor, path), path)}
            placements = getattr(tensor, "placements", "")
            raise SchemaError(
                f"tensor {path!r} is divided among processes ({placements}), and this one has a part of it",
                hint="lamina.distributed.save, called by all of them, stores it; so does a recorder",
            )
        kind = _KINDS.get(type(tensor).__name__) if isinstance(tensor, torch.nn.Parameter | torch.nn.Buffer) else None
        if kind is None and type(tensor) is not torch.Tensor:
            text = f"tensor {path!r} is a {type(tensor).__name__}, which would come back as a plain tensor"
            raise SchemaError(text, hint="save .as_subclass(torch.Tensor), or what it is made of")
        if str(tensor.layout) != "torch.strided":
            raise SchemaError(f"tensor {path!r} has the layout {tensor.layout}", hint="call .to_dense() first")
        if name_of_torch(tensor.dtype) is None:
            raise SchemaError(f"tensor {path!r} has the dtype {tensor.dtype}, which has no name on disk")
        node: dict[str, Any] = {"t": -1}
        if kind == "buffer" and not getattr(tensor, "persistent", True):
            kind = "buffer, not persistent"
        if kind is not None:
            node["as"] = kind
        if tensor.requires_grad:
            node["grad"] = True
        self._tensors.append((node, tensor, path))
        return node

    def _array(self, array: np.ndarray, path: str) -> int:
        identity = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
        if array.size and identity in self._arrays:
            return self._arrays[identity]
        self._arrays[identity] = len(self.values)
        return self._add(array, path)

    def _add(self, value: Any, path: str) -> int:
        self.names.append(path)
        self.values.append(value)
        return len(self.values) - 1

    def place_tensors(self) -> None:
        """Gives every tensor its place: stored as it is, tied to another, or a view of what is stored."""
        stored: dict[int, int] = {}
        for (node, tensor, path), whole in zip(
            self._tensors, place([tensor for _, tensor, _ in self._tensors]), strict=True
        ):
            if id(whole) not in stored:
                stored[id(whole)] = self._add(whole, path)
            index = stored[id(whole)]
            if whole is tensor or _same(whole, tensor):
                node["t"] = index
                if (strides := dense_strides(tensor)) is not None:
                    node["stride"] = strides
                continue
            modifiers = {key: value for key, value in node.items() if key != "t"}
            node.clear()
            start = whole.storage_offset() * whole.element_size()
            offset = (tensor.storage_offset() * tensor.element_size() - start) // tensor.element_size()
            node["view"] = [index, name_of_torch(tensor.dtype), offset, list(tensor.shape), list(tensor.stride())]
            node |= modifiers


_KINDS = {"Parameter": "parameter", "Buffer": "buffer"}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    def identity(tensor: torch.Tensor) -> tuple[Any, ...]:
        return tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype

    return identity(one) == identity(other)


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
    if isinstance(value, complex):
        return {"c": [_scalar(value.real), _scalar(value.imag)]}
    if not isinstance(value, float):
        return value
    # the hexadecimal form of a NaN says nothing of its bits
    return {"f": value.hex()} if value == value else {"nan": struct.pack(">d", value).hex()}


def take_apart(
    state: Any, staging: Staging | None = None, divide: Callable[[Any, str], Divided] | None = None
) -> Flattened:
    """Takes a state apart; nothing is copied but what is not contiguous on the CPU.

    Args:
        state: What a part of a checkpoint holds.
        staging: Where large copies go, for a writer to keep.
        divide: What becomes of a tensor that processes share, given its path; without it, it is refused.

    Raises:
        SchemaError: It holds something that a checkpoint cannot; the message names its path.
    """
    flattener = _Flattener(divide)
    try:
        tree = flattener.node(state, "")
        flattener.place_tensors()
    except RecursionError:
        raise SchemaError("the state is nested too deeply, or contains itself") from None
    names = [name.encode(errors="backslashreplace").decode() for name in flattener.names]
    tensors = [
        value if type(value) is Divided else flatten(value, f"tensor {name!r}", staging)
        for name, value in zip(names, flattener.values, strict=True)
    ]
    return Flattened(_json(tree), _json(flattener.scalars), names, tensors)


def _json(value: Iterable[Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
