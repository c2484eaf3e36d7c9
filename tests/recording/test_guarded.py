"""A store that fails ends the recording, not the training, where that is asked for."""

from __future__ import annotations

import pytest
import torch

import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError, StorageError
from tests.recording.models import linear

X = torch.arange(6.0).reshape(3, 2)


def fail_from_step(run, step):
    whole = run.written.append

    def append(sites, **columns):
        if columns["step"] >= step:
            raise StorageError("no space left on device", file="log")
        whole(sites, **columns)

    run.written.append = append


def test_by_default_it_raises(run):
    fail_from_step(run, 0)
    with (
        pytest.raises(StorageError, match="no space"),
        recording.record(linear(), run, sites=[]) as recorder,
        recorder.step(0, example=[0, 1, 2]),
    ):
        recorder.put("x", X)


def test_or_it_warns_once_and_the_training_goes_on(run):
    fail_from_step(run, 1)
    model, done = linear(), []

    def train():
        with recording.record(model, run, sites="output", checkpoint_every=1, on_failure="warn") as recorder:
            for step in range(4):
                with recorder.step(step, example=[0, 1, 2]):
                    done.append(model(X))
                recorder.log({"loss": 1.0})

    with pytest.warns(LaminaWarning, match="recording has ended, and the training goes on: no space") as warned:
        train()
    assert len(done) == 4
    assert len(warned) == 1
    assert list(run.values("output")) == [0]
    assert "no space" in run.written.error


def test_mistakes_of_the_user_raise_all_the_same(run):
    model = linear()
    with (
        pytest.raises(RecordingError, match="'example' has 7 entries"),
        recording.record(model, run, sites="output", on_failure="warn") as recorder,
        recorder.step(0, example=range(7)),
    ):
        model(X)


def test_another_policy_is_none(run):
    with pytest.raises(RecordingError, match="neither 'raise' nor 'warn'"):
        recording.record(linear(), run, sites=[], on_failure="ignore")  # pyright: ignore[reportArgumentType]
