from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.report.alike import compared, groups_of, layers_of, missing, selection, spread
from tests.report.planted import reading, training


def tokens(path: Path, *, examples: int, positions: int) -> lamina.Run:
    run = lamina.Run.create(path)
    with run.writer() as writer:
        ones = np.ones((examples, positions, 2), np.float32)
        writer.append({"a.output": ones, "b.output": ones}, step=0, example=np.arange(examples))
    return lamina.open(path)


def test_few_rows_are_all_compared(tmp_path: Path) -> None:
    assert selection(tokens(tmp_path / "run", examples=4, positions=5).rows("a.output"), 20) == (None, 20)


@pytest.mark.parametrize(("limit", "examples", "positions"), [(3, 3, 1), (4, 4, 1), (10, 4, 2), (19, 4, 4)])
def test_of_many_rows_examples_come_first_and_then_positions(
    tmp_path: Path, limit: int, examples: int, positions: int
) -> None:
    run = tokens(tmp_path / "run", examples=4, positions=5)
    where, count = selection(run.rows("a.output"), limit)
    chosen = run.rows("a.output", where=where).metadata(["example", "position"])
    assert len(chosen) == count == examples * positions <= limit
    assert chosen["example"].n_unique() == examples
    assert {0, 3} <= set(chosen["example"])
    assert chosen["position"].n_unique() == positions


def test_layers_are_outputs_of_two_units_on_the_rows_that_most_share(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    wide = np.ones((2, 3, 4), np.float32)
    with run.writer() as writer:
        sites = {
            "a.output": wide,
            "b.output": wide,
            "b.input": wide,
            "one.output": wide[..., :1],
            "c.output": wide[:, 0],
        }
        writer.append(sites, step=0, example=np.arange(2))
        writer.append({"late.output": wide}, step=1, example=np.arange(2))
    assert layers_of(lamina.open(run.path), 0, None) == ["a.output", "b.output"]


def test_many_layers_are_thinned_and_both_ends_kept(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({f"{k:02}.output": np.ones((2, 3), np.float32) for k in range(30)}, step=0, example=np.arange(2))
    chosen = layers_of(lamina.open(run.path), 0, None)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == ("00.output", "29.output")


def test_groups_may_be_a_column_of_the_rows_or_one_an_example(tmp_path: Path) -> None:
    for name in ("rows", "examples"):
        run = lamina.Run.create(tmp_path / name, config={"groups": "speaker"})
        with run.writer() as writer:
            columns = {"speaker": ["ann", "bob"]} if name == "rows" else {}
            writer.append({"a.output": np.ones((2, 3, 4), np.float32)}, step=0, example=np.arange(2), **columns)
            if name == "examples":
                writer.examples({"example": np.arange(2), "speaker": ["ann", "bob"]})
        assert groups_of(lamina.open(run.path)) == "speaker"


@pytest.mark.parametrize("groups", [None, 8, "nothing of that name"])
def test_a_setting_that_names_no_column_leaves_the_example(tmp_path: Path, groups: object) -> None:
    run = lamina.Run.create(tmp_path / "run", config={"groups": groups})
    with run.writer() as writer:
        writer.append({"a.output": np.ones((2, 4), np.float32)}, step=0, example=np.arange(2))
    assert groups_of(lamina.open(run.path)) == "example"


def test_a_comparison_is_the_cka_of_its_layers_by_group(tmp_path: Path) -> None:
    from lamina import similarity

    run = reading(tmp_path / "run")
    sites = ["a.output", "b.output", "c.output"]
    frame = compared([run], sites, 0, source="texts", where=pl.col("example") > 2, progress=False)
    assert frame is not None
    assert frame.select("site_a", "site_b").rows() == list(itertools.combinations(sites, 2))
    for row in frame.iter_rows(named=True):
        x, y = (run.rows(row[f"site_{side}"], where=pl.col("example") > 2) for side in "ab")
        found = similarity.cka(x, y, groups="topic")
        expected = (found.value, found.stderr, found.n, found.n_groups)
        # many pairs in one go round otherwise, in float32
        assert [row[name] for name in ("value", "stderr", "n", "n_groups")] == pytest.approx(expected, abs=1e-6)


def test_a_run_that_keeps_nothing_is_compared_too(tmp_path: Path) -> None:
    run = training(tmp_path / "run", seed=0)
    sites = ["a.output", "b.output"]
    kept = compared([run], sites, 4, source="validation", where=None, progress=False)
    other = training(tmp_path / "other", seed=0)
    (other.path / "cache").write_text("a folder cannot stand here")
    frame = compared([other], sites, 4, source="validation", where=None, progress=False)
    assert frame is not None
    assert kept is not None
    assert frame["value"].to_list() == kept["value"].to_list()


def test_no_pair_is_nothing(tmp_path: Path) -> None:
    run = training(tmp_path / "run", seed=0)
    assert compared([run], ["a.output"], 4, source="validation", where=None, progress=False) is None


def test_a_layer_that_does_not_vary_has_no_value_and_is_counted(tmp_path: Path) -> None:
    run = tokens(tmp_path / "run", examples=9, positions=2)
    frame = compared([run], ["a.output", "b.output"], 0, source=None, where=None, progress=False)
    assert frame is not None
    assert frame["value"].to_list() == [None]
    assert "1 comparisons without a value" in missing(frame)


def test_spreading_keeps_both_ends() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 4) == [1, 2]
    assert spread([1, 2], 1) == [1]
