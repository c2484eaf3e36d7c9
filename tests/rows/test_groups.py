"""Groups have numbers in the order of their labels, and fall into the same bucket in every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from blake3 import blake3

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.rows import Rows
from lamina.rows.groups import Groups, groups_of
from tests.faults import broken


def test_numbers_follow_the_labels() -> None:
    groups = Groups.of(pl.Series(["b", "a", "b", "c"]))
    assert groups.codes.tolist() == [1, 0, 1, 2]
    assert groups.labels.to_list() == ["a", "b", "c"]
    assert groups.sizes.tolist() == [1, 2, 1]


def test_rows_that_are_all_groups() -> None:
    groups = Groups.of(pl.Series([30, 10, 20]))
    assert (groups.codes.tolist(), groups.sizes.tolist()) == ([2, 0, 1], [1, 1, 1])


def test_some_of_the_rows() -> None:
    some = Groups.of(pl.Series(["b", "a", "b", "c"])).take(np.array([True, False, True, True]))
    assert (some.codes.tolist(), some.labels.to_list(), some.sizes.tolist()) == ([0, 0, 1], ["b", "c"], [2, 1])


def test_few_groups_are_their_own_buckets() -> None:
    buckets, keys = Groups.of(pl.Series([f"t{i:02}" for i in range(32)])).buckets()
    assert buckets.tolist() == list(range(32))
    assert keys[:2] == ["t00", "t01"]


def hashed(text: bytes) -> int:
    return int.from_bytes(blake3(text).digest()[:8], "little") % 32


def check_buckets() -> None:
    numbers, texts = list(range(-5, 500)), [f"topic {i}" for i in range(100)]
    for values, canonical in (
        (numbers, [b"i" + value.to_bytes(8, "little", signed=True) for value in numbers]),
        (texts, [b"s" + text.encode() for text in texts]),
    ):
        groups = Groups.of(pl.Series(values))
        buckets, keys = groups.buckets()
        expected = dict(zip(values, map(hashed, canonical), strict=True))
        assert [keys[bucket] for bucket in buckets] == [expected[label] for label in groups.labels]


def test_many_groups_are_hashed() -> None:
    check_buckets()


def test_buckets_by_number_are_noticed() -> None:
    with broken("buckets_by_order"), pytest.raises(AssertionError):
        check_buckets()


def test_a_row_without_a_group() -> None:
    with pytest.raises(SchemaError, match="1 of 3 rows have no topic"):
        Groups.of(pl.Series("topic", ["a", None, "b"]))


@pytest.mark.parametrize("labels", [[1, 2], torch.tensor([1, 2, 3, 4]), 7, [[1], [2], [3]]])
def test_labels_that_do_not_fit(labels: object) -> None:
    with pytest.raises(SchemaError, match="groups"):
        groups_of(Rows.of(torch.zeros(3, 2)), labels)


def test_labels_of_every_kind() -> None:
    rows = Rows.of(torch.zeros(3, 2))
    for labels in ([5, 6, 5], np.array([5, 6, 5]), torch.tensor([5, 6, 5]), pl.Series([5, 6, 5]), ["a", "b", "a"]):
        assert groups_of(rows, labels).codes.tolist() == [0, 1, 0]
    assert len(groups_of(rows, None)) == 3


def test_a_run_groups_by_example_or_by_a_column(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": torch.zeros(4, 2)}, step=0, example=[7, 7, 8, 9], topic=["a", "b", "b", "b"])
        writer.append({"bare": torch.zeros(4, 2)}, step=0)
    run = run.refresh()
    assert groups_of(run.rows("x"), None).labels.to_list() == [7, 8, 9]
    assert groups_of(run.rows("x"), "topic").codes.tolist() == [0, 1, 1, 1]
    assert len(groups_of(run.rows("bare"), None)) == 4
    with pytest.raises(NotFoundError, match="topi"):
        groups_of(run.rows("x"), "topi")
