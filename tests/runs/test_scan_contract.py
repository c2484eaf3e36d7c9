"""The wide frame keeps Polars' contract for IO sources, row by row of the project's table of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.runs.scan import scan
from lamina.runs.scan.groups import Span
from lamina.runs.scan.predicates import conjuncts
from lamina.runs.scan.values import Values
from tests.faults import broken

STEPS, EXAMPLES = 6, 50
ENGINES: list[Any] = ["in-memory", "streaming"]


def planted(step: int, example: int) -> list[float]:
    return [float(step), float(example), float(step * example)]


@pytest.fixture
def wide(run: lamina.Run) -> lamina.Run:
    """Every step is a row group: x of all examples, y of the even steps, with a null and a NaN among the metadata."""
    with run.writer() as writer:
        for step in range(STEPS):
            sites: dict[str, np.ndarray] = {"x": np.array([planted(step, e) for e in range(EXAMPLES)], np.float32)}
            if step % 2 == 0:
                sites["y"] = np.full(EXAMPLES, step, np.int64)
            score = [None if e == 3 else float("nan") if e == 4 else e / 2 for e in range(EXAMPLES)]
            writer.append(sites, step=step, example=list(range(EXAMPLES)), score=score, name=f"step {step}")
            writer.flush()
    return run.refresh()


def expected() -> pl.DataFrame:
    rows = [(step, example) for step in range(STEPS) for example in range(EXAMPLES)]
    return pl.DataFrame(
        {
            "row": range(STEPS * EXAMPLES),
            "step": [step for step, _ in rows],
            "example": [example for _, example in rows],
            "score": [None if e == 3 else float("nan") if e == 4 else e / 2 for _, e in rows],
            "name": [f"step {step}" for step, _ in rows],
            "x": pl.Series([planted(*row) for row in rows], dtype=pl.Array(pl.Float32, 3)),
            "y": pl.Series([step if step % 2 == 0 else None for step, _ in rows], dtype=pl.Int64),
        }
    )


PREDICATES = {
    "metadata": pl.col("example") < 5,
    "metadata of another column": (pl.col("step") > 2) & (pl.col("name") != "step 4"),
    "a vector": pl.col("x").arr.get(2) > 60,
    "both": (pl.col("step") == 5) & (pl.col("x").arr.get(1) >= 48),
    "a disjunction of both": (pl.col("step") == 5) | (pl.col("x").arr.get(2) == 0),
    "null": pl.col("score").is_null(),
    "NaN": pl.col("score").is_nan(),
    "null comparison": pl.col("score") > 20,
    "a site that is null in some groups": pl.col("y") == 4,
    "membership": pl.col("name").is_in(["step 1", "step 3"]),
    "nothing": pl.col("example") > EXAMPLES,
    "the row name": pl.col("row") >= 280,
    "negated": ~((pl.col("example") < 49) | (pl.col("step") < 4)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PREDICATES)
def test_filters_are_exact(wide: lamina.Run, name: str, engine: Any) -> None:
    found = wide.activations().filter(PREDICATES[name]).collect(engine=engine)
    assert found.equals(expected().filter(PREDICATES[name]), null_equal=True)


def test_everything_comes_back_in_row_order(wide: lamina.Run) -> None:
    frame = wide.activations()
    assert frame.collect_schema() == expected().schema
    assert frame.collect().equals(expected())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [0, 1, 5, EXAMPLES, EXAMPLES + 1, 1000])
def test_the_number_of_rows_is_exact(wide: lamina.Run, count: int, engine: Any) -> None:
    assert wide.activations().head(count).collect(engine=engine).equals(expected().head(count))
    after = wide.activations().filter(pl.col("example") > 44).head(count).collect(engine=engine)
    assert after.equals(expected().filter(pl.col("example") > 44).head(count))


def test_a_number_of_rows_counted_by_batch_would_be_noticed(wide: lamina.Run) -> None:
    with broken("scan_ignores_the_number_of_rows"):
        assert wide.activations().head(5).collect().height != 5


@pytest.mark.parametrize(
    "query",
    [
        lambda frame: frame.slice(60, 30),
        lambda frame: frame.tail(7),
        lambda frame: frame.with_row_index().filter(pl.col("index") % 50 == 1),
        lambda frame: frame.drop("x").top_k(4, by="row"),
        lambda frame: frame.drop("x").join(pl.LazyFrame({"example": [1, 2]}), on="example", how="semi"),
        lambda frame: frame.group_by("step", maintain_order=True).agg(pl.col("y").sum(), pl.len()),
        lambda frame: frame.select(pl.col("x").arr.sum().sum()),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_pushed_down_is_right_as_well(wide: lamina.Run, query: Any, engine: Any) -> None:
    found, truth = query(wide.activations()).collect(engine=engine), query(expected().lazy()).collect()
    assert found.sort(found.columns[0]).equals(truth.sort(truth.columns[0]))


def test_counting_rows_reads_no_block_of_a_site(wide: lamina.Run) -> None:
    assert wide.activations().select(pl.len()).collect().item() == STEPS * EXAMPLES
    assert wide._snapshot.bytes_read == (0, 0)


def test_a_filter_on_metadata_reads_vectors_of_the_surviving_rows_alone(wide: lamina.Run) -> None:
    frame = wide.activations("x")
    assert frame.filter(pl.col("example") < 0).select("x").collect().is_empty()
    assert wide._snapshot.bytes_read[1] == 0
    assert frame.filter((pl.col("step") == 2) & (pl.col("x").arr.get(0) == 2)).collect().height == EXAMPLES
    assert wide._snapshot.bytes_read[1] == EXAMPLES * 12, "one group's"


def test_a_filter_that_reads_vectors_first_would_be_noticed(wide: lamina.Run) -> None:
    with broken("vectors_before_metadata"):
        wide.activations("x").filter(pl.col("example") < 0).collect()
        assert wide._snapshot.bytes_read[1] > 0


def test_columns_may_be_asked_in_any_order_and_unknown_ones_raise(wide: lamina.Run) -> None:
    assert wide.activations().select("x", "row", "name").collect().columns == ["x", "row", "name"]
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        wide.activations().select("z").collect()


def test_batches_are_capped_by_bytes(wide: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BATCH_BYTES", 1024)
    sizes, inner = [], Values.vectors

    def counted(self: Values, span: Span, site: str, at: Any) -> pl.Series:
        vectors = inner(self, span, site, at)
        sizes.append(vectors.len())
        return vectors

    monkeypatch.setattr(Values, "vectors", counted)
    assert wide.activations().collect().equals(expected())
    assert max(sizes) * (12 + 8) <= 1024


def test_a_query_that_stops_early_stops_reading(wide: lamina.Run) -> None:
    frame = wide.activations("x").filter(pl.col("x").arr.get(1) >= 0).head(1)
    assert frame.collect(engine="streaming").height == 1


def test_two_branches_of_one_frame_agree(wide: lamina.Run) -> None:
    frame = wide.activations()
    first, second = pl.collect_all([frame.filter(pl.col("step") == 1), frame.select(pl.col("row").max())])
    assert first.height == EXAMPLES
    assert second.item() == STEPS * EXAMPLES - 1


def test_a_python_function_as_predicate(wide: lamina.Run) -> None:
    prime_to_six = pl.col("example").map_elements(lambda e: math.gcd(e, 6) == 1, return_dtype=pl.Boolean)
    found = wide.activations().filter(prime_to_six).collect()
    assert found.equals(expected().filter(pl.col("example").is_in([e for e in range(EXAMPLES) if math.gcd(e, 6) == 1])))


def test_only_rows_with_a_selected_site(wide: lamina.Run) -> None:
    found = wide.activations("y").collect()
    assert found.equals(expected().filter(pl.col("step") % 2 == 0).drop("x"))


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (2, {2}),
        ([0, 5], {0, 5}),
        (slice(2, 5), {2, 3, 4}),
        (slice(1, None, 2), {1, 3, 5}),
        (slice(None), set(range(6))),
    ],
)
def test_steps_are_chosen_by_number_list_or_slice(wide: lamina.Run, step: Any, kept: set[int]) -> None:
    assert wide.activations(step=step).collect().equals(expected().filter(pl.col("step").is_in(kept)))


def test_conjuncts_are_split_only_where_putting_them_together_gives_the_same() -> None:
    a, b, c = pl.col("a") > 1, pl.col("b") == 2, pl.col("c").is_null()
    assert len(conjuncts(a & b & c)) == 3
    assert len(conjuncts(a & (b | c))) == 2
    for whole in (a | b, ~(a & b), pl.col("a") + pl.col("b") > 1, a):
        assert len(conjuncts(whole)) == 1


@pytest.mark.parametrize("name", PREDICATES)
def test_a_selection_names_the_places_of_the_rows_that_pass(wide: lamina.Run, name: str) -> None:
    condition = PREDICATES[name]
    if "y" in condition.meta.root_names():
        pytest.skip("a selection is of one site")
    scanned, conditions = wide._wide.scan(["x"], slice(1, None), None)
    names = []
    for group, positions in scanned.selection(pl.all_horizontal(*conditions, PREDICATES[name])):
        at = np.arange(EXAMPLES) if positions is None else positions
        names += (group * EXAMPLES + at).tolist()
    assert names == expected().filter(pl.col("step") >= 1).filter(PREDICATES[name])["row"].to_list()


def test_a_selection_over_metadata_reads_no_vectors(wide: lamina.Run) -> None:
    scanned, _ = wide._wide.scan(["x"], None, None)
    assert list(scanned.selection(None)) == [(group, None) for group in range(STEPS)]
    assert [group for group, _ in scanned.selection(pl.col("step") == 2)] == [2]
    assert wide._snapshot.bytes_read[1] == 0
