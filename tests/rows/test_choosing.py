"""Splits and samples: whole groups, whose lot is the same at every step, site and run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from blake3 import blake3

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.rows import Rows, unpaired
from lamina.rows.choosing import lots
from lamina.rows.groups import Groups
from tests.faults import broken

EXAMPLE = np.repeat(np.arange(40), np.arange(40) % 4 + 1)


def rows_of(example: np.ndarray = EXAMPLE) -> Rows:
    return Rows.of(torch.arange(len(example)).float()[:, None], {"example": example})


def test_hashes_are_blake3_of_the_label() -> None:
    for labels, canonical in (
        ([-1, 7], [b"i" + value.to_bytes(8, "little", signed=True) for value in (-1, 7)]),
        (["a", "ß"], [b"s" + value.encode() for value in ("a", "ß")]),
    ):
        for found, text in zip(Groups.of(pl.Series(labels)).hashes().tolist(), canonical, strict=True):
            whole, expected = int.from_bytes(blake3(text).digest()[:8], "little"), 0
            for modulus in (255, 254, 253, 251, 247, 241, 239):
                expected = expected * modulus + whole % modulus
            assert found == expected


def test_lots_are_spread_and_follow_the_seed() -> None:
    groups = Groups.of(pl.Series(range(20_000)))
    first, second = lots(groups, 0), lots(groups, 1)
    assert np.abs(np.quantile(first, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert len(np.unique(first)) == 20_000


def check_split(groups: object = None) -> None:
    rows = rows_of()
    first, second = rows.split(0.7, seed=3, groups=groups)
    sides = set(first.labels("example")), set(second.labels("example"))
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(range(40))
    joined = torch.cat([first.gather(slice(None)), second.gather(slice(None))]).flatten().sort().values
    assert joined.tolist() == rows.gather(slice(None)).flatten().tolist()
    # the same groups fall on the same side among others and in another order
    some = rows_of(np.random.default_rng(0).permutation(EXAMPLE[EXAMPLE > 10]))
    assert set(some.split(0.7, seed=3)[0].labels("example")) == {label for label in sides[0] if label > 10}


def check_sample() -> None:
    rows = rows_of()
    small, large = rows.sample(20, seed=1), rows.sample(60, seed=1)
    assert 17 <= len(small) <= 20
    assert set(small.labels("example")) <= set(large.labels("example"))
    sizes = np.bincount(EXAMPLE)
    for label, count in small.labels("example").value_counts().iter_rows():
        assert count == sizes[label]
    assert set(rows.sample(20, seed=2).labels("example")) != set(small.labels("example"))


def test_a_split_divides_no_group() -> None:
    check_split()


def test_a_sample_takes_whole_groups() -> None:
    check_sample()
    assert len(rows_of().sample(10_000, seed=0)) == len(EXAMPLE)
    assert len(Rows.of(torch.zeros(50, 2)).sample(17, seed=0)) == 17


@pytest.mark.parametrize(
    ("name", "check"), [("choices_go_by_row", check_split), ("choices_follow_what_is_there", check_sample)]
)
def test_faults_are_noticed(name: str, check: Callable[[], None]) -> None:
    with broken(name), pytest.raises(AssertionError):
        check()


def check_what_is_there_does_not_matter() -> None:
    whole, some = rows_of(), rows_of(EXAMPLE[EXAMPLE % 2 == 0])
    expected = [label for label in whole.split(0.5, seed=0)[0].labels("example").unique() if label % 2 == 0]
    assert sorted(some.split(0.5, seed=0)[0].labels("example").unique()) == sorted(expected)


def test_what_is_there_does_not_matter() -> None:
    check_what_is_there_does_not_matter()
    with broken("choices_follow_what_is_there"), pytest.raises(AssertionError):
        check_what_is_there_does_not_matter()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rows: rows.split(1.0, seed=0), "a split at 1.0"),
        (lambda rows: rows.split(0.5, seed=0, groups=np.zeros(len(EXAMPLE))), "fall on one side"),
        (lambda rows: rows.sample(0, seed=0), "a sample of 0 rows"),
        (lambda rows: rows.sample(3, seed=0, groups=np.zeros(len(EXAMPLE))), "no room for a group of 100"),
        (lambda rows: rows.split(0.5, seed=0, groups="topic"), "no column 'topic'"),
        (lambda rows: rows.labels("topic"), "no column 'topic'"),
        (lambda rows: rows.labels([1, 2]), "labels has 2 labels"),
        (lambda rows: rows.labels([None] * len(EXAMPLE)), "100 of 100 rows have no label"),
        (lambda rows: rows.where("example > 3"), "where"),
        (lambda rows: rows.where(pl.col("example").sum() + 0 * pl.col("row")), "give a condition"),
        (lambda rows: Rows.of(torch.zeros(3), {"label": [1]}), "1 values, there are 3 rows"),
        (lambda rows: Rows.of(rows, {"label": EXAMPLE}), "which have their own"),
    ],
)
def test_bad_input(call: Callable[[Rows], object], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        call(rows_of())


def test_what_is_known_of_rows_in_memory_stays_with_them() -> None:
    rows = Rows.of(torch.arange(6.0), {"label": torch.tensor([0, 1, 0, 1, 2, 2]), "name": list("abcdef")})
    for part in (rows[2:5], rows[[4, 2]], pickle.loads(pickle.dumps(rows))[1:3], rows.to(dtype=torch.float64)[3:]):
        for value, label in zip(part.gather(slice(None)).flatten().tolist(), part.labels("label"), strict=True):
            assert label == [0, 1, 0, 1, 2, 2][int(value)]
    assert rows.where(pl.col("label") > 1).gather(slice(None)).tolist() == [[4.0], [5.0]]
    assert rows.columns == ["row", "label", "name"]


def test_another_dtype_on_the_way_out(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    x = torch.randn(50, 4).to(torch.bfloat16)
    with run.writer() as writer:
        writer.append({"x": x}, step=0, example=range(50), label=[row % 3 for row in range(50)])
    rows = run.refresh().rows("x")
    wide = rows.to(dtype=torch.float64)
    assert (wide.dtype, wide.shape, wide.stored) == (torch.float64, (50, 4), rows.stored)
    assert torch.equal(wide.gather([3, 1]), x[[3, 1]].double())
    assert torch.equal(torch.cat(list(wide.blocks(7))), x.double())
    assert torch.equal(next(iter(wide.batches(8, seed=0))).bfloat16(), next(iter(rows.batches(8, seed=0))))
    again = pickle.loads(pickle.dumps(wide))
    assert torch.equal(again[5:].gather(slice(None)), x[5:].double())
    assert wide.to(dtype=torch.float32).to("meta").gather([0]).device.type == "meta"
    assert rows.labels("label").to_list() == [row % 3 for row in range(50)]
    # a split of what was stored is that of the same examples in memory
    first, _ = rows.split(0.5, seed=0)
    memory, _ = Rows.of(x, {"example": range(50)}).split(0.5, seed=0)
    assert first.labels("example").to_list() == memory.labels("example").to_list()


def test_a_memory_map_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "rows.f4"
    expected = np.arange(60, dtype=">f4").reshape(20, 3)
    expected.astype("<f4").tofile(path)
    rows = Rows.of(np.memmap(path, dtype="<f4", mode="r", shape=(20, 3)))
    assert torch.cat(list(rows[5:].blocks(4))).tolist() == expected[5:].tolist()
    assert Rows.of(expected).gather([7]).tolist() == [expected[7].tolist()]


def test_a_parameter_of_a_checkpoint(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3), torch.nn.Linear(4, 3))
    with run.writer() as writer:
        writer.append({"x": torch.zeros(2, 2)}, step=7)
        writer.save({"model": model.state_dict()}, step=7)
    run = run.refresh()
    rows = run.rows("0.weight", step=7)
    weight = model.state_dict()["0.weight"].flatten(1)
    assert rows.shape == (5, 18)
    assert torch.equal(rows.gather([4, 0]), weight[[4, 0]])
    assert run.rows("1.bias", step=7).shape == (3, 1)
    some = run.rows("0.weight", step=7, where=pl.col("position") > 2)
    assert (some.ids.tolist(), some.labels("position").to_list()) == ([3, 4], [3, 4])
    with pytest.raises(NotFoundError, match=r"no site '0\.weigh'"):
        run.rows("0.weigh", step=7)
    with pytest.raises(
        NotFoundError, match=r"'0\.weight' is no site, and no tensor of a checkpoint at step=8 \(nearest: 7"
    ):
        run.rows("0.weight", step=8)


def test_what_did_not_pair(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": torch.zeros(4, 2)}, step=0, example=[5, 6, 7, 8])
        writer.append({"x": torch.zeros(3, 2)}, step=1, example=[8, 5, 9])
    run = run.refresh()
    left = unpaired(run.rows("x", step=0), run.rows("x", step=1))
    assert left.rows() == [("x", 1, 6), ("x", 2, 7), ("y", 6, 9)]
