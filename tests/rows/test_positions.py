"""Positions are integers: what only looks like one would gather other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lamina.errors import SchemaError
from lamina.rows import Rows


@pytest.mark.parametrize("indices", [torch.tensor([False, True]), [True, False], [0.7], np.array([1.0])])
def test_a_mask_or_floats_are_refused(indices: Any) -> None:
    with pytest.raises(SchemaError, match="the indices are"):
        Rows.of(torch.ones(2, 3)).gather(indices)


@pytest.mark.parametrize("indices", [[], range(0), np.array([1], np.uint8), torch.tensor([1]), slice(1, None)])
def test_integers_of_any_kind_are_positions(indices: Any) -> None:
    rows = Rows.of(torch.tensor([[1.0], [2.0]]))
    assert rows.gather(indices).tolist() in ([], [[2.0]])


@pytest.mark.parametrize("value", [np.array(["a"]), object(), [[1.0], [1.0, 2.0]], 3.0])
def test_what_is_no_matrix_is_refused(value: Any) -> None:
    with pytest.raises(SchemaError):
        Rows.of(value)


@pytest.mark.parametrize("indices", [[[1, 2]], np.array([[1], [2]]), torch.tensor([[1, 2]]), [[]]])
def test_positions_of_several_dimensions_are_refused_and_not_flattened(indices: Any) -> None:
    rows = Rows.of(torch.arange(6.0).reshape(3, 2))
    with pytest.raises(SchemaError, match=r"the indices have the shape \[") as error:
        rows.gather(indices)
    assert str(list(np.asarray(indices).shape)) in str(error.value)
    with pytest.raises(SchemaError, match="rows"):
        rows[indices]


@pytest.mark.parametrize("read", [lambda rows, at: rows.gather(at), lambda rows, at: rows[at]])
def test_ragged_positions_are_refused(read: Any) -> None:
    with pytest.raises(SchemaError, match="the indices are no array"):
        read(Rows.of(torch.ones(3, 2)), [[1], [1, 2]])
