"""Spans put the rows of several groups into the order of their names, whatever the groups' own order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lamina.runs.scan.groups import Group, Span, spans

NAMES = {0: [0, 1, 2, 3], 1: [10, 14, 12], 2: [11, 13, 20], 3: [30, 31], 4: [40, 45], 5: [46]}


class Named:
    """What a span asks of the metadata: names."""

    def names(self, group: int) -> np.ndarray:
        return np.array(NAMES[group])

    def ascend(self, group: int) -> bool:
        return NAMES[group] == sorted(NAMES[group])


def group(number: int) -> Group:
    names = NAMES[number]
    own = names == list(range(names[0], names[0] + len(names)))
    return Group(number, min(names), len(names), ("x",), None, None, "own" if own else "named", max(names))


@pytest.fixture
def cells() -> Any:
    return Named()


def test_groups_that_interleave_stay_together_and_rows_ascend(cells: Any) -> None:
    found = list(spans(cells, [group(number) for number in NAMES], most=3))
    assert [span.numbers for span in found] == [(0,), (1, 2), (3,), (4, 5)]
    assert np.concatenate([span.names(None) for span in found]).tolist() == sorted(
        name for names in NAMES.values() for name in names
    )


@pytest.mark.parametrize("numbers", [[0], [1], [1, 2], [0, 3], [0, 1, 2, 3, 4, 5]])
def test_every_row_is_found_where_it_lies(cells: Any, numbers: list[int]) -> None:
    span = Span(cells, [group(number) for number in numbers])
    names = sorted(name for number in numbers for name in NAMES[number])
    for at in (None, np.arange(span.rows), np.arange(span.rows)[::2]):
        which, positions = span.places(at)
        found = [NAMES[numbers[i]][position] for i, position in zip(which, positions, strict=True)]
        assert found == (names if at is None else [names[i] for i in at])
        assert span.names(at).tolist() == found


def test_a_narrowed_span_holds_the_same_rows_in_fewer_groups(cells: Any) -> None:
    span = Span(cells, [group(number) for number in (0, 3, 5)])
    narrow, at = span.narrow(np.array([4, 6]))
    assert narrow.numbers == (3, 5)
    assert narrow.names(at).tolist() == [30, 46]
    interleaved = Span(cells, [group(1), group(2)])
    same, at = interleaved.narrow(np.array([0, 5]))
    assert same.names(at).tolist() == [10, 20]
