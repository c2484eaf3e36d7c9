"""A state on a GPU is saved from there and goes back there, or to the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import lamina
from tests.runs.test_restoring import Trained, states, tensors

pytestmark = pytest.mark.gpu


def make(device: str, seed: int = 0) -> Trained:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(300, 600), nn.BatchNorm1d(600), nn.Linear(600, 2)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)


def train(trained: Trained) -> None:
    model, optimizer, schedule = trained
    optimizer.zero_grad()
    model(torch.randn(16, 300, device=next(model.parameters()).device)).square().mean().backward()
    optimizer.step()
    schedule.step()


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_state_of_a_gpu_comes_back_on_any_device(tmp_path: Path, device: str) -> None:
    run, trained = lamina.Run.create(tmp_path / "run"), make("cuda")
    train(trained)
    with run.writer() as writer:
        kept = [tensor.cpu().clone() for tensor in tensors(list(states(trained).values()))]
        writer.save(states(trained), step=1)
        for tensor in tensors(list(states(trained).values())):
            tensor.zero_()  # as the next step would, in place; the old values are stored
    again = make(device, seed=1)
    assert run.refresh().restore("last", again[0], again[1], schedule=again[2]) == 1
    assert all(parameter.device.type == device for parameter in again[0].parameters())
    assert again[1].state_dict()["state"][0]["exp_avg"].device.type == device
    found = [tensor.cpu() for tensor in tensors(list(states(again).values()))]
    assert len(found) == len(kept)
    assert all(map(torch.equal, found, kept))
    train(again)
