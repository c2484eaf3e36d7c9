"""Which tensors the copy engines of GPUs take, and how they are told of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lamina_kernels.tiles import descriptors
from lamina_kernels.tiles.descriptors import described


def taken(tensor: Tensor, target: str = "cuda:90") -> bool:
    """Return whether a tensor is loaded by a descriptor, beside one that always is."""
    arguments = {"x": torch.zeros(3, 8), "y": tensor}
    found = described(arguments, {"x": (2, 8), "y": (2, 8)}, target)
    assert set(found) == ({"x", "y", "DESCRIPTORS"} if found["DESCRIPTORS"] else {"DESCRIPTORS"})
    return found["DESCRIPTORS"]


def far(*shape: int, strides: tuple[int, ...]) -> Tensor:
    """Return a tensor that takes no memory."""
    return torch.empty_strided(shape, strides, dtype=torch.bfloat16, device="meta")


ROWS = torch.zeros(64, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("tensor", "fits"),
    [
        (ROWS.view(4, 16), True),
        (ROWS.view(2, 2, 2, 8), True),
        # Rows that begin at a multiple of 16 bytes, of any width.
        (ROWS.view(4, 16)[:, :3], True),
        (ROWS[:60].view(5, 12), False),
        (ROWS[8:].view(7, 8), True),
        (ROWS[4:52].view(6, 8), False),
        (ROWS.view(8, 8).T, False),
        (ROWS.view(4, 16)[:, ::2], False),
        (ROWS[:16].expand(4, 16), False),
        # What nothing is counted by may be anything.
        (ROWS[:12].as_strided((1, 12), (3, 1)), True),
        (ROWS.as_strided((2, 1, 3, 8), (24, 0, 8, 1)), True),
        (ROWS.view(4, 16)[:0], False),
        (ROWS.view(4, 16)[:, :0], False),
        # More numbers than 32 bits count, but of no dimension; then of one.
        (far(2**20, 4096, strides=(4096, 1)), True),
        (far(2**31 - 1, 8, strides=(8, 1)), True),
        (far(2**31, 8, strides=(8, 1)), False),
        (far(2, 8, strides=(2**39 - 8, 1)), True),
        (far(2, 8, strides=(2**39, 1)), False),
    ],
    ids=lambda value: f"{list(value.shape)} {value.stride()}" if isinstance(value, Tensor) else "",
)
def test_what_copy_engines_take(tensor: Tensor, fits: bool) -> None:
    assert taken(tensor) == fits


def test_which_targets_have_them() -> None:
    targets = ("cuda:80", "cuda:89", "cuda:90", "cuda:100", "cuda:103", "cuda:120", "hip:gfx942", "interpreter")
    assert [target for target in targets if taken(torch.zeros(2, 8), target)] == ["cuda:90", "cuda:100", "cuda:103"]


def test_what_they_are_told() -> None:
    rows, packed = ROWS.view(4, 16)[:, :11], ROWS.as_strided((2, 1, 3, 8), (32, 5, 8, 1))
    found = described({"rows": rows, "packed": packed, "n": 4}, {"rows": (2, 16), "packed": (4, 8)}, "cuda:90")
    assert (found["rows"].shape, found["rows"].strides, found["rows"].block_shape) == ([4, 11], [16, 1], [2, 16])
    told = found["packed"]
    # A stride that nothing is counted by is told as one that they take.
    assert (told.shape, told.strides, told.block_shape) == ([2, 1, 3, 8], [32, 16, 8, 1], [1, 1, 4, 8])
    assert told.base is packed


@pytest.mark.parametrize(("constant", "value"), [("ALIGNMENT", 8), ("LONGEST", 2**32), ("FARTHEST", 2**41)])
def test_other_limits_are_noticed(monkeypatch: pytest.MonkeyPatch, constant: str, value: int) -> None:
    monkeypatch.setattr(descriptors, constant, value)
    wrong = (ROWS[:60].view(5, 12), far(2**31, 8, strides=(8, 1)), far(2, 8, strides=(2**39, 1)))
    assert [descriptors._fits(tensor) for tensor in wrong].count(True) == 1
