"""An interrupted capture goes on where it stopped, and nothing is there twice or in part."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError
from tests.recording.models import linear

X = torch.arange(40.0).reshape(20, 2)
BATCHES = list(X.split(3))


class Trips(nn.Module):
    """Raises KeyboardInterrupt at the nth call, and counts its calls."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.layer = linear()
        self.at, self.calls = at, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.layer(x)


@pytest.fixture
def run(tmp_path):
    return lamina.Run.create(tmp_path / "run")


def capture(model, run, **options):
    lamina.capture(model, run, BATCHES, sites=["layer.output", "output"], progress=False, **options)


def rows(run, step=0):
    frame = lamina.open(run.path).activations(step=step).sort("example").collect()
    return frame["example"].to_list(), frame["output"].to_list(), frame["layer.output"].null_count()


def test_it_goes_on_behind_the_last_whole_batch(run):
    with pytest.raises(KeyboardInterrupt):
        capture(Trips(at=5), run)
    again = Trips()
    capture(again, run, resume=True)
    assert again.calls == len(BATCHES) - 3
    assert rows(run) == (list(range(20)), (2 * X).tolist(), 0)


def test_a_batch_that_is_there_in_part_is_recorded_again(run):
    # What a power cut leaves: the first rows of the second batch, at one site of two.
    with run.writer() as writer:
        for part, example in ((BATCHES[0], [0, 1, 2]), (BATCHES[1][:2], [3, 4])):
            sites = {"layer.output": 2 * part} | ({"output": 2 * part} if len(part) == 3 else {})
            writer.append(sites, step=0, example=example, source="capture")
    capture(Trips(), run.refresh(), resume=True)
    assert rows(run) == (list(range(20)), (2 * X).tolist(), 0)


def test_a_whole_capture_costs_one_batch_to_resume(run):
    capture(Trips(), run)
    again = Trips()
    capture(again, run, resume=True)
    assert again.calls == 1
    assert rows(run) == (list(range(20)), (2 * X).tolist(), 0)


def test_replayed_steps_go_on_within_the_step_that_was_interrupted(run):
    model = Trips()
    with run.writer() as writer:
        for step in (0, 1, 2):
            with torch.no_grad():
                model.layer.weight.copy_((step + 1) * torch.eye(2))
            writer.save({"model": model.state_dict()}, step=step)
    run.refresh()
    with pytest.raises(KeyboardInterrupt):
        capture(Trips(at=len(BATCHES) + 3), run, steps=[0, 1, 2])
    again = Trips()
    capture(again, run.refresh(), steps=[0, 1, 2], resume=True)
    assert again.calls == 2 * len(BATCHES) - 1
    for step in (0, 1, 2):
        assert rows(run, step) == (list(range(20)), ((step + 1) * X).tolist(), 0)


def test_a_second_capture_that_is_no_resumption_raises(run):
    capture(Trips(), run)
    with pytest.raises(RecordingError, match=r"holds rows of step 0 and source 'capture'.*resume=True"):
        capture(Trips(), run)
    capture(Trips(), run, source="again")
    capture(Trips(), run, step=1)
    counts = lamina.open(run.path).activations().group_by("step", "source").len().sort("step", "source").collect()
    assert counts.rows() == [(0, "again", 20), (0, "capture", 20), (1, "capture", 20)]


def test_texts_name_examples_as_well(run):
    batches = [
        {"x": part, "example": [f"text {number}" for number in range(3 * at, 3 * at + len(part))]}
        for at, part in enumerate(BATCHES)
    ]
    with pytest.raises(KeyboardInterrupt):
        lamina.capture(Trips(at=3), run, batches, sites="output", progress=False)
    lamina.capture(Trips(), run, batches, sites="output", progress=False, resume=True)
    found = lamina.open(run.path).activations().select("example", pl.col("output")).collect()
    assert sorted(found["example"].to_list()) == sorted(f"text {number}" for number in range(20))


@pytest.mark.parametrize("site", ["output.grad", "layer.weight"])
def test_what_a_pass_does_not_have_raises(run, site):
    with pytest.raises(RecordingError, match="is none of a forward pass alone"):
        lamina.capture(Trips(), run, X, sites=site, progress=False)


def train(run, steps, sites="output", **options):
    model = linear()
    with lamina.record(model, run, sites=sites, **options) as recorder:
        for step in steps:
            with recorder.step(step, example=range(2)):
                model(X[:2])


def test_a_training_that_comes_again_says_rewind(run):
    train(run, range(5))
    train(lamina.open(run.path), range(5, 7))
    for first in (0, 4, 6):
        with pytest.raises(RecordingError, match=rf"up to 6 .*begins at step {first} \(run.rewind\({first}\)"):
            train(lamina.open(run.path), range(first, 9))
    train(lamina.open(run.path), range(5), sites="input")
    lamina.open(run.path).rewind(5)
    train(lamina.open(run.path), range(5, 9))
    again = lamina.open(run.path)
    assert again.activations("output").collect().select("step", "example").rows() == [
        (step, example) for step in range(9) for example in range(2)
    ]


def test_probes_of_the_final_state_do_not_come_twice(run):
    probes = {"probe": X[:2]}
    train(run, range(3), probes=probes)
    with pytest.raises(RecordingError, match=r"up to 3 .*begins at step 3 \(run.rewind\(3\)"):
        train(lamina.open(run.path), range(3, 5), probes=probes)
    lamina.open(run.path).rewind(3)
    train(lamina.open(run.path), range(3, 5), probes=probes)
    rows = lamina.open(run.path).activations().filter(source="probe").collect()
    assert rows.sort("step", "example").select("step", "example").rows() == [
        (step, example) for step in range(6) for example in range(2)
    ]


def test_rows_of_other_sources_and_ranks_are_none_of_the_training(run):
    with run.writer(rank=1) as writer:
        writer.append({"output": X[:2]}, step=3, example=[0, 1], source="train")
        writer.append({"output": X[:2]}, step=3, example=[0, 1], source="probe")
    train(lamina.open(run.path), range(2))


def test_a_training_that_is_refused_writes_nothing_and_fails(run):
    train(run, range(3))
    with pytest.raises(RecordingError, match="rewind"):
        train(run, range(3), probes={"probe": X[:2]}, checkpoint_every=1)
    again = lamina.open(run.path)
    assert again.activations().collect()["source"].unique().to_list() == ["train"]
    assert again.checkpoints().collect().is_empty()
