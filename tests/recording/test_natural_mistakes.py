"""What a user mistypes first around a training, and what a resumed training needs beside model and optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError, SchemaError


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optimizer": [1]}, "optimizer= is a list"),
        ({"probes": torch.ones(2, 4)}, "probes= is a Tensor.*validation"),
        ({"also": {"model": nn.Linear(1, 1)}}, "also= cannot have the name 'model'"),
        ({"also": {"step": 3}}, r"also\['step'\] is a int"),
    ],
)
def test_what_record_is_given(run: lamina.Run, given: dict, says: str) -> None:
    with pytest.raises(RecordingError, match=says):
        lamina.record(network(), run, sites="*.output", **given)


def test_a_class_and_a_path(run: lamina.Run) -> None:
    cls: Any = nn.Linear
    path: Any = "runs/a"
    with pytest.raises(RecordingError, match="the model is the class Linear"):
        lamina.record(cls, run, sites="*.output")
    with pytest.raises(RecordingError, match="run= is a str"):
        lamina.capture(network(), path, [torch.ones(2, 4)], sites="*.output")


@pytest.mark.parametrize("steps", [1, 2])
def test_a_step_that_is_called_and_not_entered_raises(run: lamina.Run, steps: int) -> None:
    """Nothing would be recorded: the second call says so, or the end of the recorder."""
    model = network()

    def train() -> None:
        with lamina.record(model, run, sites="*.output") as recorder:
            for step in range(steps):
                recorder.step(step, example=range(2))
                model(torch.ones(2, 4))

    with pytest.raises(RecordingError, match=r"not entered.*with recorder.step"):
        train()


def test_a_step_that_was_refused_is_no_step_that_was_forgotten(run: lamina.Run) -> None:
    model = network()
    with lamina.record(model, run, sites="*.output") as recorder:
        with pytest.raises(RecordingError, match="negative"), recorder.step(-1):
            pass
        with recorder.step(0, example=range(2)):
            model(torch.ones(2, 4))
    assert run.steps() == [0]


def test_a_recorder_and_an_edit_say_what_they_are(run: lamina.Run) -> None:
    model = network()
    recorder = lamina.record(model, run, sites="*.output")
    assert "2 sites recorded, not entered" in repr(recorder)
    with recorder:
        with recorder.step(3, example=range(2)):
            model(torch.ones(2, 4))
        assert repr(recorder).endswith("open, step 3)")
    assert repr(lamina.edit(network(), {"0.output": torch.tensor(0.0)})) == "Edit(0.output)"


def test_autocast_beside_a_probe_without_it_says_how_to_store_one_dtype(run: lamina.Run) -> None:
    model = network()

    def train(sites: Any) -> None:
        with (
            lamina.record(model, run, sites=sites, probes={"validation": torch.ones(2, 4)}) as recorder,
            recorder.step(0, example=range(2)),
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            model(torch.ones(2, 4))

    with pytest.raises(SchemaError, match=r"lamina.Site\(dtype=torch.float32\)"):
        train("*.output")
    run.rewind(0)
    train({"*.output": lamina.Site(dtype=torch.float32)})
    assert run.refresh().activations("0.output").collect().height == 6


def test_what_else_has_a_state_is_saved_and_restored(run: lamina.Run) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with lamina.record(
        model, run, sites=[], checkpoint_every=2, optimizer=optimizer, also={"schedule": schedule}
    ) as recorder:
        for step in range(3):
            with recorder.step(step):
                optimizer.step()
                schedule.step()
    again = network()
    its = torch.optim.SGD(again.parameters(), lr=1.0)
    its_schedule = torch.optim.lr_scheduler.StepLR(its, 1)
    assert run.restore("last", again, its, schedule=its_schedule) == 3
    assert its_schedule.last_epoch == 3
    assert its_schedule.get_last_lr() == pytest.approx([0.001])
