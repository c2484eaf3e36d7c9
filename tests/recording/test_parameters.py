"""Parameters as sites: values of the state of the step, gradients and updates of the optimizer's step in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lamina
import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.resolve import resolve
from tests.recording.models import Net

X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def names(model, sites, optimizer=None):
    return [site.name for site in resolve(model, sites, optimizer=optimizer).parameters]


def test_parameters_are_asked_for_by_name():
    model = Net()
    assert names(model, "blocks.*.mlp.0.weight") == ["blocks.0.mlp.0.weight", "blocks.1.mlp.0.weight"]
    assert names(model, "head.*.grad") == ["head.weight.grad", "head.bias.grad"]
    assert names(model, "**") == names(model, "head.*ut") == []
    assert len(names(model, "**.weight.grad")) == len(
        [name for name, _ in model.named_parameters() if "weight" in name]
    )


def test_what_belongs_to_an_optimizer_needs_one():
    model = Net()
    for site in ("head.weight.update", "**.weight.exp_avg"):
        with pytest.raises(RecordingError, match=r"belongs to the optimizer.*optimizer="):
            resolve(model, site)
    optimizer = torch.optim.Adam(model.parameters())
    assert names(model, "head.*.exp_avg", optimizer) == ["head.weight.exp_avg", "head.bias.exp_avg"]
    with pytest.raises(RecordingError, match="matches nothing"):
        resolve(model, "head.weight.momentun", optimizer=optimizer)


def train(run, sites, *, lr=0.5, steps=3, optimizer=True, zero_after=False):
    """Train one linear layer on a planted gradient: that of sum(W x) is the sum of x in every row."""
    layer = nn.Linear(2, 3, bias=False)
    nn.init.ones_(layer.weight)
    sgd = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.5)
    with recording.record(layer, run, sites=sites, optimizer=sgd if optimizer else None) as recorder:
        for step in range(steps):
            with recorder.step(step, example=[0, 1], lr=lr):
                layer(X).sum().backward()
                sgd.step()
                if zero_after:
                    sgd.zero_grad()
            sgd.zero_grad()
    return run


GRADIENT = torch.tensor([[4.0, 6.0]] * 3)


def test_gradients_and_updates_are_those_of_the_step(run):
    train(run, ["weight", "weight.grad", "weight.update"], zero_after=True)
    momentum = 0
    weight = torch.ones(3, 2)
    for step in range(3):
        momentum = 0.5 * momentum + GRADIENT
        assert torch.equal(run.values("weight")[step], weight)
        assert torch.equal(run.values("weight.grad")[step], GRADIENT)
        assert torch.equal(run.values("weight.update")[step], -0.5 * momentum)
        weight = weight - 0.5 * momentum


def test_the_state_of_the_optimizer_is_that_after_as_many_updates(run):
    train(run, ["weight.momentum_buffer"])
    assert list(run.values("weight.momentum_buffer")) == [1, 2]
    assert torch.equal(run.values("weight.momentum_buffer")[2], 1.5 * GRADIENT)


def test_rows_are_units_with_their_number_as_position(run):
    train(run, ["weight.grad", "output"], steps=1)
    assert run.columns("weight.grad") == [{"lr": 0.5, "position": [0, 1, 2]}]
    assert run.columns("output") == [{"example": [0, 1], "lr": 0.5}]


def test_gradients_need_no_optimizer_if_they_stand_at_the_end_of_the_step(run):
    train(run, "weight.grad", optimizer=False)
    assert torch.equal(run.values("weight.grad")[2], GRADIENT)


def test_clipped_gradients_are_what_the_optimizer_used(run):
    layer = nn.Linear(2, 1, bias=False)
    sgd = torch.optim.SGD(layer.parameters(), lr=1.0)
    with recording.record(layer, run, sites="weight.grad", optimizer=sgd) as recorder, recorder.step(0):
        layer(X).sum().backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        sgd.step()
    assert run.values("weight.grad")[0].norm().item() == pytest.approx(1, rel=1e-5)


def test_gradients_that_are_taken_by_hand_are_not_clipped(run):
    layer = nn.Linear(2, 1, bias=False)
    sgd = torch.optim.SGD(layer.parameters(), lr=1.0)
    with recording.record(layer, run, sites="weight.grad", optimizer=sgd, every=2) as recorder:
        for step in range(3):
            with recorder.step(step):
                layer(X).sum().backward()
                recorder.take_gradients()
                nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
                sgd.step()
                sgd.zero_grad()
        with pytest.raises(RecordingError, match="outside of a step"):
            recorder.take_gradients()
    assert {step: one.tolist() for step, one in run.values("weight.grad").items()} == {0: [[4, 6]], 2: [[4, 6]]}


def test_gradients_of_an_optimizer_with_a_closure_are_those_of_its_first_evaluation(run):
    layer = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(layer.weight)
    lbfgs = torch.optim.LBFGS(layer.parameters(), max_iter=3)
    seen = []

    def closure():
        lbfgs.zero_grad()
        loss = (layer(X) - 1).square().sum()
        loss.backward()
        assert layer.weight.grad is not None
        seen.append(layer.weight.grad.clone())
        return loss

    with recording.record(layer, run, sites=["weight.grad", "weight.update"], optimizer=lbfgs) as recorder:
        for step, keyword in enumerate((False, True)):
            first = len(seen)
            with recorder.step(step):
                loss = lbfgs.step(closure=closure) if keyword else lbfgs.step(closure)
            assert loss.item() > 0
            assert len(seen) > first + 1
            assert torch.equal(run.values("weight.grad")[step], seen[first])
    assert torch.equal(run.values("weight.update")[0] + run.values("weight.update")[1], layer.weight.detach())


def test_micro_batches_await_the_step_of_the_optimizer(run):
    layer = nn.Linear(2, 3, bias=False)
    nn.init.ones_(layer.weight)
    sgd = torch.optim.SGD(layer.parameters(), lr=0.5)
    with recording.record(layer, run, sites=["weight.grad", "weight.update"], optimizer=sgd) as recorder:
        for step in range(2):
            for micro in range(2):
                with recorder.step(step):
                    layer(X).sum().backward()
                    if micro:
                        sgd.step()
                        sgd.zero_grad()
    assert torch.equal(run.values("weight.grad")[1], 2 * GRADIENT)
    assert torch.equal(run.values("weight.update")[1], -GRADIENT)


def test_an_optimizer_that_steps_outside_of_the_step_is_noticed(run):
    layer = nn.Linear(2, 3, bias=False)
    sgd = torch.optim.SGD(layer.parameters(), lr=0.5)

    def train(steps):
        with recording.record(layer, run, sites=["weight.grad", "weight.update"], optimizer=sgd) as recorder:
            for step in range(steps):
                with recorder.step(step):
                    layer(X).sum().backward()
                sgd.step()

    with pytest.raises(RecordingError, match=r"weight\.grad, weight\.update in all steps.*optimizer steps in it"):
        train(1)
    with pytest.warns(LaminaWarning, match=r"weight\.grad, weight\.update in a step"), pytest.raises(RecordingError):
        train(3)


def test_a_number_is_one_row_and_a_vector_a_row_for_each_unit(run):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.shift = nn.Parameter(torch.tensor([1.0, 5.0]))

        def forward(self, x):
            return self.scale * x + self.shift

    with recording.record(Scaled(), run, sites=["scale", "shift"]) as recorder, recorder.step(0):
        pass
    assert (run.values("scale")[0].tolist(), run.values("shift")[0].tolist()) == ([2.0], [1.0, 5.0])


def test_a_kernel_of_one_dimension_is_a_row_for_each_unit_too(tmp_path):
    layer, run = nn.Conv1d(4, 8, 3), lamina.Run.create(tmp_path / "run")
    with recording.record(layer, run, sites="weight") as recorder, recorder.step(0):
        pass
    rows = run.rows("weight")
    assert torch.equal(rows.gather(range(len(rows))), layer.weight.detach().flatten(1))
    assert rows.metadata(["position"])["position"].to_list() == list(range(8))


def test_lazy_parameters_raise(run):
    with pytest.raises(RecordingError, match="has no shape yet"):
        recording.record(nn.LazyLinear(3), run, sites="weight")


def test_hooks_on_the_optimizer_are_gone_afterwards(run):
    layer = nn.Linear(2, 1)
    sgd = torch.optim.SGD(layer.parameters(), lr=1.0)
    with recording.record(layer, run, sites="weight.update", optimizer=sgd) as recorder, recorder.step(0):
        layer(X).sum().backward()
        sgd.step()
    assert not sgd._optimizer_step_pre_hooks
    assert not sgd._optimizer_step_post_hooks
