from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lamina.recording as recording
from tests.faults import broken
from tests.recording.fakes import fake_run
from tests.recording.models import Block


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.use_reentrant = use_reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.use_reentrant)  # pyright: ignore[reportAssignmentType]
        return x


def check_that_a_recomputation_does_not_count(use_reentrant: bool) -> None:
    model, run = Checkpointed(use_reentrant), fake_run()
    with recording.record(model, run, sites=["blocks.*.mlp.output", "blocks.*.mlp.0.input"]) as recorder:
        for step in range(2):
            with recorder.step(step, example=range(3)):
                model(torch.ones(3, 4, requires_grad=True)).sum().backward()
    for site in recorder.sites:
        assert {step: len(value) for step, value in run.values(site).items()} == {0: 3, 1: 3}
        assert run.columns(site) == 2 * [{"example": range(3)}]


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing_gives_each_row_once(use_reentrant):
    check_that_a_recomputation_does_not_count(use_reentrant)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_recorder_that_counts_recomputations_is_found_out(use_reentrant):
    with broken("recorder_counts_recomputations"), pytest.raises(AssertionError):
        check_that_a_recomputation_does_not_count(use_reentrant)
