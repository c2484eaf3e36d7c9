"""Gradients of activations: those that flow back to what the hook saw."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from tests.recording.models import Block, linear

X = torch.arange(6.0).reshape(3, 2)


def test_the_gradient_of_a_planted_loss(run):
    model = nn.Sequential(linear(), nn.ReLU(inplace=True), linear())
    weights = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]])
    with (
        recording.record(model, run, sites=["output.grad", "0.output.grad"]) as recorder,
        recorder.step(0, example=[0, 1, 2]),
    ):
        (model(X + 1) * weights).sum().backward()
    assert torch.equal(run.values("output.grad")[0], weights)
    assert torch.equal(run.values("0.output.grad")[0], 2 * weights)
    assert run.columns("output.grad") == [{"example": [0, 1, 2]}]


def test_gradients_of_micro_batches_stand_with_their_examples(run):
    model = linear()
    with recording.record(model, run, sites=["output", "output.grad"]) as recorder, recorder.step(0, example=[7, 8, 9]):
        first, second = model(X[:2]), model(X[2:])
        (3 * second).sum().backward()
        first.sum().backward()
    grads = {tuple(append.columns["example"]): append.sites["output.grad"].tolist() for append in run.written.appends}
    assert grads == {(7, 8): [[1, 1], [1, 1]], (9,): [[3, 3]]}


def test_two_backward_passes_add_up(run):
    model = linear()
    with recording.record(model, run, sites="output.grad") as recorder, recorder.step(0, example=[0, 1, 2]):
        out = model(X)
        out.sum().backward(retain_graph=True)
        (2 * out).sum().backward()
    assert torch.equal(run.values("output.grad")[0], torch.full((3, 2), 3.0))


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations_have_one_gradient(run, reentrant):
    torch.manual_seed(0)
    model = Block(4).eval()
    x = torch.randn(3, 4, requires_grad=True)

    def gradients(call):
        with recording.record(model, run, sites="mlp.output.grad") as recorder, recorder.step(0, example=[0, 1, 2]):
            (call(x) ** 2).sum().backward()
        return run.values("mlp.output.grad")[0]

    plain = gradients(model)
    run.written.appends.clear()
    again = gradients(lambda x: checkpoint(model, x, use_reentrant=reentrant))
    assert again.shape == plain.shape
    assert torch.equal(again, plain)


def test_gradients_that_cannot_be_told_apart_raise(run):
    shared = linear()
    model = nn.Sequential(shared, shared)
    with (
        pytest.raises(RecordingError, match="called several times in a batch under reentrant"),
        recording.record(model, run, sites="0.output.grad") as recorder,
        recorder.step(0, example=[0, 1, 2]),
    ):
        checkpoint(model, X.clone().requires_grad_(), use_reentrant=True).sum().backward()


def test_no_backward_pass_inside_the_step_raises(run):
    model = linear()
    with (
        pytest.raises(RecordingError, match=r"nothing was captured at output\.grad.*backward pass"),
        recording.record(model, run, sites="output.grad") as recorder,
        recorder.step(0, example=[0, 1, 2]),
    ):
        model(X)


@pytest.mark.filterwarnings("ignore:sites captured in fewer steps")
def test_gradients_of_a_later_step_do_not_mix_with_those_of_an_earlier_one(run):
    model = linear()
    with recording.record(model, run, sites=["output", "output.grad"]) as recorder:
        with (
            pytest.warns(LaminaWarning, match="nothing was captured at output.grad"),
            recorder.step(0, example=[0, 1, 2]),
        ):
            late = model(X).sum()
        with recorder.step(1, example=[0, 1, 2]):
            late.backward()
            (5 * model(X)).sum().backward()
    assert run.values("output.grad")[1].tolist() == [[5, 5]] * 3


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_gradients_in_compiled_code(run):
    torch.compiler.reset()
    torch.manual_seed(0)
    model, x = nn.Sequential(Block(4), Block(4)).eval(), torch.randn(3, 4)
    compiled = torch.compile(model, backend="aot_eager")
    with recording.record(model, run, sites="0.mlp.output.grad") as recorder:
        for step, call in enumerate((model, compiled)):
            with recorder.step(step, example=[0, 1, 2]):
                (call(x) ** 2).sum().backward()
    values = run.values("0.mlp.output.grad")
    assert torch.equal(values[0], values[1])
    torch.compiler.reset()
