"""With indexes, without, with some or broken ones: every question about features has a dense matrix's answer."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina import _core
from lamina.errors import NotFoundError, SchemaError
from lamina.runs import indexing
from lamina.runs.chosen_units import ChosenUnits
from lamina.runs.scan import features, indexes
from tests.faults import broken

SITE = "mlp.output/sae"
WIDTH, EXAMPLES, POSITIONS = 40, 3, 5


class Truth(NamedTuple):
    """Rows in order of their names, and their codes."""

    rows: pl.DataFrame
    dense: np.ndarray

    def without(self, hidden: pl.Expr) -> Truth:
        kept = ~self.rows.select(hidden).to_series().to_numpy()
        return Truth(self.rows.filter(pl.Series(kept)), self.dense[kept])


def codes(draw: np.random.Generator, rows: int) -> np.ndarray:
    """Codes with ties, negative values, infinities and NaN; the first feature is dead, the second is always active."""
    dense = np.where(draw.random((rows, WIDTH)) < 0.2, draw.integers(-4, 9, (rows, WIDTH)) / 4, 0)
    dense[:, 0], dense[:, 1] = 0, 2.0
    dense[draw.integers(rows), 2], dense[draw.integers(rows), 3] = np.nan, np.inf
    return dense.astype(np.float16)


def recorded(path: Path, seed: int, *, twice: bool = False) -> tuple[lamina.Run, Truth]:
    """A run of two writers with codes of their own, and two that attached codes to rows of a third, to some both."""
    run, draw = lamina.Run.create(path), np.random.default_rng(seed)
    count = EXAMPLES * POSITIONS
    at = {"example": np.repeat(np.arange(EXAMPLES), POSITIONS), "position": np.tile(np.arange(POSITIONS), EXAMPLES)}
    dense, frames = [], []
    for writers in range(2):
        with run.writer() as writer:
            for step in (0, 10):
                dense.append(codes(draw, count))
                given = {"step": step + writers, "source": "train"} | at
                writer.features(SITE, dense[-1], threshold=0, **given).wait()
                first = (writer.ordinal << 40) + count * (step // 10)
                frames.append(pl.DataFrame({"row": np.arange(first, first + count), **given}))
    with run.writer() as writer:
        order = draw.permutation(count)
        given = {"step": 20, "source": "probe"} | {name: column[order] for name, column in at.items()}
        writer.append({"x": np.ones((count, 1))}, **given).wait()
        names = np.arange(count) + (writer.ordinal << 40)
    dense.append(codes(draw, count))
    frames.append(pl.DataFrame({"row": names, **given}))
    with run.writer() as writer, run.writer(full="drop") as other:
        some = draw.permutation(count)[: count - 4] if twice else np.arange(count - 4)
        writer.features(SITE, dense[-1][some], threshold=0, row=names[some]).wait()
        # of the rows that both gave codes, those of the first count
        rest = np.setdiff1d(np.arange(count), some)
        again = np.concatenate([some[:3], rest]) if twice else rest
        greater = dense[-1].copy()
        greater[some] = 9.0
        other.features(SITE, greater[again], threshold=0, row=names[again])
    rows = pl.concat([frame.with_columns(pl.col("step").cast(pl.Int64)) for frame in frames])
    return run.refresh(), Truth(rows, np.concatenate(dense))


def indexed(run: lamina.Run, keep: Callable[[int], bool] = lambda number: True) -> lamina.Run:
    for number, (file, *_, state) in enumerate(_core.feature_indexes(run._snapshot, SITE)):
        if keep(number) and state == "missing":
            assert _core.build_feature_index(run._snapshot, SITE, file, 1) > 0
    return run.refresh()


def index_files(run: lamina.Run) -> list[Path]:
    return sorted((run.path / "index").iterdir())


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def hidden(run: lamina.Run, truth: Truth) -> tuple[lamina.Run, Truth]:
    run.delete(SITE, steps=1, rows=[range((1 << 40) + 2, (1 << 40) + 6)])
    run.delete(rows=[range((2 << 40) + 3, (2 << 40) + 5)])
    run.delete(steps=10)
    row = pl.col("row")
    gone = row.is_between((1 << 40) + 2, (1 << 40) + 5) & (pl.col("step") == 1)
    return run, truth.without(gone | row.is_between((2 << 40) + 3, (2 << 40) + 4) | (pl.col("step") == 10))


STATES = [
    "never indexed",
    "indexed",
    "half indexed",
    "indexed, then hidden",
    "hidden, then indexed",
    "indexed, then compacted",
    "compacted, then indexed",
    "cold, then indexed",
    "damaged",
    "cut short",
    "newer",
]
BROKEN = {"damaged": "damaged", "cut short": "damaged", "newer": "newer"}


def brought(run: lamina.Run, truth: Truth, state: str) -> tuple[lamina.Run, Truth]:
    if state == "half indexed":
        indexed(run, lambda number: number % 2 == 0)
    if state.startswith("indexed") or state in BROKEN:
        indexed(run)
    if "hidden" in state:
        run, truth = hidden(run, truth)
    if "compacted" in state or "cold" in state:
        run.compact(cold=[SITE] if "cold" in state else (), progress=False)
    if state.endswith("then indexed"):
        indexed(run)
    for file in index_files(run) if state in BROKEN else []:
        if state == "damaged":
            flipped(file, 10)  # in what is said of the first feature that is active
        elif state == "cut short":
            file.write_bytes(file.read_bytes()[:-7])
        else:
            newer(file)
    return run.refresh(), truth


def newer(file: Path) -> None:
    data = bytearray(file.read_bytes())
    assert data[:8] == b"LAMFEAT1"
    data[7:8] = b"2"
    file.write_bytes(data)


@pytest.fixture(scope="module", autouse=True)
def few_are_one_in_four() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "_SHARE", 4)
        # what is damaged stays so: see test_damaged_indexes.py
        patch.setattr(indexing, "_leave", lambda path, **which: True)
        yield


CASES = [(state, False) for state in STATES] + [(STATES[number], True) for number in (0, 1, 2, 3, 6)]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[lamina.Run, Truth]:
    state, twice = request.param
    made = recorded(tmp_path_factory.mktemp("indexes") / "run", CASES.index(request.param), twice=twice)
    run, truth = brought(*made, state)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.features(SITE).filter(pl.col("feature") < 2).collect()
    texts = [str(warning.message) for warning in told]
    assert sum("several values" in text for text in texts) == twice
    unusable = [text for text in texts if "index of" in text]
    assert len(unusable) == (len(index_files(run)) if state in BROKEN else 0)
    assert all(("`lamina index`" in text) == (state == "newer") for text in unusable)
    return run, truth


PREDICATES = [
    pl.col("feature") == 7,
    pl.col("feature").is_in([3, 7, 30]) & (pl.col("step") > 5),
    (pl.col("feature") == 1) & (pl.col("position") > 2) & (pl.col("value") > 1),
    (pl.col("feature") == 2) & pl.col("value").is_nan(),
    (pl.col("feature") > 36) & (pl.col("source") == "probe"),
    pl.col("feature").is_in([0]),
    (pl.col("feature") == 7) & (pl.col("row") < pl.col("example")),
    (pl.col("feature") < 30) & (pl.col("example") == 1),
]


def test_chosen_features_are_those_of_the_dense_codes(case: tuple[lamina.Run, Truth]) -> None:
    run, (shown, dense) = case
    at, ids = dense.nonzero()
    long = shown[at].with_columns(feature=pl.Series(ids, dtype=pl.Int64), value=pl.Series(dense[at, ids]))
    for predicate in PREDICATES:
        wanted, frame = long.filter(predicate), run.features(SITE).filter(predicate)
        found = frame.select(wanted.columns).collect()
        assert found.equals(wanted), predicate
        assert frame.select("value").head(3).collect().equals(wanted.select("value").head(3))
        assert frame.select(pl.len()).collect().item() == wanted.height


def drawn(draw: np.random.Generator, depth: int = 2) -> pl.Expr:
    """A condition on features, values and metadata, of up to four terms."""
    if depth:
        one, other = drawn(draw, depth - 1), drawn(draw, depth - 1)
        return [one, one & other, one & other, one | other, ~one & other][draw.integers(5)]
    feature, value, k = pl.col("feature"), pl.col("value"), int(draw.integers(WIDTH))
    terms = [
        feature == k,
        feature.is_in(draw.integers(-2, WIDTH + 2, 6).tolist()),
        feature.is_between(k, k + 4),
        feature % 7 == k % 7,
        feature > pl.col("example") + k,
        value > 0.5,
        value.abs().is_between(0.5, 1),
        ~value.is_finite(),
        pl.col("step") >= draw.integers(25),
        pl.col("position") == k % POSITIONS,
        pl.col("source") == "probe",
        pl.col("row") % 3 == 1,
    ]
    return terms[draw.integers(len(terms))]


def test_any_condition_finds_what_the_dense_codes_satisfy(case: tuple[lamina.Run, Truth]) -> None:
    run, (shown, dense) = case
    at, ids = dense.nonzero()
    long = shown[at].with_columns(feature=pl.Series(ids, dtype=pl.Int64), value=pl.Series(dense[at, ids]))
    draw, frame = np.random.default_rng(len(long)), run.features(SITE).select(long.columns)
    found = 0
    for _ in range(12):
        condition = drawn(draw)
        wanted = long.filter(condition)
        assert frame.filter(condition).collect().equals(wanted), condition
        found += wanted.height > 0
    assert found > 4


def best_of(values: np.ndarray) -> list[int]:
    missing = np.isnan(values)
    return [at for at in np.lexsort((np.where(missing, 0, -values), missing)).tolist() if values[at] != 0]


def test_the_strongest_are_those_of_the_dense_codes(case: tuple[lamina.Run, Truth]) -> None:
    run, (shown, dense) = case
    rows = shown.select("step", "source", "example", "position").rows()
    places = {place: number for number, place in enumerate(rows)}
    for feature, k, context in [(0, 3, 1), (1, 7, 2), (2, 40, 0), (3, 4, 9), (7, 5, 1)]:
        values = dense[:, feature].astype(np.float64)
        best, wanted = best_of(values)[:k], []
        for rank, at in enumerate(best, 1):
            for offset in range(-context, context + 1):
                near = places.get((*rows[at][:3], rows[at][3] + offset))
                if near is not None:
                    wanted.append((rank, offset, values[near].item(), shown["row"][near]))
        found = run.top_examples(SITE, feature, k=k, context=context).select("rank", "offset", "value", "row")
        assert str(found.rows()) == str(wanted)
        of_step = [at for at in best_of(values) if rows[at][0] in (0, 20)][:k]
        found = run.top_examples(SITE, feature, k=k, context=context, step=[0, 20]).filter(offset=0)
        assert found["row"].to_list() == shown["row"][of_step].to_list()


def test_stats_are_those_of_the_dense_codes(case: tuple[lamina.Run, Truth]) -> None:
    run, (shown, dense) = case
    found = run.feature_stats(SITE).collect()
    assert found["feature"].to_list() == list(range(WIDTH))
    for row in found.iter_rows(named=True):
        column = dense[:, row["feature"]].astype(np.float64)
        active, steps = column[column != 0], shown["step"].to_numpy()[column != 0]
        assert (row["count"], row["density"]) == (active.size, pytest.approx(active.size / len(dense)))
        if not active.size:
            assert [row[name] for name in ("mean", "max", "q50", "first_step")] == [None] * 4
            continue
        assert row["mean"] == pytest.approx(active.mean(), rel=1e-12, nan_ok=True)
        assert str(row["max"]) == str(active.max().item())
        assert (row["first_step"], row["last_step"]) == (steps.min(), steps.max())
        finite = active[np.isfinite(active)]
        for quantile in (0.1, 0.5, 0.9, 0.99):
            wanted = np.quantile(finite, quantile, method="inverted_cdf")
            assert math.isclose(row[f"q{100 * quantile:02.0f}"], wanted, rel_tol=0.0443)


def test_pairs_are_those_of_the_dense_codes(case: tuple[lamina.Run, Truth]) -> None:
    run, (_, dense) = case
    active = dense != 0
    pairs = [(7, 8), (1, 7), (0, 7), (8, 7), (9, 9)]
    found = run.coactivations(SITE, pairs).collect()
    assert found.select("feature", "other").rows() == pairs
    for (one, other), row in zip(pairs, found.iter_rows(named=True), strict=True):
        both = active[:, one] & active[:, other]
        assert row["count"] == both.sum()
        assert row["expected"] == pytest.approx(active[:, one].mean() * active[:, other].sum())
        constant = any(active[:, side].all() or not active[:, side].any() for side in (one, other))
        phi = None if constant else np.corrcoef(active[:, one], active[:, other])[0, 1]
        assert row["phi"] == (phi if phi is None else pytest.approx(phi))


@pytest.mark.filterwarnings("ignore:rows have several values")
def test_blocks_of_chosen_features_are_those_of_the_dense_codes(case: tuple[lamina.Run, Truth]) -> None:
    run, (shown, dense) = case
    draw = np.random.default_rng(0)
    for source, some in (("train", [7, 1, 3]), ("probe", [2]), ("train", list(range(9)))):
        rows = run.rows(SITE, features=some, source=source)
        wanted = dense[(shown["source"] == source).to_numpy()][:, some]
        order = draw.integers(0, len(wanted), 3 * len(wanted))
        # the codes of the first rows are scanned, then all units of the features are kept, as far as indexes go
        for size in (1, 5, 50):
            assert np.array_equal(torch.cat(list(rows.blocks(size))).numpy(), wanted, equal_nan=True)
            codes = torch.cat([block.dense() for block in rows.codes(size)]).numpy()
            assert np.array_equal(codes, wanted, equal_nan=True)
            assert np.array_equal(rows.gather(order).numpy(), wanted[order], equal_nan=True)
            shuffled = rows[order].to(dtype=torch.float64)
            assert np.array_equal(shuffled[3:9].gather([5, 0, 0]).numpy(), wanted[order[[8, 3, 3]]], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_blocks_of_any_type_keep_their_bits(run: lamina.Run, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    dense = torch.from_numpy(codes(np.random.default_rng(0), 60)).to(dtype)
    dense[3, 5], dense[4, 5] = float("nan"), -float("nan")
    with run.writer() as writer:
        writer.features(SITE, dense, threshold=0, step=0)
    scanned = run.refresh().rows(SITE, features=[5, 0, 1]).gather(range(60))
    rows = indexed(run).rows(SITE, features=[5, 0, 1])
    with monkeypatch.context() as patch:
        patch.setattr(ChosenUnits, "_keep", None)
        rows.gather(range(20))  # less than all units by the index: one in eight of all, times four
        with pytest.raises(TypeError):
            rows.gather(range(20))
        rows = indexed(run).rows(SITE, features=[5, 0, 1])
        patch.setattr(os, "getpid", lambda: 0)  # a fork
        rows.gather(range(60))
    found = rows.gather(range(60))
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(found.view(bits), scanned.view(bits))
    assert torch.equal(found.isnan(), dense[:, [5, 0, 1]].isnan())


@pytest.mark.parametrize(
    ("fault", "twice"),
    [
        ("indexes_answer_for_all", False),
        ("indexes_answer_for_all", True),
        ("indexes_are_off_by_a_row", True),
        ("rows_that_are_found_are_off_by_one", False),
        ("features_forget_their_rows", False),
    ],
)
@pytest.mark.filterwarnings("ignore:rows have several values")
def test_wrong_answers_would_be_noticed(tmp_path: Path, fault: str, twice: bool) -> None:
    made = brought(*recorded(tmp_path / "run", 1, twice=twice), "half indexed")
    for check in (
        test_chosen_features_are_those_of_the_dense_codes,
        test_blocks_of_chosen_features_are_those_of_the_dense_codes,
        test_any_condition_finds_what_the_dense_codes_satisfy,
    ):
        with broken(fault), pytest.raises(AssertionError):
            check(made)


def test_what_is_indexed_is_not_scanned(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with run.writer() as writer:
        writer.features(SITE, codes(np.random.default_rng(0), 300), threshold=0, step=0)
    indexed(run.refresh())
    read = _core.codes_at

    def few(snapshot: Any, site: str, groups: np.ndarray, *rest: Any) -> Any:
        assert groups.size <= 8 * 3, "the codes were scanned"
        return read(snapshot, site, groups, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(_core, "codes_at", few)
        assert run.features(SITE).filter(pl.col("feature") == 1).collect().height == 300
        assert run.top_examples(SITE, 1, k=3).height == 3
        assert run.coactivations(SITE, [(1, 7)]).collect()["expected"].item() > 0
        with pytest.raises(AssertionError, match="scanned"):
            run.features(SITE).filter(pl.col("feature") > 7).collect()
        # one feature of forty is few, but a ninth of the units
        patch.setattr(indexes, "_SHARE", 16)
        assert run.features(SITE).filter(pl.col("feature") == 0).collect().is_empty()
        with pytest.raises(AssertionError, match="scanned"):
            run.features(SITE).filter(pl.col("feature") == 1).collect()
        patch.setattr(indexes, "_SHARE", 4)
        patch.setattr(indexes, "_MOST_FOUND", 299)
        with pytest.raises(AssertionError, match="scanned"):
            run.features(SITE).filter(pl.col("feature") == 1).collect()


def test_what_each_of_very_many_features_has_is_not_counted(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    width = 2**31 - 1
    with run.writer() as writer:
        writer.features(SITE, (torch.ones(2, 2), torch.tensor([[0, width - 1], [5, 0]])), width=width, step=0)
    indexed(run.refresh())
    monkeypatch.setattr(_core, "feature_stats", None)
    assert run.coactivations(SITE, [(0, width - 1), (5, 0)]).collect()["count"].to_list() == [1, 1]
    assert run.features(SITE).filter(pl.col("feature") == 0).collect().height == 2
    assert run.top_examples(SITE, width - 1, k=3)["value"].to_list() == [1.0]


def test_more_features_than_are_looked_at_at_once(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = codes(np.random.default_rng(3), 40)
    with run.writer() as writer:
        writer.features(SITE, dense, threshold=0, step=0)
    indexed(run.refresh())
    wanted = pl.col("feature") % 3 == 1
    every = run.features(SITE).filter(wanted).collect()
    assert every.height == (dense[:, 1::3] != 0).sum()
    with monkeypatch.context() as patch:
        patch.setattr(features, "_AT_ONCE", 5)
        patch.setattr(features, "_MOST_FEATURES", dense.shape[1] - 1)
        frame = run._wide.features(SITE)
        assert frame._planned(wanted).features is not None, "there are more units than features"
        assert run.refresh().features(SITE).filter(wanted).collect().equals(every)
        patch.setattr(features, "_MOST_FEATURES", 2)
        assert frame._planned(wanted).features is None, "too many of them pass"
        seven = frame._planned(pl.col("feature") == 7).features
        assert seven is not None
        assert seven.tolist() == [7]
        assert run.refresh().features(SITE).filter(wanted).collect().equals(every)


def test_statistics_of_more_features_than_fit_are_refused(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.features(SITE, (torch.ones(1, 1), torch.zeros(1, 1).long()), width=2**31 - 1, step=0)
    with pytest.raises(SchemaError, match=r"2,147,483,647 features do not fit.*group_by"):
        run.refresh().feature_stats(SITE).collect()


def test_rows_of_a_segment_that_is_open_are_scanned(run: lamina.Run) -> None:
    dense = codes(np.random.default_rng(0), 8)
    with run.writer() as writer:
        writer.features(SITE, dense, threshold=0, step=0)
    with run.writer() as writer:
        writer.features(SITE, dense, threshold=0, step=1).wait()
        run.refresh().index(progress=False)
        assert run.indexes()["state"].to_list() == ["ready", "open"]
        found = run.features(SITE).filter(pl.col("feature") == 7).collect()
        assert found["value"].to_list() == 2 * dense[dense[:, 7] != 0, 7].tolist()


def test_indexing_builds_what_is_not_ready(tmp_path: Path) -> None:
    run, _ = recorded(tmp_path / "run", 0)
    assert str(run.index("mlp.*", progress=False)).startswith("4 segments indexed (")
    assert str(run.index(progress=False)) == "4 segments ready before"
    first, second, *_ = index_files(run)
    flipped(first, -40)
    second.unlink()
    run.refresh()
    done = run.index(progress=False)
    assert str(done).startswith("2 segments indexed (")
    assert str(done).endswith("; 1 had a damaged index; 2 segments ready before")
    assert (done.segments["bytes"] > 0).sum() == 2
    assert set(run.refresh().indexes()["state"]) == {"ready"}
    with pytest.raises(SchemaError, match="x: no sparse codes"):
        run.index("x")
    with pytest.raises(NotFoundError):
        run.indexes("sae")


def test_large_segments_are_indexed_behind_a_writer(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(indexing, "_leave", lambda path, **which: started.append((path, which)))
    monkeypatch.setattr(indexing, "UNASKED", 100)
    dense = np.ones((10, 9), np.float32)
    for index, rows in ((True, 10), (True, 12), (False, 12)):
        with run.writer(index=index) as writer:
            writer.features(SITE, np.resize(dense, (rows, 9)), threshold=0, step=0)
    assert started == [(run.path, {"ordinal": 1})]
    indexing.main(str(run.path), ordinal=1)
    assert run.refresh().indexes()["state"].to_list() == ["missing", "ready", "missing"]
    monkeypatch.setattr(indexing, "_BYTES", 500)
    with run.writer() as writer:
        for _ in range(2):
            writer.features(SITE, np.resize(dense, (12, 9)), threshold=0, step=0)
        assert len(started) == 3


def test_large_segments_are_indexed_behind_a_compaction(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(indexing, "_leave", lambda path, **which: started.append((path, which)))
    with run.writer() as writer:
        for step in range(2):
            writer.features(SITE, np.ones((12, 9), np.float32), threshold=0, step=step).wait()
    run.refresh().index(progress=False)
    run.compact(progress=False)  # too few to be worth it
    run.delete(SITE, steps=0)
    monkeypatch.setattr(indexing, "UNASKED", 100)
    run.compact(index=False, progress=False)
    assert started == []
    run.compact(progress=False)
    assert started == [(run.path, {})]
    indexing.main(str(run.path))
    assert run.refresh().indexes()["state"].to_list() == ["ready"]
    run.compact(progress=False)
    assert len(started) == 1


@pytest.mark.parametrize("pairs", [[(1,)], [(0.5, 1)], [(0, WIDTH)], [(-1, 0)], 3, "ab", [(1, 2), (3,)], None])
def test_pairs_that_are_none_are_refused(run: lamina.Run, pairs: Any) -> None:
    with run.writer() as writer:
        writer.features(SITE, codes(np.random.default_rng(0), 8), threshold=0, step=0)
    with pytest.raises(SchemaError, match="feature"):
        run.refresh().coactivations(SITE, pairs)
    assert run.coactivations(SITE, []).collect().is_empty()
