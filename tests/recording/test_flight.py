"""The flight recorder: what leads to an event is written, whole, and can be gone through again."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError
from lamina.recording import set_random_state
from tests.faults import broken

pytestmark = pytest.mark.filterwarnings("ignore:the flight recorder has written:lamina.LaminaWarning")


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))


def batches(spike: int | None = None) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for step in itertools.count():
        yield torch.randn(6, 4, generator=generator) * (1e4 if step == spike else 1.0)


class Training:
    """A training whose every step can be done again: what it draws comes from the global generator."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def update(self, batch: torch.Tensor) -> torch.Tensor:
        loss = (self.model(batch + 0.1 * torch.rand_like(batch)) - 1).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def train(training: Training, recorder: lamina.Recorder, steps: int, spike: int | None = None) -> list[float]:
    losses = []
    for step, batch in zip(range(steps), batches(spike), strict=False):
        with recorder.step(step, example=range(6), batch=batch):
            losses.append(training.update(batch).item())
        recorder.log({"loss": losses[-1], "largest": batch.abs().max()})
    return losses


def record(training: Training, run: lamina.Run, flight: lamina.Flight, **options: Any) -> lamina.Recorder:
    options = {"sites": "*.output", "every": lambda step: False, "optimizer": training.optimizer} | options
    return lamina.record(training.model, run, flight=flight, **options)


def written(run: lamina.Run) -> list[int]:
    return run.activations().select(pl.col("step").unique().sort()).collect()["step"].to_list()


def test_nothing_is_written_while_nothing_happens(run: lamina.Run) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=3, when=[lamina.Above("largest", 100.0)])) as recorder:
        train(training, recorder, 10)
    assert run.steps() == []
    assert run.checkpoints().collect().is_empty()


def test_the_last_steps_are_written_with_their_batches(run: lamina.Run) -> None:
    recorder = record(training := Training(network()), run, lamina.Flight(3, when=[lamina.Above("largest", 100.0)]))
    with pytest.warns(lamina.LaminaWarning, match="steps 5 to 7 because of above/largest at step 7"), recorder:
        train(training, recorder, 12, spike=7)
    assert written(run) == [5, 6, 7]
    for step, batch in zip(range(12), batches(7), strict=False):
        if step in (5, 6, 7):
            assert torch.equal(run.load(step, part="batch")[0], batch)
    fired = run.metrics().filter(pl.col("name").str.starts_with("flight/")).collect()
    assert fired.select("step", "name").rows() == [(7, "flight/above/largest")]


def test_rows_are_those_of_a_recording_of_every_step(tmp_path: Path) -> None:
    found = {}
    for name, flight in (("all", None), ("flight", lamina.Flight(last=4, when=[lamina.Above("largest", 100.0)]))):
        run = lamina.Run.create(tmp_path / name)
        training = Training(network())
        torch.manual_seed(2)
        every = 1 if flight is None else 100
        with lamina.record(training.model, run, sites="*.output", every=every, flight=flight) as recorder:
            train(training, recorder, 12, spike=9)
        rows = run.activations().filter(pl.col("step").is_between(6, 9)).drop("row").sort("step", "example").collect()
        found[name] = rows, training.model.state_dict()
    assert found["all"][0].equals(found["flight"][0])
    assert len(found["flight"][0]) == 24
    assert all(torch.equal(value, found["all"][1][name]) for name, value in found["flight"][1].items())


def replayed(run: lamina.Run, model: nn.Module, until: int) -> list[float]:
    """The losses from the state that was kept to the step `until`, gone through again from the run alone."""
    training = Training(model)
    (start,) = run.checkpoints().filter(part="model").select(pl.col("step").unique()).collect()["step"]
    training.model.load_state_dict(run.load(start))
    training.optimizer.load_state_dict(run.load(start, part="optimizer"))
    losses = []
    for step in range(start, until + 1):
        for batch, random in zip(run.load(step, part="batch"), run.load(step, part="random"), strict=True):
            set_random_state(random)
            losses.append(training.update(batch).item())
    return losses


@pytest.mark.parametrize("spike", [0, 2, 3, 7, 11])
def test_what_happened_can_be_gone_through_again_bit_for_bit(run: lamina.Run, spike: int) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=3, when=[lamina.Above("largest", 100.0)])) as recorder:
        losses = train(training, recorder, 12, spike=spike)
    again = replayed(run, network(), spike)
    assert len(again) >= min(3, spike + 1)
    assert losses[: spike + 1][-len(again) :] == again


@pytest.mark.parametrize("fault", ["flights_keep_references", "flights_forget_the_random_state"])
def test_replays_tell_what_is_not_kept(run: lamina.Run, fault: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        test_what_happened_can_be_gone_through_again_bit_for_bit(run, 7)


def test_what_is_kept_is_not_what_training_changes_later(run: lamina.Run) -> None:
    training = Training(network())
    batch = torch.ones(6, 4)
    with record(training, run, lamina.Flight(last=4, when=[lamina.Above("step", 2.5)])) as recorder:
        for step in range(4):
            batch.fill_(step)
            with recorder.step(step, example=range(6), batch={"x": batch, "name": "a", "sizes": [1, (2, None)]}):
                training.model(batch)
            recorder.log({"step": step})
    assert [run.load(step, part="batch")[0]["x"][0, 0].item() for step in range(4)] == [0, 1, 2, 3]
    assert run.load(3, part="batch")[0]["sizes"] == [1, (2, None)]


def test_an_exception_is_a_trigger(run: lamina.Run) -> None:
    training = Training(network())

    def fails() -> None:
        with record(training, run, lamina.Flight(last=2)) as recorder:
            train(training, recorder, 4)
            with recorder.step(4, example=range(6), batch=torch.full((6, 4), 4.0)):
                raise FloatingPointError("the loss is NaN")

    with pytest.warns(lamina.LaminaWarning, match="exception at step 4"), pytest.raises(FloatingPointError):
        fails()
    assert written(run) == [3]
    assert torch.equal(run.load(4, part="batch")[0], torch.full((6, 4), 4.0))
    assert run.status.state == "failed"


def test_an_interrupt_is_none(run: lamina.Run) -> None:
    training = Training(network())

    def interrupted() -> None:
        with record(training, run, lamina.Flight(last=2)) as recorder:
            train(training, recorder, 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.steps() == []


def test_micro_batches_are_kept_one_by_one(run: lamina.Run) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=2, when=[lamina.Above("loss", 0.5)])) as recorder:
        for step in range(3):
            for micro in range(2):
                batch = torch.full((3, 4), 10.0 * step + micro)
                with recorder.step(step, example=[3 * micro, 3 * micro + 1, 3 * micro + 2], batch=batch):
                    training.model(batch)
            recorder.log({"loss": float(step == 2)})
    assert [one[0, 0].item() for one in run.load(2, part="batch")] == [20.0, 21.0]
    rows = run.activations().group_by("step", pl.col("micro").fill_null(0)).len().sort("step", "micro").collect()
    assert rows.rows() == [(1, 0, 3), (1, 1, 3), (2, 0, 3), (2, 1, 3)]


def test_random_states_are_those_of_the_batches_that_were_given(run: lamina.Run) -> None:
    training = Training(network())
    drawn = []
    with record(training, run, lamina.Flight(last=2, when=[lamina.Above("loss", 0.5)])) as recorder:
        for micro in range(4):
            batch = torch.full((6, 4), float(micro)) if micro % 2 else None
            with recorder.step(0, example=range(6), batch=batch):
                drawn.append(torch.rand(1).item())
                training.model(torch.ones(6, 4))
        recorder.log({"loss": 1.0})
    assert [one[0, 0].item() for one in run.load(0, part="batch")] == [1.0, 3.0]
    again = []
    for state in run.load(0, part="random"):
        set_random_state(state)
        again.append(torch.rand(1).item())
    assert again == [drawn[1], drawn[3]]


def test_what_a_schedule_wrote_is_not_written_twice(run: lamina.Run) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=4, when=[lamina.Above("largest", 100.0)]), every=2) as recorder:
        train(training, recorder, 8, spike=7)
    counts = run.activations().group_by("step").len().sort("step").collect()
    assert counts.rows() == [(0, 6), (2, 6), (4, 6), (5, 6), (6, 6), (7, 6)]


def test_tensors_of_ones_own_are_kept_too(run: lamina.Run) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=1, when=[lamina.Above("loss", 0.5)]), sites=[]) as recorder:
        for step in range(3):
            with recorder.step(step, example=range(6)):
                recorder.put("own", torch.full((6,), float(step)))
            recorder.log({"loss": float(step == 1)})
    assert run.activations().select("step", "own").collect().rows() == [(1, 1.0)] * 6


def test_a_trigger_that_goes_on_is_told_once(run: lamina.Run) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=2, when=[lamina.NonFinite()])) as recorder:
        for step in range(12):
            with recorder.step(step, example=range(6)):
                training.model(torch.ones(6, 4))
            recorder.log({"loss": math.nan if step in (4, 5, 6, 7, 11) else 1.0})
    assert written(run) == [3, 4, 10, 11]


def test_other_state_is_kept_beside(run: lamina.Run) -> None:
    training = Training(network())
    schedule = torch.optim.lr_scheduler.StepLR(training.optimizer, 1)
    flight = lamina.Flight(last=2, when=[lamina.Above("largest", 100.0)], also={"schedule": schedule})
    with record(training, run, flight) as recorder:
        for step, batch in zip(range(6), batches(5), strict=False):
            with recorder.step(step, example=range(6), batch=batch):
                training.update(batch)
                schedule.step()
            recorder.log({"largest": batch.abs().max()})
    (start,) = run.checkpoints().filter(part="model").select(pl.col("step").unique()).collect()["step"]
    assert run.load(start, part="schedule")["last_epoch"] == start


def test_memory_holds_no_more_than_was_asked(run: lamina.Run) -> None:
    training = Training(network())
    with record(training, run, lamina.Flight(last=3)) as recorder:
        for step, batch in zip(range(50), batches(), strict=False):
            with recorder.step(step, example=range(6), batch=batch):
                training.update(batch)
            ring = recorder._steps._ring
            assert ring is not None
            assert sum(bool(moment.rows) for moment in ring._moments) <= 3
            assert len(ring._moments) <= 6
            assert len(ring._states) <= 2


def test_without_batches_it_says_so(run: lamina.Run) -> None:
    training = Training(network())
    recorder = record(training, run, lamina.Flight(last=3, when=[lamina.NonFinite("loss")]))

    def step() -> None:
        with recorder, recorder.step(0, example=range(6)):
            training.model(torch.ones(6, 4))
            recorder.log({"loss": np.inf})

    with pytest.warns(lamina.LaminaWarning, match="batches are missing"):
        step()


def test_a_metric_that_is_never_logged_is_named(run: lamina.Run) -> None:
    recorder = record(training := Training(network()), run, lamina.Flight(last=3, when=[lamina.Spike("los")]))
    with pytest.warns(lamina.LaminaWarning, match="waited for los, which"), recorder:
        train(training, recorder, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lamina.Flight(last=0), "last=0"),
        (lambda: lamina.Flight(when=[3]), "3 is no trigger"),  # type: ignore[list-item]
        (lambda: lamina.Flight(when=lamina.NonFinite()), "list of triggers"),  # type: ignore[arg-type]
        (lambda: lamina.Flight(when=[lamina.NonFinite(), lamina.NonFinite()]), "two triggers"),
        (lambda: lamina.Flight(also={"model": nn.Linear(1, 1)}), "'model'"),
    ],
)
def test_what_will_not_do_is_said_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(RecordingError, match=said):
        make()


def test_a_batch_that_cannot_be_kept_is_named(run: lamina.Run) -> None:
    training = Training(network())

    def step() -> None:
        with (
            record(training, run, lamina.Flight(last=3)) as recorder,
            recorder.step(0, batch={"x": [torch.ones(1), object()]}),
        ):
            pass

    with pytest.raises(RecordingError, match=r"batch\['x'\]\[1\] is a object"), pytest.warns(lamina.LaminaWarning):
        step()


def test_the_last_checkpoint_is_one_of_the_model(run: lamina.Run) -> None:
    training = Training(network())
    flight = lamina.Flight(last=2, when=[lamina.Above("largest", 100.0)])
    with record(training, run, flight) as recorder:
        train(training, recorder, 8, spike=7)
    before = copy.deepcopy(training.model)
    before.load_state_dict(run.load())
    assert run.load("last", part="batch")[0].abs().max() > 100


def test_ranks_keep_their_batches_apart(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        monkeypatch.setattr("lamina.recording.ring.own_rank", lambda rank=rank: rank)
        training = Training(network())
        batch = torch.full((6, 4), float(rank))
        flight = lamina.Flight(last=2, when=[lamina.NonFinite()])
        with record(training, run, flight, sites=[]) as recorder:
            for step in range(3):
                with recorder.step(step, batch=batch):
                    training.update(batch)
            recorder.log({"loss": math.nan})
    assert torch.equal(run.load(2, part="batch")[0], torch.zeros(6, 4))
    assert torch.equal(run.load(2, part="batch.rank1")[0], torch.ones(6, 4))
    assert set(run.load(0, part=None)) >= {"model", "optimizer", "model.rank1", "optimizer.rank1"}
