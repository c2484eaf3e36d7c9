from __future__ import annotations

import pytest
import torch
from torch import nn

import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.account import Account


def test_a_source_that_captures_nothing_raises_at_once():
    account = Account()
    account.add("validation", ["a", "b"], ["a", "b"])
    with pytest.raises(
        RecordingError, match=r"nothing was captured at a, b .*\(source 'train'\).*torch.compiler.reset"
    ):
        account.add("train", ["a", "b"], [])


def test_a_single_silent_site_warns_once_and_raises_at_the_end():
    account = Account()
    with pytest.warns(LaminaWarning, match="nothing was captured at b"):
        account.add("train", ["a", "b"], ["a"])
    account.add("train", ["a", "b"], ["a"])
    with pytest.raises(RecordingError, match="nothing was captured at b in all steps"):
        account.close()


def test_a_site_that_fires_later_or_in_another_source_is_accounted_for():
    account = Account()
    with pytest.warns(LaminaWarning):
        account.add("train", ["a", "b", "c"], ["a"])
    account.add("train", ["a", "b", "c"], ["a", "b"])
    account.add("validation", ["a", "b", "c"], ["a", "b", "c"])
    with pytest.warns(LaminaWarning, match=r"fewer steps than were due: b in 1 of 2 \(source 'train'\): in the others"):
        account.close()


def test_of_many_sites_that_fire_now_and_then_some_are_named():
    account = Account()
    names = list("abcdefgh")
    account.add("train", names, names)
    account.add("train", names, ["a"])
    with pytest.warns(LaminaWarning, match=r"b in 1 of 2 .*; f in 1 of 2 .*; and 2 more: in the"):
        account.close()


def test_a_site_that_is_due_less_often_misses_nothing():
    account = Account()
    account.add("train", ["a", "b"], ["a", "b"])
    account.add("train", ["a"], ["a"])
    account.close()


def test_what_a_later_micro_batch_fills_is_not_missed():
    account = Account()
    for _ in range(2):
        account.begin_step()
        account.add("train", ["a", "w.grad"], ["a"], awaited=["w.grad"])
        account.add("train", ["a", "w.grad"], ["a", "w.grad"])
    account.begin_step()
    account.add("train", ["a", "w.grad"], ["a"], awaited=["w.grad"])
    with pytest.warns(LaminaWarning, match=r"nothing was captured at w\.grad in a step"):
        account.begin_step()
    with pytest.warns(LaminaWarning, match=r"w\.grad in 2 of 3"):
        account.close()


def test_sites_that_were_never_due_are_not_missed():
    account = Account()
    account.add("train", [], [])
    account.close()


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def record_unused(run, then=None):
    """Record three steps of a model with an unused layer."""
    model = Unused()
    with recording.record(model, run, sites="*.output", checkpoint_every=10) as recorder:
        for step in range(3):
            with recorder.step(step, example=range(2)):
                model(torch.ones(2, 2))
        if then is not None:
            raise then


@pytest.mark.filterwarnings("ignore:nothing was captured at unused.output")
def test_a_site_that_never_fires_raises_on_exit_after_the_final_checkpoint(run):
    with pytest.raises(RecordingError, match=r"nothing was captured at unused\.output in all steps"):
        record_unused(run)
    assert list(run.values("used.output")) == [0, 1, 2]
    assert [step for step, _ in run.written.saves] == [0, 3]
    assert "unused.output" in run.written.error


@pytest.mark.filterwarnings("ignore:nothing was captured at unused.output")
def test_a_silent_site_does_not_hide_another_exception(run):
    with pytest.raises(ZeroDivisionError):
        record_unused(run, then=ZeroDivisionError())
