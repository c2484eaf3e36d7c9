"""Which checkpoints rules keep, that nothing happens before, and that the bytes of the others come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.runs import Run
from tests.faults import broken
from tests.store import reader

LENGTH = 5000


def save(run: Run, steps: Any, value: float = 0, parts: tuple[str, ...] = ("model",)) -> None:
    """A frozen tensor and one whose values are the step plus `value`, and metrics that are lowest at step 70."""
    with run.writer() as writer:
        for step in steps:
            state = {"frozen": np.full(LENGTH, 0.125, np.float32), "w": np.full(LENGTH, step + value, np.float32)}
            writer.save(dict.fromkeys(parts, state), step=step)
            writer.log({"loss": abs(step - 70), "odd": float("nan")}, step=step)


def steps(run: Run, part: str | None = None) -> list[int]:
    return run._saved.steps(part)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run")
    save(run, range(0, 120, 10))
    return run.refresh()


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"every": 30}, [0, 30, 60, 90]),
        ({"last": 2}, [100, 110]),
        ({"lowest": "loss"}, [70]),
        ({"lowest": {"loss": 3}}, [60, 70, 80]),
        ({"highest": {"loss": 2}}, [0, 10]),
        ({"per_decade": 1}, [0, 10, 100]),
        ({"per_decade": 2}, [0, 10, 40, 100]),
        ({"steps": [20, 50]}, [20, 50]),
        ({"steps": slice(90, None)}, [90, 100, 110]),
        ({"every": 60, "last": 1, "lowest": "loss"}, [0, 60, 70, 110]),
        ({"last": 1, "lowest": {"loss": 3}, "highest": {"loss": 2}}, [0, 10, 60, 70, 80, 110]),
    ],
)
def test_rules_keep_what_they_say_and_keep_it_again(run: Run, rules: dict[str, Any], kept: list[int]) -> None:
    plan = run.retain(**rules)
    assert plan.checkpoints.filter("kept")["step"].to_list() == kept
    assert steps(run) == list(range(0, 120, 10)), "nothing is hidden yet"
    # a frozen tensor is needed still
    assert plan.bytes_freed == 4 * LENGTH * (12 - len(kept))
    assert steps(plan.apply()) == kept
    assert run.load(kept[-1])["w"][0] == kept[-1]
    again = run.retain(**rules)
    assert (again.checkpoints["kept"].all(), again.bytes_freed) == (True, 0)


def test_why_is_told(run: Run) -> None:
    plan = run.retain(every=60, last=1, lowest="loss")
    assert plan.checkpoints.filter("kept").select("step", "why").rows() == [
        (0, "every 60"),
        (60, "every 60"),
        (70, "lowest loss"),
        (110, "last 1"),
    ]
    assert str(plan) == f"of 12 checkpoints (model) 4 stay; {8 * 4 * LENGTH:,} bytes can be reclaimed"
    assert set(plan.checkpoints["bytes"]) == {2 * 4 * LENGTH}


def test_what_is_saved_after_the_rules_were_shown_stays(run: Run) -> None:
    plan = run.retain(last=1)
    save(run, [20, 120], value=0.5)
    assert steps(plan.apply()) == [20, 110, 120]
    assert run.load(20)["w"][0] == 20.5
    assert steps(lamina.open(run.path, hidden=True)) == list(range(0, 130, 10))
    assert steps(run.retain(last=1).apply()) == [120]


def test_hiding_later_saves_is_noticed(run: Run) -> None:
    with broken("discards_have_no_place"), pytest.raises(AssertionError):
        test_what_is_saved_after_the_rules_were_shown_stays(run)


def test_parts_are_thinned_out_apart(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    save(run, range(4), parts=("model", "optimizer"))
    run.refresh().retain(last=1, parts="optim*").apply()
    assert (steps(run, "model"), steps(run, "optimizer")) == ([0, 1, 2, 3], [3])
    run.retain(every=2, parts=["model"]).apply()
    assert (steps(run, "model"), steps(run, "optimizer")) == ([0, 2], [3])


def test_each_part_has_the_rules_for_itself(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    save(run, range(6))
    save(run, [1, 2], parts=("optimizer",))
    run.refresh().retain(last=2).apply()
    assert (steps(run, "model"), steps(run, "optimizer")) == ([4, 5], [1, 2])


def test_the_bytes_come_back(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    for step in range(6):  # a pack each
        save(run, [step])
    run.refresh()
    before = sum(path.stat().st_size for path in (run.path / "chunks").iterdir())
    plan = run.retain(every=3)
    plan.apply()
    done = run.gc(grace=0, progress=False)
    left = sum(path.stat().st_size for path in (run.path / "chunks").iterdir())
    assert before - left == done.bytes_freed == plan.bytes_freed
    assert [run.load(step)["w"][0] for step in (0, 3)] == [0, 3]
    assert run.verify(progress=False).ok
    assert steps(lamina.open(run.path, hidden=True)) == [0, 3], "what was reclaimed is not shown either"
    assert steps(run.copy(tmp_path / "copy", progress=False)) == [0, 3]


def test_the_bytes_of_a_pack_that_is_needed_still_come_back_by_compaction(run: Run) -> None:
    rng = np.random.default_rng(0)
    with run.writer() as writer:
        for step in range(200, 210):
            writer.save({"noise": {"w": rng.integers(0, 2**63, LENGTH)}}, step=step)
    kept = run.refresh().load(209, part="noise")["w"].copy()
    plan = run.retain(last=1, parts="noise")
    assert plan.bytes_freed == 9 * 8 * LENGTH
    plan.apply()
    before = sum(path.stat().st_size for path in (run.path / "chunks").iterdir())
    assert run.gc(grace=0, progress=False).bytes_freed == 0, "a chunk of the pack is needed"
    run.compact(progress=False)
    run.gc(grace=0, progress=False)
    left = sum(path.stat().st_size for path in (run.path / "chunks").iterdir())
    assert before - left >= plan.bytes_freed
    assert (run.load(209, part="noise")["w"] == kept).all()
    assert run.load(100)["w"][0] == 100
    assert run.verify(progress=False).ok


def test_the_independent_reader_agrees(run: Run) -> None:
    run.retain(every=50, last=1).apply()
    save(run, [20], value=0.25)
    read = reader.read(run.path)
    assert sorted(read.checkpoints) == steps(run.refresh()) == [0, 20, 50, 100, 110]
    assert read.checkpoints[20]["model"][2][1][0] == 20.25


def test_an_older_reader_refuses_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.retain(last=1).apply()
    monkeypatch.setattr(reader, "KNOWN", set())
    with pytest.raises(reader.BrokenError, match="discard"):
        reader.read(run.path)


def test_rewinding_and_thinning_out_get_along(run: Run) -> None:
    run.rewind(50)
    assert run.retain(every=20).apply().load("last")["w"][0] == 40
    save(run, range(50, 80, 10), value=0.5)
    assert steps(run.refresh()) == [0, 20, 40, 50, 60, 70]


@pytest.mark.parametrize(
    ("rules", "kind", "text"),
    [
        ({}, SchemaError, "no rule says what to keep"),
        ({"every": 0}, SchemaError, "every=0"),
        ({"last": True}, SchemaError, "last=True"),
        ({"lowest": {"loss": 1.5}}, SchemaError, "1 or more"),
        ({"every": 1000, "steps": slice(500, 600)}, SchemaError, None),
        ({"lowest": "los"}, NotFoundError, "loss"),
        ({"lowest": "odd"}, NotFoundError, "no value at the step of a checkpoint"),
        ({"last": 1, "parts": "modle"}, NotFoundError, "model"),
        ({"steps": 25}, NotFoundError, "no checkpoint at step 25"),
        ({"steps": slice(500, 600)}, SchemaError, "keep no checkpoint of the part 'model'"),
    ],
)
def test_rules_that_make_no_sense_are_told(run: Run, rules: dict[str, Any], kind: Any, text: str | None) -> None:
    if text is None:
        assert run.retain(**rules).checkpoints.filter("kept")["step"].to_list() == [0], "one rule that keeps is enough"
        return
    with pytest.raises(kind, match=text):
        run.retain(**rules)


def test_a_run_without_checkpoints_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no checkpoint"):
        Run.create(tmp_path / "run").retain(last=1)
