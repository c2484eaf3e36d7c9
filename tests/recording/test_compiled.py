"""Compiled models are recorded like eager ones, and a recorder that comes too late says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import lamina.recording as recording
from lamina.errors import RecordingError
from lamina.recording.schedules import Every
from tests.recording.fakes import FakeRun, fake_run
from tests.recording.models import Block, linear

# Dynamo looks at `.grad` of whatever it wraps and hides the warning from everybody but pytest.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(4), Block(4)).eval()


def trained(module: nn.Module, call, sites="**.output", every: Every = 2) -> FakeRun:
    """Record six steps, each with a backward pass, through `call`."""
    run = fake_run()
    data = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(1))
    with recording.record(module, run, sites=sites, every=every) as recorder:
        for step, x in enumerate(data):
            with recorder.step(step, example=range(3)):
                call(x).sum().backward()
    return run


def equal(a: FakeRun, b: FakeRun) -> bool:
    def rows(run):
        return [(append.step, name, value) for append in run.written.appends for name, value in append.sites.items()]

    pairs = list(zip(sorted(rows(a), key=lambda row: row[:2]), sorted(rows(b), key=lambda row: row[:2]), strict=True))
    return len(pairs) > 0 and all(x[:2] == y[:2] and torch.equal(x[2], y[2]) for x, y in pairs)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_model_compiled_before_its_first_call_gives_the_rows_of_eager(backend, fullgraph):
    plain, module = model(), model()
    compiled = torch.compile(module, backend=backend, fullgraph=fullgraph)
    assert equal(trained(plain, plain), trained(module, compiled))
    gradients = zip(plain.parameters(), module.parameters(), strict=True)
    assert all(a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad) for a, b in gradients)


def test_turning_on_and_off_compiles_once():
    module = model()
    trained(module, torch.compile(module, backend="aot_eager", fullgraph=True), every={0, 2, 3})
    assert counters["stats"]["unique_graphs"] == 1


def test_the_compiled_wrapper_can_be_recorded_itself():
    plain, module = model(), model()
    compiled = torch.compile(module, backend="aot_eager")
    assert equal(trained(plain, plain), trained(compiled, compiled))  # pyright: ignore[reportArgumentType]


def test_a_model_compiled_in_place_is_recorded():
    plain, module = model(), model()
    module.compile(backend="aot_eager")
    assert equal(trained(plain, plain), trained(module, module))


def test_inputs_and_keywords_are_recorded_in_compiled_code():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()
            self.add = Add()

        def forward(self, x):
            return self.add(self.inner(x), shift=x)

    class Add(nn.Module):
        def forward(self, x, *, shift):
            return x.add_(shift)

    run, module = fake_run(), Outer()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    sites = ["add.input[0]", "add.input[shift]", "output"]
    with recording.record(module, run, sites=sites) as recorder, recorder.step(0, example=[0]):
        compiled(torch.tensor([[1.0, 2.0]]))
    got = {name: value.tolist() for append in run.written.appends for name, value in append.sites.items()}
    assert got == {"add.input[0]": [[2, 4]], "add.input[shift]": [[1, 2]], "output": [[3, 6]]}


def test_micro_batches_of_a_compiled_model_are_counted():
    run, module = fake_run(), linear()
    compiled = torch.compile(module, backend="aot_eager")
    with recording.record(module, run, sites="output") as recorder, recorder.step(0, example=[7, 8, 9, 10]):
        compiled(torch.zeros(2, 2))
        compiled(torch.ones(2, 2))
    assert run.columns("output") == [{"example": [7, 8], "call": 0}, {"example": [9, 10], "call": 1}]


def test_a_model_that_was_compiled_and_called_before_raises_at_the_first_due_step():
    module = model()
    compiled = torch.compile(module, backend="eager")
    compiled(torch.ones(3, 4))
    with pytest.raises(RecordingError, match="compiled and called before recording began"):
        trained(module, compiled, sites="*.mlp.output")


def test_probes_that_run_eagerly_do_not_hide_that():
    module, x = model(), torch.ones(3, 4)
    compiled = torch.compile(module, backend="eager")
    compiled(x)
    with (
        pytest.raises(RecordingError, match=r"source 'train'.*compiled and called before"),
        recording.record(module, fake_run(), sites="*.mlp.output", probes={"validation": x}) as recorder,
        recorder.step(0, example=range(3)),
    ):
        compiled(x)


def test_after_the_advised_reset_it_is_recorded():
    plain, module = model(), model()
    compiled = torch.compile(module, backend="eager")
    compiled(torch.ones(3, 4))
    torch.compiler.reset()
    assert equal(trained(plain, plain), trained(module, compiled))


def test_compiled_code_runs_on_when_the_recorder_is_gone():
    module = model()
    compiled = torch.compile(module, backend="aot_eager")
    trained(module, compiled)
    x = torch.ones(3, 4)
    assert torch.equal(compiled(x), module(x))


def test_many_layers_that_are_compiled_one_by_one_share_their_code():
    def layers():
        torch.manual_seed(0)
        return nn.Sequential(*(Block(4) for _ in range(10))).eval()

    plain, module = layers(), layers()
    for layer in module:
        layer.compile(backend="aot_eager", fullgraph=True)
    assert equal(trained(plain, plain, sites="*.mlp.output"), trained(module, module, sites="*.mlp.output"))
