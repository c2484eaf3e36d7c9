from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple

import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording.elements import select

A, B = torch.ones(2, 3), torch.zeros(2, 4)
Pair = namedtuple("Pair", ["hidden", "cell"])


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        (A, (), A),
        ((A, B), (0,), A),
        ((A, B), (-1,), B),
        ([A, (B, A)], (1, 0), B),
        ({"x": A, "y": B}, ("y",), B),
        ({0: A, "mask": B}, (0,), A),
        ({"0": A, "1": B}, (1,), B),
        (UserDict(x=A, y=B), ("y",), B),
        (Pair(A, B), ("cell",), B),
        (Pair(A, B), (1,), B),
    ],
)
def test_a_path_leads_to_its_element(value, path, expected):
    assert select(value, path, "site") is expected


@pytest.mark.parametrize("value", [(A,), (A, None), [None, A], {"logits": A}, OrderedDict(logits=A, past=None), (A, 7)])
def test_a_lone_tensor_needs_no_path(value):
    assert select(value, (), "site") is A


@pytest.mark.parametrize("value", [(A, B), (A, (B, B)), {"x": A, "y": B}, ((A, B),)])
def test_several_tensors_raise_and_are_listed(value):
    with pytest.raises(RecordingError, match=r"several tensors: \[") as caught:
        select(value, (), "encoder.output")
    assert "encoder.output[" in str(caught.value)


def test_the_list_of_elements_shows_keys_dtypes_and_shapes():
    with pytest.raises(RecordingError, match=r"\[x\] a tensor float32 \[2, 3\], \[y\] a tensor float32 \[2, 4\]"):
        select({"x": A, "y": B}, (), "site")


@pytest.mark.parametrize(
    ("value", "path"), [((A, B), (2,)), ((A, B), ("x",)), ({"x": A}, ("y",)), (A, (0,)), (None, (0,))]
)
def test_an_element_that_is_not_there_raises(value, path):
    with pytest.raises(RecordingError, match=r"asks for the element \["):
        select(value, path, "site")


@pytest.mark.parametrize("value", [None, 3, "text", (), (None, 1), {}])
def test_no_tensor_raises(value):
    with pytest.raises(RecordingError, match="no tensor"):
        select(value, (), "site")
