"""The frame of checkpoints: what Polars may ask of it, and that it holds no more than the records do."""

from __future__ import annotations

import polars as pl
import pytest
import torch

import lamina
from lamina.runs import saved as saved_module


@pytest.fixture
def saved(run: lamina.Run) -> lamina.Run:
    frozen = torch.ones(3)
    with run.writer() as writer:
        for step in range(4):
            model = {"frozen": frozen, "w": torch.full((2, 2), float(step)), "empty": torch.empty(0, 7)}
            writer.save({"model": model, f"only {step}": {"x": torch.tensor(step)}}, step=step)
    return run.refresh()


ROWS = [
    row
    for step in range(4)
    for row in [
        (step, "model", "frozen", [3], "f32", 12, 0 if step else 12),
        (step, "model", "w", [2, 2], "f32", 16, 16),
        (step, "model", "empty", [0, 7], "f32", 0, 0),
        (step, f"only {step}", "x", [], "i64", 8, 8),
    ]
]


def test_every_tensor_of_every_part_has_a_row(saved: lamina.Run) -> None:
    assert saved.checkpoints().collect().rows() == ROWS


@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("step") == 2,
        (pl.col("part") == "model") & (pl.col("stored") > 0) & pl.col("step").is_in([0, 3]),
        pl.col("shape").list.len() == 0,
        pl.lit(False),
        pl.col("tensor").str.starts_with("w") | (pl.col("step") == 1),
    ],
    ids=str,
)
def test_a_predicate_filters_exactly(saved: lamina.Run, predicate: pl.Expr) -> None:
    frame = saved.checkpoints()
    expected = frame.collect().filter(predicate)
    assert frame.filter(predicate).collect().equals(expected)
    assert frame.filter(predicate).select("stored").head(2).collect()["stored"].to_list() == (
        expected["stored"].head(2).to_list()
    )


def test_projection_limit_and_length(saved: lamina.Run) -> None:
    frame = saved.checkpoints()
    assert frame.select("tensor", "step").head(6).collect().rows() == [(row[2], row[0]) for row in ROWS[:6]]
    assert frame.select(pl.len()).collect().item() == len(ROWS)
    assert frame.tail(1).collect().rows() == ROWS[-1:]


def test_a_filter_on_step_and_part_makes_no_other_rows(saved: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    frame = saved_module._frame
    monkeypatch.setattr(saved_module, "_frame", lambda tensors: made.append(len(tensors)) or frame(tensors))
    saved.checkpoints().filter(pl.col("step") == 2, pl.col("part") == "only 2").collect()
    assert made == [1]


def test_many_saves_of_many_empty_tensors_are_told_once(run: lamina.Run) -> None:
    model = {f"{at}": torch.empty(0) for at in range(2000)}
    with run.writer() as writer:
        for step in range(60):
            writer.save({"model": model}, step=step)
    layouts, parts = run.refresh()._snapshot.checkpoints()
    assert [len(layout) for layout in layouts] == [2000]
    assert {(layout, tuple(stored)) for _, _, _, layout, stored in parts} == {(0, ())}
    assert run.checkpoints().select(pl.len()).collect().item() == 120_000
    assert run.checkpoints().filter(pl.col("step") == 59).collect().height == 2000
