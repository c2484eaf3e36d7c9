"""Codes, activations, metrics and a user's frame join, and no vector is read that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from tests.faults import broken, fault

LAYER, OTHER, CODES = "mlp.output", "attn.output", "mlp.output/sae"
STEPS, EXAMPLES, POSITIONS, WIDTH = 3, 4, 5, 16


@fault
def wide_frames_read_every_site(patch: pytest.MonkeyPatch) -> None:
    """All columns are read, whichever are asked for."""
    from lamina.runs.scan import Scan

    whole = Scan._batches

    def all_of_them(self: Scan, columns: list[str] | None, *rest: Any) -> Any:
        for batch in whole(self, None, *rest):
            yield batch if columns is None else batch.select(columns)

    patch.setattr(Scan, "_batches", all_of_them)


@pytest.fixture
def joined(run: lamina.Run) -> lamina.Run:
    """Vectors of two sites, a group a step, which is read as a whole to verify it; codes of them; metrics, examples."""
    draw = np.random.default_rng(0)
    shape = (EXAMPLES, POSITIONS, WIDTH)
    with run.writer() as writer:
        for step in range(STEPS):
            vectors = {site: draw.normal(size=shape).astype(np.float32) for site in (LAYER, OTHER)}
            vectors[LAYER][..., 0] = step
            writer.append(vectors, step=step, example=np.arange(EXAMPLES)).wait()
            writer.log({"validation/loss": 1 / (1 + step)}, step=step)
        writer.examples({"example": np.arange(EXAMPLES), "topic": ["a", "b", "a", "b"]})
    names = run.refresh().rows(LAYER).ids
    codes = np.where(draw.random((names.size, 9)) < 0.4, 1, 0).astype(np.float32)
    codes[:, 3] = names % POSITIONS == 1
    with run.writer() as writer:
        writer.features(CODES, codes, threshold=0, row=names)
    return run.refresh()


def mine() -> pl.LazyFrame:
    return pl.LazyFrame({"topic": ["b"], "about": ["data"]})


def of_row(run: lamina.Run) -> pl.LazyFrame:
    """Codes with what is known of their rows, by row, by step, and by example; only the codes are read."""
    codes = run.features(CODES).select("row", "feature", "value")
    rows = run.activations().select("row", "step", "example", "position")
    loss = run.metrics().filter(pl.col("name") == "validation/loss").select("step", loss="value")
    known = codes.join(rows, on="row").join(loss, on="step").join(run.examples(), on="example")
    return known.join(mine(), on="topic").select("row", "example", "feature", "loss", "about")


def of_place(run: lamina.Run) -> pl.LazyFrame:
    """Codes that meet activations by example, position and step."""
    codes = run.features(CODES).filter(pl.col("feature") == 3).drop("row")
    rows = run.activations()
    return codes.join(rows, on=["example", "position", "step"]).select("row", "example", "feature", "value")


def vectors_of_some(run: lamina.Run) -> pl.LazyFrame:
    """Codes with vectors of one site, of one step."""
    rows = run.activations().filter(pl.col("step") == 2)
    return run.features(CODES).join(rows, on="row").select("row", "feature", LAYER)


def read(run: lamina.Run, question: Callable[[lamina.Run], pl.LazyFrame]) -> tuple[pl.DataFrame, int]:
    """The answer, and how many bytes of vectors and of codes were read for it."""
    run.refresh()
    answer = question(run).collect()
    return answer, run._snapshot.bytes_read[1]


QUESTIONS: list[tuple[Callable[[lamina.Run], pl.LazyFrame], int]] = [
    (of_row, 0),
    (of_place, 0),
    (vectors_of_some, EXAMPLES * POSITIONS * WIDTH * 4),
]


@pytest.mark.parametrize(("question", "vectors"), QUESTIONS)
def test_no_vector_is_read_that_nobody_asks_for(
    joined: lamina.Run, question: Callable[[lamina.Run], pl.LazyFrame], vectors: int
) -> None:
    codes, of_codes = read(joined, lambda run: run.features(CODES))
    answer, of_question = read(joined, question)
    assert of_question == of_codes + vectors
    at = codes.filter(feature=3)
    if question is of_row:
        some = codes.filter(pl.col("example") % 2 == 1)
        assert answer.sort("row", "feature").select("row", "feature").equals(some.select("row", "feature"))
        assert set(answer["about"]) == {"data"}
        assert set(answer["loss"]) == {1.0, 0.5, 1 / 3}
    elif question is of_place:
        assert answer.sort("row").equals(at.select("row", "example", "feature", "value"))
    else:
        assert set(answer[LAYER].arr.first()) == {2.0}
        assert answer.height == codes.filter(step=2).height


@pytest.mark.parametrize(("question", "vectors"), QUESTIONS)
def test_a_vector_that_is_read_would_be_noticed(
    joined: lamina.Run, question: Callable[[lamina.Run], pl.LazyFrame], vectors: int
) -> None:
    with broken("wide_frames_read_every_site"), pytest.raises(AssertionError):
        test_no_vector_is_read_that_nobody_asks_for(joined, question, vectors)
    _, of_codes = read(joined, lambda run: run.features(CODES))

    def with_other(run: lamina.Run) -> pl.LazyFrame:
        return question(run).join(run.activations(OTHER).select("row", OTHER), on="row")

    _, with_another = read(joined, with_other)
    assert with_another == of_codes + vectors + STEPS * EXAMPLES * POSITIONS * WIDTH * 4
