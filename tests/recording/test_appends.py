from __future__ import annotations

import numpy as np
import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording.appends import appends
from lamina.recording.captured import Captured
from lamina.recording.numbering import Numbering


def one(site: str, *shape: int, call: int = 0, batch: int = 0, given: bool = False) -> Captured:
    form, length = ("positions", shape[1]) if len(shape) == 3 else ("examples", 0)
    return Captured(site, torch.zeros(*shape), call, batch, given, form, length=length)


def sets(captured, columns, numbering=None):
    """Return (site names, columns as lists) of each set."""

    def plain(column):
        return column.tolist() if hasattr(column, "tolist") else column

    return [
        (sorted(sites), {name: plain(column) for name, column in own.items()})
        for sites, own in appends(captured, columns, numbering)
    ]


def test_sites_of_one_batch_share_their_columns():
    assert sets([one("a", 2, 5), one("b", 2, 7)], {"example": [4, 9], "lr": 0.1}) == [
        (["a", "b"], {"example": [4, 9], "lr": 0.1})
    ]


def test_a_column_for_each_item_holds_for_every_call_of_a_shared_module():
    assert sets([one("a", 2, 5), one("a", 2, 5, call=1)], {"example": [4, 9]}) == [
        (["a"], {"example": [4, 9], "call": 0}),
        (["a"], {"example": [4, 9], "call": 1}),
    ]


def test_a_column_as_long_as_all_micro_batches_is_divided_in_order():
    captured = [one("a", 2, 5), one("a", 3, 5, call=1, batch=1)]
    assert sets(captured, {"example": torch.arange(5), "mask": [True, False, True, True, True]}) == [
        (["a"], {"example": [0, 1], "mask": [True, False], "call": 0}),
        (["a"], {"example": [2, 3, 4], "mask": [True, True, True], "call": 1}),
    ]


def test_a_module_called_twice_in_each_micro_batch_sees_each_part_twice():
    captured = [one("a", 2, 5, call=call, batch=call // 2) for call in range(4)]
    assert [own["example"] for _, own in sets(captured, {"example": [0, 1, 2, 3]})] == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_what_is_given_for_the_whole_step_keeps_the_whole_column():
    captured = [one("a", 2, 5), one("a", 2, 5, call=1, batch=1), one("loss", 4, batch=1, given=True)]
    assert sets(captured, {"example": [0, 1, 2, 3]})[2] == (["loss"], {"example": [0, 1, 2, 3], "call": 0})


def test_what_is_given_in_each_micro_batch_gets_its_part():
    captured = [
        one("loss", 2, batch=0, given=True),
        one("a", 2, 5),
        one("a", 2, 5, call=1, batch=1),
        one("loss", 2, call=1, batch=1, given=True),
    ]
    assert sets(captured, {"example": [0, 1, 2, 3]}) == [
        (["a", "loss"], {"example": [0, 1], "call": 0}),
        (["a", "loss"], {"example": [2, 3], "call": 1}),
    ]


@pytest.mark.parametrize("column", [[[1, 2, 3], [4, 5, 6]], torch.ones(2, 3), np.ones((2, 3))])
def test_a_column_over_positions_goes_to_sites_with_positions(column):
    (tokens, tokens_own), (pooled, pooled_own) = appends(
        [one("tokens", 2, 3, 5), one("pooled", 2, 5)], {"example": [7, 8], "token": column}
    )
    assert (list(tokens), list(pooled)) == (["tokens"], ["pooled"])
    assert tokens_own["token"] is column
    assert "token" not in pooled_own
    assert tokens_own["example"] == pooled_own["example"] == [7, 8]


def test_strings_and_zero_dimensional_arrays_are_single_values():
    column = np.array(3)
    [(_, own)] = appends([one("a", 2, 5)], {"split": "ab", "epoch": column, "none": None})
    assert own == {"split": "ab", "epoch": column, "none": None}


@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_column_that_fits_nothing_raises(length):
    captured = [one("a", 2, 5), one("a", 2, 5, call=1, batch=1)]
    with pytest.raises(RecordingError, match=rf"'example' has {length} entries, but the site 'a' has shape \[2, 5\]"):
        sets(captured, {"example": list(range(length))})


def test_numbers_go_on_from_step_to_step_and_are_shared_by_sites():
    numbering = Numbering(start=10)
    first = sets([one("a", 2, 5), one("b", 2, 3, 5)], {}, numbering)
    second = sets([one("a", 3, 5)], {}, numbering)
    assert [own["example"] for _, own in first] == [[10, 11], [10, 11]]
    assert [own["example"] for _, own in second] == [[12, 13, 14]]


def test_micro_batches_are_numbered_apart_and_calls_of_a_shared_module_alike():
    captured = [one("a", 2, 5, call=call, batch=call // 2) for call in range(4)]
    assert [own["example"] for _, own in sets(captured, {}, Numbering())] == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_a_site_with_another_leading_size_gets_numbers_of_its_own():
    captured = [one("a", 2, 5), one("flat", 6, 5), one("b", 2, 5)]
    numbers = {name: own["example"] for names, own in sets(captured, {}, Numbering()) for name in names}
    assert numbers == {"a": [0, 1], "b": [0, 1], "flat": [2, 3, 4, 5, 6, 7]}


def test_nothing_captured_is_no_set():
    assert sets([], {"example": [1, 2]}) == []
