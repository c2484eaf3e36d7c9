"""What features do, and where: equal to what NumPy computes from dense codes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.runs.scan import features, units
from tests.faults import broken

SITE = "mlp.output/sae"
WIDTH, EXAMPLES, POSITIONS = 12, 4, 7


def planted(seed: int) -> np.ndarray:
    """[steps, examples, positions, features]: the first feature is dead, the second late, the third constant."""
    draw = np.random.default_rng(seed)
    shape = (3, EXAMPLES, POSITIONS, WIDTH)
    dense = np.where(draw.random(shape) < 0.3, draw.lognormal(size=shape) * draw.choice([-1, 1], shape), 0)
    dense[..., 0], dense[:2, ..., 1], dense[..., 2] = 0, 0, 1.5
    return dense.astype(np.float32)


@pytest.fixture(scope="module", params=[0, 1])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[lamina.Run, np.ndarray]:
    dense = planted(request.param)
    run = lamina.Run.create(tmp_path_factory.mktemp("questions") / "run")
    with run.writer() as writer:
        for step, codes in enumerate(dense):
            writer.features(SITE, codes, threshold=0, step=10 * step, example=np.arange(EXAMPLES)).wait()
        at = np.arange(EXAMPLES * POSITIONS)
        tokens = {"example": at // POSITIONS, "position": at % POSITIONS, "token": [f"t{number}" for number in at]}
        writer.examples(tokens)
    return run.refresh(), dense


def test_stats_are_those_of_the_dense_codes(case: tuple[lamina.Run, np.ndarray]) -> None:
    run, dense = case
    flat = dense.reshape(-1, WIDTH).astype(np.float64)
    steps = np.repeat([0, 10, 20], EXAMPLES * POSITIONS)
    found = run.feature_stats(SITE).collect()
    assert found["feature"].to_list() == list(range(WIDTH))
    for row in found.iter_rows(named=True):
        column = flat[:, row["feature"]]
        active, at = column[column != 0], steps[column != 0]
        assert row["count"] == active.size
        assert math.isclose(row["density"], active.size / len(flat), rel_tol=1e-15)
        assert row["dead"] == (active.size == 0)
        if not active.size:
            assert [row[name] for name in ("mean", "max", "q50", "first_step", "last_step")] == [None] * 5
            continue
        assert math.isclose(row["mean"], active.mean(), rel_tol=1e-12, abs_tol=1e-12)
        assert (row["max"], row["first_step"], row["last_step"]) == (active.max(), at.min(), at.max())
        for quantile in (0.1, 0.5, 0.9, 0.99):
            wanted = np.quantile(active, quantile, method="inverted_cdf")
            # half a bin: 2^(1/16)
            assert math.isclose(row[f"q{100 * quantile:02.0f}"], wanted, rel_tol=0.0443)


@pytest.mark.parametrize(("k", "context"), [(3, 2), (20, 0), (1000, 8)])
def test_the_strongest_activations_with_their_neighbors(
    case: tuple[lamina.Run, np.ndarray], k: int, context: int
) -> None:
    run, dense = case
    for feature in (0, 1, 2, 7):
        values = dense[..., feature].reshape(-1)
        order = sorted(np.flatnonzero(values).tolist(), key=lambda row: (-values[row], row))[:k]
        wanted = []
        for rank, row in enumerate(order, 1):
            for offset in range(-context, context + 1):
                position = row % POSITIONS + offset
                if 0 <= position < POSITIONS:
                    near = row + offset
                    step, example = divmod(near // POSITIONS, EXAMPLES)
                    token = f"t{example * POSITIONS + position}"
                    wanted.append((rank, offset, values[near].item(), near, 10 * step, example, position, token))
        found = run.top_examples(SITE, feature, k=k, context=context)
        assert found.columns == ["rank", "offset", "value", "row", "step", "example", "position", "token"]
        assert found.rows() == wanted


@pytest.mark.parametrize(("step", "steps"), [(10, [1]), (slice(10, None), [1, 2]), ([0, 20], [0, 2])])
def test_the_strongest_of_some_steps(case: tuple[lamina.Run, np.ndarray], step: Any, steps: list[int]) -> None:
    run, dense = case
    of_step = EXAMPLES * POSITIONS
    for feature in (0, 1, 2, 7):
        values = dense[..., feature].reshape(-1)
        meant = [row for row in np.flatnonzero(values).tolist() if row // of_step in steps]
        order = sorted(meant, key=lambda row: (-values[row], row))
        for k in (2, 1000):
            found = run.top_examples(SITE, feature, k=k, context=1, step=step)
            assert found.filter(offset=0)["row"].to_list() == order[:k]
            assert set(found["step"]) <= {10 * at for at in steps}
    with pytest.raises(NotFoundError, match="step 5"):
        run.top_examples(SITE, 7, step=5)


def test_what_is_known_of_examples_is_found_in_any_order(tmp_path: Path) -> None:
    at = np.arange(EXAMPLES * POSITIONS)
    for name, order in (("ascending", at), ("falling", at[::-1])):
        run = lamina.Run.create(tmp_path / name)
        with run.writer() as writer:
            writer.features(SITE, planted(2)[0], threshold=0, step=0, example=np.arange(EXAMPLES))
            table = {"example": order // POSITIONS, "position": order % POSITIONS, "token": [f"t{at}" for at in order]}
            writer.examples(table)
        shown = run.refresh().top_examples(SITE, 7, k=5, context=1)
        assert shown["token"].to_list() == [f"t{row}" for row in shown["row"]]


@pytest.mark.parametrize("seed", range(8))
def test_what_is_known_of_examples_is_that_of_their_rows(tmp_path: Path, seed: int) -> None:
    """Of tables with gaps, of whole examples, in any order: what is said of the position, else of the example."""
    draw = np.random.default_rng(seed)
    places = [(example, position) for example in range(EXAMPLES) for position in range(POSITIONS)]
    if seed % 2:
        places = [place for place in places if draw.random() < 0.9]
    if seed % 4 > 1:
        places += [(example, None) for example in range(EXAMPLES) if draw.random() < 0.6]
    if seed > 3:
        draw.shuffle(places)
    run = lamina.Run.create(tmp_path / "run")
    keys = {"example": [place[0] for place in places], "position": [place[1] for place in places]}
    with run.writer() as writer:
        writer.features(SITE, planted(3)[0], threshold=0, step=0, example=np.arange(EXAMPLES))
        writer.examples(
            pl.DataFrame(keys, schema=dict.fromkeys(keys, pl.Int64)).with_columns(known=pl.Series(map(str, places)))
        )
    known = {place: str(place) for place in places}
    shown = run.refresh().top_examples(SITE, 7, k=9, context=2)
    wanted = [known.get(place, known.get((place[0], None))) for place in shown.select("example", "position").rows()]
    assert shown["known"].to_list() == wanted


def test_batches_of_any_size_say_the_same(case: tuple[lamina.Run, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    run, dense = case
    whole = run.features(SITE).collect()
    for most, rows in ((1, 1 << 18), (7, 3), (1 << 21, 5)):
        monkeypatch.setattr(features, "BATCH", most)
        monkeypatch.setattr(units, "_ROWS", rows)
        assert run.features(SITE).collect().equals(whole)
        assert run.features(SITE).head(11).collect().equals(whole.head(11))
        test_stats_are_those_of_the_dense_codes((run, dense))


def test_wrong_neighbors_would_be_noticed(case: tuple[lamina.Run, np.ndarray]) -> None:
    with broken("features_count_the_rows_of_one_group"), pytest.raises(AssertionError):
        test_stats_are_those_of_the_dense_codes((case[0].refresh(), case[1]))
    for fault in ("features_are_counted_from_one", "features_forget_their_rows"):
        with broken(fault), pytest.raises(AssertionError):
            test_the_strongest_activations_with_their_neighbors(case, 3, 2)
    case[0].refresh()


def test_codes_without_positions_or_examples_have_no_context(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.features(SITE, np.array([[1.0], [np.nan], [3.0]], np.float16), threshold=0, step=0)
    shown = run.refresh().top_examples(SITE, 0, k=2)
    assert shown.select("rank", "row").rows()[-1] == (2, 0)
    stats = run.feature_stats(SITE).collect().row(0, named=True)
    assert stats["count"] == 3
    assert math.isnan(stats["mean"])
    assert 2.8 < stats["q99"] < 3.2


@pytest.mark.parametrize("feature", [-1, WIDTH, 1.0, True, "7"])
def test_a_feature_that_is_none_is_refused(case: tuple[lamina.Run, np.ndarray], feature: Any) -> None:
    with pytest.raises(SchemaError, match="feature"):
        case[0].top_examples(SITE, feature)
    with pytest.raises(NotFoundError, match="no site"):
        case[0].feature_stats("mlp.output/sea")


@pytest.mark.parametrize("given", [{"k": 0}, {"k": 2.5}, {"k": True}, {"context": -1}, {"context": "8"}])
def test_what_is_no_number_of_rows_is_refused(case: tuple[lamina.Run, np.ndarray], given: Any) -> None:
    with pytest.raises(SchemaError, match="give an integer"):
        case[0].top_examples(SITE, 7, **given)
    of_numpy: Any = np.uint8(7), {"k": np.int8(100), "context": np.uint8(0)}
    found = case[0].top_examples(SITE, of_numpy[0], **of_numpy[1])
    assert found.equals(case[0].top_examples(SITE, 7, k=100, context=0))
    assert case[0].top_examples(SITE, 7, k=2**70, context=2**70).height > 100


def test_several_runs_are_asked_at_once(tmp_path: Path) -> None:
    for seed in range(2):
        run = lamina.Run.create(tmp_path / f"seed-{seed}")
        with run.writer() as writer:
            writer.features(SITE, np.full((1 + seed, 1), 2.0, np.float32), threshold=0, step=0)
    lamina.Run.create(tmp_path / "empty")
    runs = lamina.open_runs(tmp_path / "*")
    counts = runs.features(SITE).group_by("run").len().sort("run").collect()
    assert counts.rows() == [("seed-0", 1), ("seed-1", 2)]
    with pytest.raises(NotFoundError):
        runs.features("other")
    assert runs.features(SITE).filter(pl.col("value") > 2).collect().is_empty()
