"""Training calls that no step records are told of; whatever else calls a model is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import LaminaWarning


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def never_step(net: nn.Module, run: lamina.Run, times: int, called: Callable | None = None) -> None:
    with lamina.record(net, run, sites="1.output"):
        for _ in range(times):
            (called or net)(torch.ones(3, 4))


def test_a_loop_that_never_steps_is_told_once(run: lamina.Run) -> None:
    with pytest.warns(LaminaWarning, match=r"called 100 times.*recorder\.step\(step\)") as told:
        never_step(model(), run, 250)
    assert len(told) == 1
    assert run.steps() == []


def test_a_long_training_need_not_end_to_be_told(run: lamina.Run) -> None:
    net = model()
    with lamina.record(net, run, sites="1.output"):
        for _ in range(99):
            net(torch.ones(3, 4))
        with pytest.warns(LaminaWarning, match="called 100 times"):
            net(torch.ones(3, 4))


def test_a_short_loop_that_never_steps_is_told_at_the_end(run: lamina.Run) -> None:
    with pytest.warns(LaminaWarning, match="called 3 times in training mode"):
        never_step(model(), run, 3)


def test_compiled_code_counts_too(run: lamina.Run) -> None:
    net = model()
    with pytest.warns(LaminaWarning, match="called 2 times"):
        never_step(net, run, 2, torch.compile(net, backend="eager"))


def test_other_calls_are_no_mistake(run: lamina.Run) -> None:
    net, x = model(), torch.ones(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lamina.record(net, run, sites="1.output", every=50) as recorder:
            net(x)  # a trial
            for step in range(120):
                with recorder.step(step, example=range(3)):
                    net(x)
                net(x)
        with lamina.record(net.eval(), run, sites="2.output"):
            net(x)
        net.train()
        with lamina.record(net, run, sites=[]) as recorder:
            net(x)
            recorder.log({"loss": 1.0}, step=0)
        with pytest.raises(RuntimeError, match="shapes"):
            never_step(net, run, 1, lambda x: net(x) @ x)
