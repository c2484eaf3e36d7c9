"""Models that nnsight wraps train for real; rows are what its traces save, and recording leaves those as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lamina
from tests.integrations.truth import rows, same, weights

_backward = torch.Tensor.backward
nnsight: Any = pytest.importorskip("nnsight", exc_type=ImportError)
# nnsight's own parses the source of whoever calls it, in all tests that follow; these here do without.
torch.Tensor.backward = _backward

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 3


class Net(nn.Module):
    """Layers in a list, which is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu_()
        return self.head(x)


def train(run: lamina.Run | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Train through traces, three steps, each of which saves what two modules return."""
    torch.manual_seed(0)
    module = Net()
    model = nnsight.NNsight(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.5)
    saved = []

    def step() -> None:
        with model.trace(X):
            hidden = model.layers[1].output.clone().save()
            logits = model.head.output.save()
        saved.append(torch.cat([hidden.detach(), logits.detach()], 1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, Y).backward()
        optimizer.step()

    if run is None:
        for _ in range(3):
            step()
    else:
        with lamina.record(module, run, sites="**.output", optimizer=optimizer) as recorder:
            for number in range(3):
                with recorder.step(number, example=range(8)):
                    step()
    return weights(module), saved


def test_a_training_through_traces_is_recorded_as_they_save_it(run):
    plain, expected = train(None)
    recorded, saved = train(run)
    assert same(recorded, plain)
    assert same(saved, expected)
    run.refresh()
    assert torch.equal(torch.cat([rows(run, "layers.1.output"), rows(run, "head.output")], 1), torch.cat(saved))
    assert sorted(run.sites()["site"]) == ["head.output", "layers.0.output", "layers.1.output", "output"]


def test_what_a_trace_changes_is_recorded_as_it_flows_on(run):
    module = Net()
    model = nnsight.NNsight(module)
    with (
        lamina.record(module, run, sites=["layers.0.output", "layers.1.input"]) as recorder,
        recorder.step(0, example=range(8)),
        model.trace(X),
    ):
        model.layers[0].output = torch.zeros(8, 4)
    run.refresh()
    assert rows(run, "layers.0.output").count_nonzero() == rows(run, "layers.1.input").count_nonzero() == 0


def test_a_language_model_is_recorded_through_its_module(run):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_layer=2, n_embd=16, n_head=2)
    model = nnsight.NNsight(transformers.GPT2LMHeadModel(config).eval())
    ids = torch.arange(12).reshape(2, 6)
    with (
        lamina.record(model._module, run, sites="blocks.*.hook_resid_post") as recorder,
        recorder.step(0, example=range(2)),
        model.trace(input_ids=ids),
    ):
        hidden = model.transformer.h[1].output.save()
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    assert torch.equal(rows(run.refresh(), "blocks.1.hook_resid_post"), hidden.detach().flatten(0, 1))
