"""Equal bit for bit, for values, rows and nested states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.store.planted import bits


def same(left: Any, right: Any) -> bool:
    """Equal, with one type, and floats with the same bits."""
    if isinstance(left, float) and isinstance(right, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
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
    """The nested state."""

    def build(node: dict[str, Any]) -> Any:
        ((kind, content),) = node.items()
        if kind in "tn":
            return arrays[content]
        if kind == "s":
            value = scalars[content]
            return float.fromhex(value["f"]) if isinstance(value, dict) else value
        if kind == "d":
            return {key: build(item) for key, item in content}
        return [build(item) for item in content] if kind == "l" else tuple(build(item) for item in content)

    return build(tree)
