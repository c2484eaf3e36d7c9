"""How tensors and columns become row sets: the short way of ordinary appends gives what the general one gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import SchemaError
from lamina.runs import layout

SHAPES = [(3,), (3, 4), (2, 4), (0, 4), (3, 2, 4), (3, 2, 2, 2), (3, 0), ()]
ARRAYS = st.builds(
    lambda shape, dtype, form: form(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)),
    st.sampled_from(SHAPES),
    st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "?", "c8", ">f4", "U3"]),
    st.sampled_from(
        [lambda x: x, np.asfortranarray, lambda x: x[::-1] if x.ndim else x, lambda x: x.view(np.ma.MaskedArray)]
    ),
)
VALUES = st.one_of(
    st.sampled_from(
        [0, -1, 2**70, 1.5, True, "a", "", None, np.int64(3), np.float32(2), datetime(2026, 1, 1, tzinfo=UTC)]
    ),
    st.sampled_from([[1, 2, 3], np.arange(3), [None] * 3, ["a", None, "b"], np.arange(6).reshape(3, 2), range(3)]),
)
NAMES = st.sampled_from(["step", "example", "source", "rank", "label", "row", "z", "a"])


def told(sets: list[layout.RowSet]) -> list[Any]:
    """What the store is told, bytes as bytes."""
    sites = [
        [(name, dtype, shape, np.asarray(data).tobytes()) for name, dtype, shape, data in one.sites] for one in sets
    ]
    columns = [
        [tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in column) for column in one.columns]
        for one in sets
    ]
    return [(one.rows, of, its, one.names) for one, of, its in zip(sets, sites, columns, strict=True)]


def outcome(sites: dict[Any, Any], metadata: dict[str, Any]) -> Any:
    try:
        return repr(told(layout.row_sets(sites, metadata)))
    except SchemaError as error:
        return str(error)


@given(
    st.dictionaries(st.sampled_from(["x", "y", 1]), ARRAYS, min_size=1),
    st.dictionaries(NAMES, VALUES),
)
def test_the_short_way_gives_what_the_general_one_gives(sites: dict[Any, np.ndarray], metadata: dict[str, Any]) -> None:
    short = outcome(sites, metadata)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_plain", lambda sites, columns: None)
        assert short == outcome(sites, metadata)


def test_ordinary_appends_go_the_short_way() -> None:
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        whole = layout._plain
        patch.setattr(layout, "_plain", lambda sites, columns: taken.append(whole(sites, columns)) or taken[-1])
        layout.row_sets({"x": np.ones((3, 4), np.float16), "y": np.ones(3)}, {"step": 1, "source": "train", "a": 0.5})
        layout.row_sets({"x": torch.ones(3, 4)}, {"step": 1})
    (ordinary, tensor) = taken
    assert ordinary is not None
    assert [column[0] for column in ordinary.columns] == ["step", "source", "a"]
    assert tensor is None
