"""What users hand over by accident: answered as they meant it, or refused by name, never with something else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import NotFoundError, SchemaError, StorageError

ONES = np.ones((3, 2), np.float32)


@pytest.fixture
def steps(run: lamina.Run) -> lamina.Run:
    with run.writer() as writer:
        for step in range(4):
            writer.append({"x": ONES * step}, step=step)
    return run.refresh()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_column_of_few_bits_keeps_its_values(run: lamina.Run, dtype: torch.dtype) -> None:
    with run.writer() as writer:
        writer.append({"x": ONES}, step=0, weight=torch.tensor([0.5, -1.5, 2.0], dtype=dtype))
    assert run.refresh().activations().collect()["weight"].to_list() == [0.5, -1.5, 2.0]


@pytest.mark.parametrize("given", [range(3), range(5, -4, -3), range(2**63 - 4, 2**63 - 1), range(2**63 - 3, 2**63)])
def test_a_range_is_the_numbers_in_it(run: lamina.Run, given: range) -> None:
    with run.writer() as writer:
        writer.append({"x": ONES}, step=0, number=given)
    assert run.refresh().activations().collect()["number"].to_list() == list(given)


def test_a_range_beyond_63_bits_is_refused(run: lamina.Run) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match="'number' has integers beyond 63 bits"):
        writer.append({"x": ONES}, step=0, number=range(2**63 - 1, 2**63 + 2))


def test_a_batch_that_has_no_value_in_a_column_reads_as_null(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"x": ONES}, step=0, text=["a", None, "c"])
        writer.append({"x": ONES}, step=1, text=[None] * 3)
        writer.append({"x": ONES}, step=2, text=["a", None, "c"], mask=[False, True, False])
    assert run.refresh().activations().collect()["text"].to_list() == ["a", None, "c", None, None, None, None]


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("position", [0.5] * 3, "'position' is given as float"),
        ("source", [1, 2, 3], "'source' is given as int"),
        ("example", torch.ones(3), "'example' is given as float"),
        ("rank", "first", "'rank' is given as str"),
        ("label", [torch.tensor(1)] * 3, "'label' holds a Tensor"),
        ("label", [[1, 2], [3], [4]], "'label' is a list of lists of different lengths"),
    ],
)
def test_a_column_that_does_not_fit_its_name_is_refused(run: lamina.Run, column: str, values: Any, says: str) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match=says):
        writer.append({"x": ONES}, step=0, **{column: values})


@pytest.mark.parametrize("sites", [{1: ONES}, {"x": torch.empty(3, 2, device="meta")}])
def test_a_site_without_a_name_or_values_is_refused(run: lamina.Run, sites: Any) -> None:
    with run.writer() as writer, pytest.raises(SchemaError):
        writer.append(sites, step=0)


@pytest.mark.parametrize("mask", [[0.5, 1, 0], [2, 0, 1], ["a", "b", "c"], [float("nan")] * 3])
def test_a_mask_that_is_none_is_refused(run: lamina.Run, mask: Any) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match=r"mask= holds.*give booleans"):
        writer.append({"x": ONES}, step=0, mask=mask)


@pytest.mark.parametrize("step", [1.5, "3", True, None, -1])
def test_the_step_of_a_metric_and_of_a_checkpoint_is_an_integer(run: lamina.Run, step: Any) -> None:
    with run.writer() as writer:
        with pytest.raises(SchemaError, match="the step is"):
            writer.log({"loss": 1.0}, step=step)
        with pytest.raises(SchemaError, match="the step is"):
            writer.save({"model": {}}, step=step)


@pytest.mark.parametrize(
    "value", [1j, torch.tensor(1j), np.complex64(1j), np.array("text"), 10**400, torch.ones(2), None, "0.5"]
)
def test_a_metric_that_is_no_number_is_refused_and_those_behind_it_are_written(run: lamina.Run, value: Any) -> None:
    with run.writer() as writer:
        with pytest.raises(SchemaError, match="'loss'"):
            writer.log({"loss": value}, step=0)
        writer.log({"loss": 0.5}, step=1)
    assert run.refresh().metrics().select("step", "value").collect().rows() == [(1, 0.5)]


def test_a_metric_without_a_name_is_refused(run: lamina.Run) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match="metric 1"):
        writer.log({1: 0.5}, step=0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("part", ["", 1])
def test_a_part_without_a_name_is_refused(run: lamina.Run, part: Any) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match="part is named"):
        writer.save({part: {}}, step=0)


def test_a_state_that_holds_itself_or_no_values_is_refused(run: lamina.Run) -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    with run.writer() as writer:
        with pytest.raises(SchemaError, match="contains itself"):
            writer.save({"model": state}, step=0)
        with pytest.raises(SchemaError, match=r"'weight'.*meta"):
            writer.save({"model": {"weight": torch.empty(2, device="meta")}}, step=0)
    assert run.refresh().checkpoints().collect().is_empty()


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (np.int64(0), {0}),
        (np.int64(3), {3}),
        (torch.tensor(2), {2}),
        (np.array([1, 2]), {1, 2}),
        ([np.int64(1)], {1}),
        (slice(np.int64(1), None), {1, 2, 3}),
        ([], set()),
    ],
)
def test_a_step_may_be_an_integer_of_numpy_or_torch(steps: lamina.Run, step: Any, found: set[int]) -> None:
    assert set(steps.activations("x", step=step).collect()["step"]) == found


@pytest.mark.parametrize("step", [1.0, "last", [0.5], slice(0, 4, 0), slice(4, 0, -1), slice(0.5, 2)])
def test_a_step_that_is_no_integer_is_refused(steps: lamina.Run, step: Any) -> None:
    with pytest.raises(SchemaError):
        steps.activations("x", step=step)


def test_asking_for_a_source_or_column_that_is_not_there_is_an_error_of_lamina(steps: lamina.Run) -> None:
    with pytest.raises(NotFoundError, match="no source"):
        steps.activations("x", source="train")
    with pytest.raises(NotFoundError, match=r"'stap'.*nearest: step"):
        steps.rows("x", where=pl.col("stap") > 0)
    with pytest.raises(NotFoundError, match=r"'stap'.*nearest: step"):
        steps.rows("x").metadata(["stap"])


@pytest.mark.parametrize("where", ["step > 1", pl.col("step") + 1, pl.col("x"), True])
def test_what_is_no_condition_is_refused(steps: lamina.Run, where: Any) -> None:
    with pytest.raises(SchemaError, match=r"where= (is|gives)"):
        steps.rows("x", where=where)


def test_a_condition_may_look_at_the_site_alone(steps: lamina.Run) -> None:
    rows = steps.rows("x", where=pl.col("x").arr.get(1) > 1)
    assert rows.gather(range(len(rows))).tolist() == [[2.0, 2.0]] * 3 + [[3.0, 3.0]] * 3
    assert len(steps.rows("x", where=pl.col("x").is_null())) == 0
    assert len(steps.rows("x", where=pl.col("x").arr.get(0) == pl.col("step"))) == 12


def test_a_condition_over_all_rows_sees_all_rows(steps: lamina.Run) -> None:
    rows = steps.rows("x", where=pl.col("step") == pl.col("step").max())
    assert rows.gather(range(3)).tolist() == [[3.0, 3.0]] * 3


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"example": [1, "a"]}, "'example' mixes int, str"),
        ({"example": [1, 2], "label": [1]}, r"'label' has the shape \[1\], there are 2 rows"),
        ({"example": [1, None]}, "without nulls"),
        ({"label": [1]}, "column `example`"),
        ({"example": 1}, "column `example`"),
        ({"example": [1], "when": pl.Series([1]).cast(pl.Date)}, "'when' holds a date"),
    ],
)
def test_examples_that_do_not_fit_are_refused(run: lamina.Run, frame: Any, says: str) -> None:
    with run.writer() as writer, pytest.raises(SchemaError, match=says):
        writer.examples(frame)


def test_examples_come_as_tensors_arrays_lists_and_frames(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.examples({"example": torch.arange(2), "label": np.array([3, 4]), "split": "train"})
        writer.examples(pl.DataFrame({"example": [2], "label": [5], "split": ["test"], "note": [None]}))
    assert run.refresh().examples().collect().rows() == [(0, 3, "train"), (1, 4, "train"), (2, 5, "test")]


def test_a_run_opened_by_a_relative_path_pickles_for_another_folder(
    steps: lamina.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(steps.path.parent)
    run = lamina.open(steps.path.name)
    pickled = pickle.dumps(run), pickle.dumps(run.rows("x"))
    monkeypatch.chdir(os.sep)
    again, rows = map(pickle.loads, pickled)
    assert again.id == steps.id
    assert rows.shape == (12, 2)


def test_a_config_that_no_commit_holds_is_refused_and_makes_no_run(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="too many to be published"):
        lamina.Run.create(tmp_path / "run", config={"text": "a" * (16 << 20)})
    assert not (tmp_path / "run").exists()
    long = lamina.Run.create(tmp_path / "run", config={"text": "a" * (15 << 20)})
    assert lamina.open(long.path, strict=True).config == long.config


def test_rows_that_no_single_commit_names_are_deleted(run: lamina.Run) -> None:
    rows = 1_200_000
    with run.writer() as writer:
        writer.append({"x": np.arange(rows, dtype=np.int32)[:, None]}, step=0)
    commits = len(list((run.path / "commits").iterdir()))
    run.refresh().delete(rows=run.rows("x").ids[1::2])
    assert len(list((run.path / "commits").iterdir())) == commits + 2
    left = lamina.open(run.path, strict=True).rows("x")
    assert len(left) == rows // 2
    assert left.gather(range(len(left))).numpy().ravel().tolist() == list(range(0, rows, 2))


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        lamina.Run.create(tmp_path / "file" / "run")


def test_runs_are_asked_for_by_name_and_there_is_at_least_one(run: lamina.Run) -> None:
    with pytest.raises(NotFoundError, match="empty"):
        lamina.open_runs([])
    with pytest.raises(NotFoundError, match="no run 0"):
        lamina.open_runs([run])[0]  # pyright: ignore[reportArgumentType]
