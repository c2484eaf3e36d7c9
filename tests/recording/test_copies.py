"""Copies of a model that is being recorded are not recorded."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import lamina.recording as recording
from tests.recording.models import Net


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_made_inside_a_due_step_stays_idle(run, duplicate):
    model, x = Net(), torch.ones(3, 4)
    sites = {"**.output": recording.Site(every=lambda step: True), "head.input": recording.Site()}
    with recording.record(model, run, sites=sites) as recorder:
        with recorder.step(0, example=range(3)):
            twin = duplicate(model)
            model(x)
            for _ in range(3):
                twin(x)
        with recorder.step(1, example=range(3)):
            model(x)
            twin(x)
    assert {step: len(value) for step, value in run.values("head.output").items()} == {0: 3, 1: 3}
    taps = [hook.__self__ for module in twin.modules() for hook in module._forward_hooks.values()]
    assert taps
    assert not any(tap.armed or tap._collector.drain() for tap in taps)  # pyright: ignore[reportAttributeAccessIssue]
