"""Equal bit for bit, for values, rows and nested states."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch

from tests.store.planted import bits
from tests.store.reader import ELEMENTS


def same(left: Any, right: Any) -> bool:
    """Equal, with one type, and floats with the same bits."""
    if isinstance(left, float) and isinstance(right, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    if isinstance(left, complex) and isinstance(right, complex):
        return np.complex128(left).tobytes() == np.complex128(right).tobytes()
    return type(left) is type(right) and left == right


def assert_same(left: dict[str, Any], right: dict[str, Any], what: object) -> None:
    assert left.keys() == right.keys(), what
    for name in left:
        assert same(left[name], right[name]), (what, name, left[name], right[name])


def assert_same_state(found: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_same_state(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert (type(found), len(found)) == (type(expected), len(expected)), where
        for index, item in enumerate(expected):
            assert_same_state(found[index], item, f"{where}.{index}")
    elif isinstance(expected, torch.Tensor | np.ndarray):
        assert tuple(found.shape) == tuple(expected.shape), where
        assert bits(torch.as_tensor(found)) == bits(torch.as_tensor(expected)), where
    else:
        assert same(found, expected), where


def put_together(tree: Any, scalars: list[Any], arrays: list[np.ndarray]) -> Any:
    """The nested state, of plain dicts and arrays where docs/format.md speaks of torch."""

    def items(pairs: list[Any]) -> dict[Any, Any]:
        return {key: build(item) for key, item in pairs}

    def view(at: int, dtype: str, offset: int, shape: list[int], strides: list[int]) -> np.ndarray:
        flat = arrays[at].reshape(-1).view(ELEMENTS[dtype])[offset:]
        return np.lib.stride_tricks.as_strided(flat, shape, [stride * flat.itemsize for stride in strides])

    kinds: dict[str, Any] = {
        "t": lambda at: arrays[at],
        "n": lambda at: arrays[at],
        "scalar": lambda at: arrays[at][()],
        "bytes": lambda at: arrays[at].tobytes(),
        "bytearray": lambda at: bytearray(arrays[at].tobytes()),
        "view": lambda content: view(*content),
        "s": lambda at: scalar(scalars[at]),
        "constant": scalar,
        "d": items,
        "counter": items,
        "ordered": items,
        "default": lambda content: items(content[1]),
        "l": lambda nodes: [build(node) for node in nodes],
        "u": lambda nodes: tuple(build(node) for node in nodes),
        "set": lambda nodes: {build(node) for node in nodes},
        "frozenset": lambda nodes: frozenset(build(node) for node in nodes),
        "size": tuple,
        "dtype": str,
        "device": str,
    }

    def build(node: dict[str, Any]) -> Any:
        kind = next(iter(node))
        assert node.keys() <= {kind, "stride", "as", "grad", "metadata"}, node
        return kinds[kind](node[kind])

    return build(tree)


def scalar(value: Any) -> Any:
    """A scalar of a state."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "f":
        return float.fromhex(content)
    return complex(*map(scalar, content)) if kind == "c" else struct.unpack(">d", bytes.fromhex(content))[0]
