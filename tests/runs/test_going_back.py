"""Rewinding and deleting: what is hidden, what is not, and that nothing is erased."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.runs import Run


def record(run: Run, steps: range, sign: int = 1) -> None:
    """Two rows a step of two sites whose values are the step, a metric, and a checkpoint every third step."""
    with run.writer() as writer:
        for step in steps:
            value = np.full((2, 3), sign * step, np.float32)
            writer.append({"a.output": value, "b.output": value[:, :1]}, step=step, example=[0, 1])
            writer.log({"loss": sign * step}, step=step)
            if step % 3 == 0:
                writer.save({"model": {"w": np.full(4, sign * step)}}, step=step)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run")
    record(run, range(7))
    return run.refresh()


def values(run: Run, site: str = "a.output") -> list[tuple[int, float]]:
    first = pl.col(site).arr.first() if site == "a.output" else pl.col(site).arr.get(0)
    return run.activations(site).select("step", first).unique(maintain_order=True).collect().rows()


def test_rewind_hides_rows_and_metrics_from_the_step_on_and_later_checkpoints(run: Run) -> None:
    assert run.rewind(3).steps() == [0, 1, 2]
    assert values(run) == [(0, 0), (1, 1), (2, 2)]
    assert run.metrics().select("step").collect()["step"].to_list() == [0, 1, 2]
    assert run.checkpoints().select(pl.col("step").unique().sort()).collect()["step"].to_list() == [0, 3]
    assert run.load("last")["w"][0] == 3


def test_what_is_recorded_again_is_not_hidden(run: Run) -> None:
    run.rewind(3)
    record(run, range(3, 5), sign=-1)
    assert values(run.refresh()) == [(0, 0), (1, 1), (2, 2), (3, -3), (4, -4)]
    assert run.metrics().select("value").collect()["value"].to_list() == [0, 1, 2, -3, -4]
    assert run.load(3)["w"][0] == -3
    assert run.rewind(4).steps() == [0, 1, 2, 3], "a second rewind hides of the second training too"


def test_hidden_shows_it_all(run: Run) -> None:
    run.rewind(3)
    everything = lamina.open(run.path, hidden=True)
    assert everything.steps() == list(range(7))
    assert len(everything.checkpoints().collect()) == 3


def test_a_step_is_deleted_and_the_others_stay(run: Run) -> None:
    assert run.delete(steps=[2, 4]).steps() == [0, 1, 3, 5, 6]
    assert run.delete(steps=slice(5, None)).steps() == [0, 1, 3]
    assert run.sites()["rows"].to_list() == [6, 6]
    assert run.metrics().select(pl.len()).collect().item() == 7, "metrics stay"


def test_a_site_is_deleted_and_its_rows_stay_for_the_others(run: Run) -> None:
    run.delete("a.*")
    assert values(run, "b.output") == [(step, step) for step in range(7)]
    assert run.sites().filter(site="a.output")["rows"].item() == 0
    record(run, range(7, 8))
    assert values(run.refresh()) == [(7, 7)]


def test_rows_are_deleted_by_name(run: Run) -> None:
    names = run.activations().select("row").collect()["row"].to_list()
    run.delete(rows=[names[0], *names[4:7]])
    assert run.activations().select("row").collect()["row"].to_list() == [*names[1:4], *names[7:]]


def test_spans_of_rows_may_overlap_in_any_order(run: Run) -> None:
    names = run.activations().select("row").collect()["row"].to_list()
    assert names == list(range(14))
    run.delete(rows=[range(9, 12), range(3), range(2, 5), range(7, 7)])
    assert run.activations().select("row").collect()["row"].to_list() == [5, 6, 7, 8, 12, 13]


def test_a_part_of_a_site_is_deleted(run: Run) -> None:
    run.delete("a.output", steps=slice(0, 3))
    frame = run.activations().sort("row").collect()
    assert frame.filter(pl.col("step") < 3)["a.output"].null_count() == 6
    assert frame.filter(pl.col("step") >= 3)["a.output"].null_count() == 0
    assert frame["b.output"].null_count() == 0
    assert values(run) == [(step, step) for step in range(3, 7)]


def test_steps_that_a_site_shows_nothing_of_do_not_count_in_a_compacted_group(run: Run) -> None:
    run.compact(progress=False)
    run.delete("a.output", steps=slice(0, 3))
    assert dict(run.sites().select("site", "steps").iter_rows()) == {"a.output": 4, "b.output": 7}
    assert run.steps() == list(range(7))
    assert run.delete("b.output", steps=[1, 5]).steps() == [0, 2, 3, 4, 5, 6]
    with pytest.raises(NotFoundError, match="step 1"):
        run.rows("a.output", step=1)


def test_going_back_pickles_and_nonsense_is_refused(run: Run) -> None:
    with pytest.raises(SchemaError, match="nothing says"):
        run.delete()
    with pytest.raises(NotFoundError, match="step 99"):
        run.delete(steps=99)
    with pytest.raises(NotFoundError, match=r"c\.output"):
        run.delete("c.output")
    with pytest.raises(SchemaError, match="no row"):
        run.delete(rows=[])
    with pytest.raises(SchemaError, match="float64"):
        run.delete(rows=[0.5])
    with pytest.raises(SchemaError, match="step is"):
        run.rewind("last")  # type: ignore[arg-type]
    assert run.refresh().steps() == list(range(7))
