"""Several runs become one: nothing is lost or made up, and what contradicts is refused before a byte is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import lamina
from lamina.errors import NotARunError, SchemaError
from tests.faults import broken
from tests.runs.planted_groups import attach
from tests.runs.test_keeping_compact import planted
from tests.store import reader


def node(path: Path, number: int, **config: Any) -> lamina.Run:
    """A run with two writers, whose values say where they come from; the examples of four runs are disjoint."""
    run = lamina.Run.create(path / f"node-{number}", config=config)
    for rank in range(2):
        examples = 8 * number + 4 * rank + np.arange(4)
        with run.writer(rank=2 * number + rank) as writer:
            for step in range(3):
                x = np.full((4, 3), 100 * number + 10 * rank + step, np.float32)
                x[0, 0] = np.array(0x7FC00000 + number + 1, np.uint32).view(np.float32)
                x[1, 1] = -0.0
                writer.append({"x": x}, step=step, example=examples, name=[f"n{number}", None, "", "ü"])
                writer.log({"loss": number + rank / 2}, step=step, source=f"s{number}")
            writer.examples({"example": examples, "label": [f"e{k}" for k in examples]})
            writer.examples({"example": [1000], "label": ["shared"]})
    return run.refresh()


def rows_of(run: lamina.Run) -> pl.DataFrame:
    frame = run.activations(bits=True).collect()
    return frame.select(sorted(frame.columns)).sort("row")


def bits_of(run: lamina.Run, site: str) -> dict[str | None, torch.Tensor]:
    """The bits of a site's rows, source by source."""
    sources = run.activations(site).collect()
    sources = sources["source"].unique().sort().to_list() if "source" in sources.columns else [None]
    found = {}
    for source in sources:
        rows = run.rows(site, where=pl.col("source").eq_missing(pl.lit(source)) if len(sources) > 1 else None)
        found[source] = rows.gather(range(len(rows))).contiguous().view(torch.uint8)
    return found


def assert_holds(merged: lamina.Run, runs: list[lamina.Run]) -> None:
    """Rows, examples and metrics are those of the runs, in order, with the names that `sources` says."""
    shifts = dict(merged.sources().select("id", "row_shift").iter_rows())
    parts = [rows_of(run).with_columns(pl.col("row") + shifts[run.id]) for run in runs]
    expected = pl.concat(parts, how="diagonal")
    found = rows_of(merged)
    assert_frame_equal(found, expected.select(found.columns), check_exact=True)
    for site in merged.sites()["site"]:
        parts = [bits_of(run, site) for run in runs if site in run.sites()["site"]]
        for source, found in bits_of(merged, site).items():
            assert torch.equal(found, torch.cat([part[source] for part in parts if source in part])), (site, source)
    metrics = pl.concat([run.metrics().collect() for run in runs])
    assert_frame_equal(merged.metrics().collect(), metrics, check_exact=True)
    # no two say different things of one example
    examples = pl.concat([run.examples().collect() for run in runs], how="diagonal")
    examples = examples.group_by("example").agg(pl.all().drop_nulls().first())
    assert_frame_equal(merged.examples().collect().sort("example"), examples.sort("example"), check_column_order=False)
    assert merged.verify().ok


def test_runs_of_the_same_writers_become_one(tmp_path: Path) -> None:
    runs = [node(tmp_path, number, lr=0.5) for number in range(3)]
    merged = lamina.merge(lamina.open_runs(tmp_path / "node-*"), tmp_path / "merged")
    assert_holds(merged, runs)
    assert merged.config == {"lr": 0.5}
    names = merged.activations("x").select("row").collect()["row"]
    assert names.n_unique() == 72
    said = merged.sources().select("run", "id", "writer_shift", "row_shift").rows()
    assert said == [(f"node-{k}", run.id, 2 * k, 2 * k << 40) for k, run in enumerate(runs)]
    assert [writer.rank for writer in merged.status.writers] == [0, 1, 2, 3, 4, 5]
    assert merged.status.state == "finished"
    found = reader.read(merged.path)
    values = [value for group in found.groups if group.sites for value in group.sites["x"][2::4, 2].tolist()]
    assert values == [100 * k + 10 * rank + step for k in range(3) for rank in range(2) for step in range(3)]
    assert [entry["shift"] for entry in found.info["sources"]] == [0, 2, 4]


def test_the_comparison_notices_a_lost_row(tmp_path: Path) -> None:
    runs = [node(tmp_path, number) for number in range(2)]
    with broken("copying_loses_a_row"):
        merged = lamina.merge(runs, tmp_path / "merged")
    with pytest.raises(AssertionError):
        assert_holds(merged, runs)


def test_what_was_done_to_the_runs_holds_in_the_merged_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        planted(tmp_path / name)
    runs = [lamina.open(tmp_path / name) for name in ("a", "b")]
    attach(runs[1].path, 7, "code", [([13, 2, 1, 4], np.arange(8, dtype=np.float32).reshape(4, 2))])
    for run in runs:
        run.refresh().delete(rows=[3, (1 << 40) + 1]).rewind(5)
    runs[0].compact(cold="x")
    runs[1].delete("loss", steps=2)
    merged = lamina.merge(runs, tmp_path / "merged")
    assert_holds(merged, runs)
    assert_frame_equal(rows_of(lamina.open(merged.path, hidden=True)), rows_of(merged))
    # the merged run is a run: it is written to, kept, and merged again
    with merged.writer() as writer:
        writer.append({"x": np.zeros((1, 3), np.float32), "loss": np.zeros(1)}, step=7)
    merged.refresh().delete(rows=[5]).compact()
    other = node(tmp_path, 0)
    again = lamina.merge([other.path, merged], tmp_path / "again")
    assert_holds(again, [other, merged])
    said = again.sources().select("id", "writer_shift").rows()
    first = merged.sources()["writer_shift"].to_list()
    moved = dict(said)[merged.id]
    assert said == [
        (other.id, 0),
        (merged.id, moved),
        *((run.id, moved + shift) for run, shift in zip(runs, first, strict=True)),
    ]
    assert moved == 2


def test_checkpoints_come_along_and_equal_chunks_are_stored_once(tmp_path: Path) -> None:
    frozen, states = torch.randn(700_000), []
    for number in range(2):
        run = lamina.Run.create(tmp_path / f"run-{number}")
        state = {"frozen": frozen, "own": torch.full((1000,), float(number))}
        states.append(state)
        with run.writer() as writer:
            writer.save({"shared": {"frozen": frozen}}, step=0)
            writer.save({f"model-{number}": {"frozen": torch.zeros(3)}}, step=1)
            writer.save({f"model-{number}": state}, step=1)
    merged = lamina.merge(lamina.open_runs(tmp_path / "run-*"), tmp_path / "merged")
    for number, state in enumerate(states):
        found = merged.load(1, part=f"model-{number}")
        assert all(torch.equal(found[name], state[name]) for name in state)
    assert torch.equal(merged.load(0, part="shared")["frozen"], frozen)
    packed = sum(path.stat().st_size for path in (merged.path / "chunks").iterdir())
    assert packed == 4 * (700_000 + 2 * 1000)
    assert reader.read(merged.path).checkpoints.keys() == {0, 1}
    assert merged.verify().ok


def one(path: Path, name: str, **holds: Any) -> lamina.Run:
    run = lamina.Run.create(path / name, config=holds.get("config"))
    with run.writer() as writer:
        if "sites" in holds:
            writer.append(holds["sites"], step=0, **holds.get("columns", {}))
        if "examples" in holds:
            writer.examples(holds["examples"])
        if "save" in holds:
            writer.save(holds["save"], step=4)
    return run.refresh()


X = {"x": np.zeros((2, 3), np.float32)}
CONTRADICTIONS = {
    "dtype": (
        {"sites": X},
        {"sites": {"x": np.zeros((2, 3), np.float16)}},
        r"site \"x\" holds f32 \[3\] in \"a\" and f16",
    ),
    "shape": (
        {"sites": X},
        {"sites": {"x": np.zeros((2, 4), np.float32)}},
        r"f32 \[3\] in \"a\" and f32 \[4\] in \"b\"",
    ),
    "column": (
        {"sites": X, "columns": {"k": [1, 2]}},
        {"sites": X, "columns": {"k": ["1", "2"]}},
        r"column \"k\" holds int in \"a\" and str in \"b\"",
    ),
    "role": (
        {"sites": X},
        {"sites": {"y": X["x"]}, "columns": {"x": [1, 2]}},
        r"a site in \"a\" and a column in \"b\"",
    ),
    "role turned": (
        {"sites": {"y": X["x"]}, "columns": {"x": [1, 2]}},
        {"sites": X},
        r"a site in \"b\" and a column in \"a\"",
    ),
    "config": (
        {"config": {"m": {"d": 1, "e": 2}}},
        {"config": {"m": {"d": True, "e": 2}}},
        r"m\.d is 1 in 'a' and True in 'b'",
    ),
    "config lacks": ({"config": {"lr": 1}}, {}, r"lr is 1 in 'a' and absent in 'b'"),
    "example": (
        {"examples": {"example": [1, 2], "label": ["p", "q"]}},
        {"examples": {"example": [2, 3], "label": ["r", "s"]}},
        "example 2 has the label 'q' in 'a' and 'r' in 'b'",
    ),
    "null example": (
        {"examples": {"example": [1, 2], "label": ["p", "q"]}},
        {"examples": {"example": [2, 3], "label": [None, "s"]}},
        "example 2 has the label 'q' in 'a' and None in 'b'",
    ),
    "type of an example": (
        {"examples": {"example": [1], "label": ["p"]}},
        {"examples": {"example": [2], "label": [0.5]}},
        r"column \"label\" holds str in \"a\" and float in \"b\"",
    ),
    "checkpoint": (
        {"save": {"model": {"w": torch.zeros(2)}}},
        {"save": {"model": {"w": -torch.zeros(2)}}},
        r"different checkpoints of part \"model\" at step 4",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_is_refused_before_anything_is_written(tmp_path: Path, case: str) -> None:
    first, second, message = CONTRADICTIONS[case]
    runs = [one(tmp_path, "a", **first), one(tmp_path, "b", **second)]
    with pytest.raises(SchemaError, match=message):
        lamina.merge(runs, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_hidden_contradicts_nothing(tmp_path: Path) -> None:
    runs = [one(tmp_path, "a", sites=X), one(tmp_path, "b", sites={"x": np.zeros((2, 3), np.float16)})]
    runs[1].delete("x")
    assert lamina.merge(runs, tmp_path / "merged").sites().select("dtype", "rows").rows() == [("f32", 2)]


def test_examples_may_be_said_again_and_added_to(tmp_path: Path) -> None:
    nan = float("nan")
    a = one(tmp_path, "a", examples={"example": [1, 2], "label": ["p", None], "score": [nan, -0.0]})
    b = one(tmp_path, "b", examples={"example": [2, 3], "label": [None, "s"], "score": [-0.0, 1.0]})
    c = one(tmp_path, "c", examples={"example": [1, 3], "topic": ["t", None]})
    found = lamina.merge([a, b, c], tmp_path / "merged").examples().collect().sort("example")
    assert found["label"].to_list() == ["p", None, "s"]
    assert found["topic"].to_list() == ["t", None, None]
    assert np.array_equal(found["score"].to_numpy(), [nan, 0, 1], equal_nan=True)


def test_the_config_can_be_said_where_those_of_the_runs_differ(tmp_path: Path) -> None:
    runs = [one(tmp_path, name, config={"shard": name}, sites=X) for name in "ab"]
    merged = lamina.merge(runs, tmp_path / "merged", config={"shards": 2})
    assert merged.config == {"shards": 2}
    assert merged.sources()["config"].to_list() == ['{"shard": "a"}', '{"shard": "b"}']


def test_no_row_comes_twice(tmp_path: Path) -> None:
    a, b = one(tmp_path, "a", sites=X), one(tmp_path, "b", sites=X)
    merged = lamina.merge([a, b], tmp_path / "merged")
    copy = a.copy(tmp_path / "copy")
    for runs in ([a, copy], [merged, b], [copy, merged]):
        with pytest.raises(SchemaError, match="both hold what run"):
            lamina.merge(runs, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_odd_arguments_are_refused(tmp_path: Path) -> None:
    a = one(tmp_path, "a", sites=X)
    with pytest.raises(SchemaError, match="no runs"):
        lamina.merge([], tmp_path / "merged")
    with pytest.raises(SchemaError, match="given twice"):
        lamina.merge([a, lamina.open(a.path)], tmp_path / "merged")
    with pytest.raises(SchemaError, match="several runs"):
        lamina.merge(cast(Any, a), tmp_path / "merged")
    with pytest.raises(NotARunError, match="nothing at"):
        lamina.merge([a, tmp_path / "b"], tmp_path / "merged")
    with pytest.raises(NotARunError, match="already exists"):
        lamina.merge([a, one(tmp_path, "b")], a.path)
    shuffled = [a.preshuffle(tmp_path / f"s{k}", "x", seed=0) for k in range(2)]
    with pytest.raises(SchemaError, match="shuffled"):
        lamina.merge(shuffled, tmp_path / "merged")
    rows = lamina.merge(shuffled, tmp_path / "merged", config={}).rows("x")
    assert len(rows) == 4
