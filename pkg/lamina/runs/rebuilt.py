"""A nested state again, from its tree, its scalars and its tensors."""

from __future__ import annotations

import json
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamina.runs.buffers import torch_dtype
from lamina.runs.sharing import is_dense
from lamina.runs.tree import FACTORIES

if TYPE_CHECKING:
    import torch


def put_together(tree: str, scalars: str, tensors: Sequence[Any]) -> Any:
    """The state again. `tensors` are torch tensors in order; those that were NumPy arrays become arrays.

    A tensor may be None: then it is left out of the mapping that holds it, and in a list None stands in its place.

    Raises a plain Python error if the texts are none that `take_apart` made.
    """
    stored = json.loads(scalars)
    if not isinstance(stored, list):
        raise TypeError("the scalars are no array")
    try:
        return _Builder([_scalar(value) for value in stored], list(tensors)).build(json.loads(tree))
    except _MissingError:  # all of the state is one tensor
        return None
    except RecursionError:
        raise
    except RuntimeError as error:  # torch's way to refuse
        raise ValueError(error) from error


class _MissingError(Exception):
    """A tensor that could not be read."""


class _Builder:
    def __init__(self, scalars: list[Any], tensors: list[torch.Tensor]) -> None:
        self._scalars = scalars
        self._tensors = tensors
        # by place, so that tensors that were one are one again
        self._made: dict[str, torch.Tensor] = {}

    def build(self, node: dict[str, Any]) -> Any:
        kind = next(iter(node), None)
        if kind in ("t", "view"):
            key = json.dumps(node)
            if key not in self._made:
                self._made[key] = self._tensor(**node)
            return self._made[key]
        if kind == "ordered":
            return self._ordered(**node)
        ((kind, content),) = node.items()
        return _KINDS[kind](self, content)

    def _items(self, items: list[Any]) -> Iterator[tuple[Any, Any]]:
        for key, item in items:
            try:
                built = self.build(item)
            except _MissingError:
                continue
            yield key, built

    def _or_none(self, item: dict[str, Any]) -> Any:
        try:
            return self.build(item)
        except _MissingError:
            return None

    def _stored(self, index: int) -> torch.Tensor:
        if (tensor := _at(self._tensors, index)) is None:
            raise _MissingError
        return tensor

    def _ordered(self, ordered: list[Any], metadata: dict[str, Any] | None = None) -> Any:
        state = OrderedDict(self._items(ordered))
        if metadata is not None:
            state._metadata = self.build(metadata)  # pyright: ignore[reportAttributeAccessIssue]
        return state

    def _default(self, content: list[Any]) -> Any:
        name, items = content
        return defaultdict(None if name is None else FACTORIES[name], self._items(items))

    def _tensor(self, *, grad: bool = False, **node: Any) -> torch.Tensor:
        import torch

        kind = node.pop("as", None)
        tensor = self._view(*node.pop("view"), **node) if "view" in node else self._whole(**node)
        if kind == "parameter":
            return torch.nn.Parameter(tensor, requires_grad=grad)
        if kind in ("buffer", "buffer, not persistent"):
            tensor = torch.nn.Buffer(tensor, persistent=kind == "buffer")
        elif kind is not None:
            raise ValueError(f"a tensor that is a {kind!r}")
        # a view of a tensor that asks for gradients would have a history
        return tensor.detach().requires_grad_() if grad and kind is None else tensor

    def _whole(self, t: int, stride: list[int] | None = None) -> torch.Tensor:
        import torch

        tensor = self._stored(t)
        if stride is None:
            return tensor
        if not is_dense(tensor.shape, stride):
            raise ValueError(f"strides {stride} of a tensor of shape {tuple(tensor.shape)}")
        return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)

    def _view(self, index: int, dtype: str, offset: int, shape: list[int], strides: list[int]) -> torch.Tensor:
        whole = self._stored(index).reshape(-1)
        kind = torch_dtype(dtype)
        if whole.dtype != kind:
            if whole.storage_offset() * whole.element_size() % kind.itemsize:
                # it was lent from the middle of something larger
                whole = self._tensors[index] = whole.clone()
            whole = whole[: len(whole) - len(whole) % kind.itemsize].view(kind)
        last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if min([offset, *strides, *(length - 1 for length in shape)]) < 0 or offset + last >= len(whole):
            raise ValueError("a view that leaves its tensor")
        return whole.as_strided(shape, strides, whole.storage_offset() + offset)


def _at(values: Sequence[Any], index: int) -> Any:
    if index < 0:
        raise IndexError(index)
    return values[index]


def _scalar(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "f":
            return float.fromhex(content)
        case "nan":
            return struct.unpack(">d", bytes.fromhex(content))[0]
        case "c":
            return complex(*(_scalar(part) for part in content))
    raise ValueError(f"a scalar of kind {kind!r}")


def _size(lengths: list[int]) -> torch.Size:
    import torch

    return torch.Size(lengths)


def _dtype(name: str) -> torch.dtype:
    import torch

    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise TypeError(name)
    return found


def _device(name: str) -> torch.device:
    import torch

    return torch.device(name)


# not of the builder: what refers to itself would keep the tensors until Python next looks for such things
_KINDS: dict[str, Callable[[_Builder, Any], Any]] = {
    "s": lambda builder, index: _at(builder._scalars, index),
    "constant": lambda _, value: _scalar(value),
    "n": lambda builder, index: builder._stored(index).numpy(),
    "scalar": lambda builder, index: builder._stored(index).numpy()[()],
    "bytes": lambda builder, index: builder._stored(index).numpy().tobytes(),
    "bytearray": lambda builder, index: bytearray(builder._stored(index).numpy()),
    "d": lambda builder, items: dict(builder._items(items)),
    "counter": lambda builder, items: Counter(dict(builder._items(items))),
    "default": _Builder._default,
    "l": lambda builder, items: [builder._or_none(item) for item in items],
    "u": lambda builder, items: tuple(builder._or_none(item) for item in items),
    "set": lambda builder, items: {builder.build(item) for item in items},
    "frozenset": lambda builder, items: frozenset(builder.build(item) for item in items),
    "size": lambda _, lengths: _size(lengths),
    "dtype": lambda _, name: _dtype(name),
    "device": lambda _, name: _device(name),
}
