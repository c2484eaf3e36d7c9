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
