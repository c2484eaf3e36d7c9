"""A loop of Accelerate: the recorder goes around it as it stands, and takes the wrapped model and optimizer."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lamina
from tests.integrations.truth import Truth, rows, same, weights

accelerate: Any = pytest.importorskip("accelerate", exc_type=ImportError)

SITES = ["*.output", "0.weight.grad", "0.weight.update", "0.weight.exp_avg"]


def train(run: lamina.Run | None) -> tuple[list[torch.Tensor], Truth]:
    """Train in micro-batches of two, with clipping, with a recorder or without."""
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.25), nn.Linear(8, 3))
    truth = Truth(model, ["0.output", "3.output"])
    truth.seen["gradient"] = []
    x, y = torch.randn(24, 4), torch.randint(0, 3, (24,))
    loader: Any = DataLoader(TensorDataset(x, y, torch.arange(24)), batch_size=4)
    optimizer: Any = torch.optim.Adam(model.parameters(), lr=0.01)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    with ExitStack() as stack:
        around: Any = lambda step, index: nullcontext()  # noqa: E731
        if run is not None:
            recorder = stack.enter_context(
                lamina.record(model, run, sites=SITES, optimizer=optimizer, checkpoint_every=3)
            )
            around = lambda step, index: recorder.step(step, example=index)  # noqa: E731
        step = 0
        for x, y, index in loader:
            with accelerator.accumulate(model), around(step, index):
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.01)
                    truth.seen["gradient"].append(model[0].weight.grad.clone())
                optimizer.step()
                optimizer.zero_grad()
            step += accelerator.sync_gradients
    return weights(model), truth


def test_a_training_is_recorded_and_goes_on_as_without(run):
    plain, _ = train(None)
    recorded, truth = train(run)
    assert same(recorded, plain)
    assert run.refresh().steps() == [0, 1, 2]
    for site in ("0.output", "3.output"):
        assert torch.equal(rows(run, site), torch.cat(truth.seen[site]))
    assert torch.equal(rows(run, "0.weight.grad"), torch.cat(truth.seen["gradient"]))
    # The update of step 2 leads from its weights to the last; it is the last of three.
    change = run.load(3)["0.weight"] - run.load(0)["0.weight"]
    torch.testing.assert_close(rows(run, "0.weight.update").reshape(3, 8, 4).sum(0), change)
    assert rows(run, "0.weight.exp_avg").abs().sum() > 0
