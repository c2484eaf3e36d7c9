"""The caller's model and random generators leave as they came, whatever happens."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lamina.recording as recording
from lamina.errors import RecordingError
from tests.faults import broken
from tests.recording.fakes import fake_run
from tests.recording.models import Net


def state(model: nn.Module) -> dict[str, object]:
    """Return everything that a recorder must not change."""
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.modules()],
        "tensors": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=False)["state"]["key"].tolist(),  # noqa: NPY002
        "python": random.getstate(),
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return a == b


class Noisy(nn.Module):
    """Draws from every global generator, even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.net.blocks[0].eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(()) + random.random() + np.random.random()  # noqa: NPY002
        return self.net(x) + noise


def probe() -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(6, 4), torch.zeros(6)), batch_size=4)


def test_probes_and_hooks_leave_no_trace(run):
    model, data = Noisy(), probe()
    x = torch.randn(3, 4)
    model(x).sum().backward()
    before = state(model)
    with recording.record(model, run, sites="net.**.output", probes={"validation": data}) as recorder:
        with recorder.step(0, example=range(3)):
            inside = state(model)
            assert inside.pop("hooks") != before["hooks"]
            assert same(inside, {name: value for name, value in before.items() if name != "hooks"})
            model(x)
        expected = state(model) | {"hooks": before["hooks"]}
    assert same(state(model), expected)
    assert list(run.values("net.head.output", "validation")) == [0, 1]


@pytest.mark.parametrize("where", ["step", "probe", "between"])
def test_nothing_is_left_behind_by_an_exception(run, where):
    class Trips(Noisy):
        trip = False

        def forward(self, x):
            y = super().forward(x)
            if self.trip:
                raise FloatingPointError("tripped")
            return y

    model, data = Trips(), probe()
    x = torch.randn(3, 4)
    model(x)
    before = state(model)

    def recorded():
        with recording.record(
            model, run, sites="net.**.output", probes={"validation": data}, checkpoint_every=10
        ) as recorder:
            model.trip = where == "probe"
            with recorder.step(0, example=range(3)):
                model.trip = where == "step"
                with torch.no_grad():
                    model.eval()(x)
            raise FloatingPointError("tripped")

    with pytest.raises(FloatingPointError, match="tripped"):
        recorded()
    model.train()
    model.net.blocks[0].eval()
    after = state(model)
    if where != "probe":  # the model ran outside of the recorder's care, and drew random numbers
        for name in ("torch", "numpy", "python"):
            del before[name], after[name]
    assert same(after, before)
    assert run.written.closed
    assert run.written.error == "FloatingPointError('tripped')"
    assert bool(run.values("net.head.output")) == (where == "between")
    assert [step for step, _ in run.written.saves] == [0]


def test_a_step_that_raises_leaves_no_rows_and_the_next_one_does(run):
    model = Net()

    def interrupted(recorder):
        with recorder.step(0, example=range(3)):
            model(torch.ones(3, 4))
            raise KeyboardInterrupt

    with recording.record(model, run, sites="head.output") as recorder:
        with pytest.raises(KeyboardInterrupt):
            interrupted(recorder)
        model(torch.ones(3, 4))
        with recorder.step(1, example=range(3)):
            model(torch.ones(3, 4))
    assert {step: len(value) for step, value in run.values("head.output").items()} == {1: 3}
    assert run.columns("head.output") == [{"example": range(3)}]


def test_no_final_state_is_taken_if_the_last_step_did_not_complete(run):
    with recording.record(Net(), run, sites=[], checkpoint_every=1) as recorder:
        with recorder.step(0):
            pass
        with pytest.raises(ZeroDivisionError), recorder.step(1):
            raise ZeroDivisionError
    assert [step for step, _ in run.written.saves] == [0, 1]


@pytest.fixture
def full_disk(run, monkeypatch):
    def refuse(error=None):
        raise OSError("disk full")

    monkeypatch.setattr(run.written, "close", refuse)
    return run


def test_the_first_error_is_heard_even_if_closing_fails_too(full_disk):
    with pytest.raises(ZeroDivisionError) as caught, recording.record(Net(), full_disk, sites=[]):
        raise ZeroDivisionError
    assert "disk full" in caught.value.__notes__[0]


def test_a_writer_that_cannot_be_closed_raises_and_the_hooks_are_gone(full_disk):
    model = Net()
    with pytest.raises(OSError, match="disk full"), recording.record(model, full_disk, sites="**.output"):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def train(run: Any) -> dict[str, torch.Tensor]:
    """Train with dropout, shuffling and augmentation; with a run, record it, with probes that draw random numbers."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = Noisy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = DataLoader(TensorDataset(torch.randn(40, 4), torch.randint(0, 3, (40,))), batch_size=8, shuffle=True)

    def step(x, y):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    if run is None:
        for _ in range(3):
            for x, y in data:
                step(x, y)
    else:
        probes = {"validation": torch.linspace(-1, 1, 20).reshape(5, 4), "test": probe_of_its_own()}
        with recording.record(
            model, run, sites="**.output", every=2, checkpoint_every=3, probes=probes, optimizer=optimizer
        ) as recorder:
            number = 0
            for _ in range(3):
                for x, y in data:
                    with recorder.step(number, example=range(8)):
                        step(x, y)
                    number += 1
    return model.state_dict()


def probe_of_its_own() -> DataLoader:
    x = torch.arange(24.0).reshape(6, 4)
    return DataLoader(TensorDataset(x, x), batch_size=4)


def check_that_recording_changes_nothing():
    plain, run = train(None), fake_run()
    recorded = train(run)
    assert run.values("net.head.output", "validation")
    assert run.values("net.head.output", "test")
    assert same(plain, recorded)


def test_a_recorded_training_gives_the_weights_of_an_unrecorded_one():
    check_that_recording_changes_nothing()


@pytest.mark.parametrize("fault", ["probes_draw_random_numbers", "probes_train"])
def test_a_probe_that_leaves_a_trace_is_found_out(fault):
    with broken(fault), pytest.raises(AssertionError):
        check_that_recording_changes_nothing()


def test_the_generator_of_a_probe_loader_is_restored(run):
    generator = torch.Generator().manual_seed(3)
    data = DataLoader(TensorDataset(torch.randn(6, 4)), batch_size=3, generator=generator)
    before = generator.get_state()
    model = Net()
    with (
        recording.record(model, run, sites="output", probes={"validation": data}) as recorder,
        recorder.step(0, example=range(2)),
    ):
        model(torch.ones(2, 4))
    assert torch.equal(generator.get_state(), before)


def test_two_recorders_on_one_model_do_not_meet():
    first, second, model = fake_run(), fake_run(), Net()
    with recording.record(model, first, sites="head.output") as one, one.step(0, example=range(2)):
        with recording.record(model, second, sites="output") as two, two.step(5, example=range(2)):
            model(torch.ones(2, 4))
        model(torch.ones(2, 4))
    assert [list(r.values(site)) for r, site in ((first, "head.output"), (second, "output"))] == [[0], [5]]
    assert len(first.values("head.output")[0]) == 4


def test_what_captured_nothing_raises_at_the_first_due_step(run):
    done = []

    def recorded():
        with recording.record(Net(), run, sites="head.output", every=2) as recorder:
            for step in range(1, 4):
                with recorder.step(step):
                    pass
                done.append(step)

    with pytest.raises(RecordingError, match=r"nothing was captured at head\.output in the first step that was due"):
        recorded()
    assert done == [1]
    assert "nothing was captured" in run.written.error


class Counts(nn.Module):
    """Counts its calls and averages what it sees, in evaluation mode too."""

    calls: torch.Tensor
    average: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("average", torch.zeros(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.average.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return self.layer(x) + self.average + self.calls


def check_that_probes_leave_buffers_as_they_are(run):
    def trained(probes):
        torch.manual_seed(0)
        model = Counts()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with recording.record(model, run, sites="output", probes=probes) as recorder:
            for step in range(3):
                with recorder.step(step, example=range(3)):
                    model(torch.randn(3, 4)).square().sum().backward()
                    optimizer.step()
        return [*model.parameters(), *model.buffers()]

    assert all(map(torch.equal, trained({}), trained({"validation": probe()})))


def test_probes_leave_buffers_as_they_are(run):
    check_that_probes_leave_buffers_as_they_are(run)


def test_buffers_that_are_left_changed_are_found_out(run):
    with broken("probes_leave_buffers_changed"), pytest.raises(AssertionError):
        check_that_probes_leave_buffers_as_they_are(run)


def test_a_probe_inside_autocast_leaves_no_casts_without_gradients(run):
    model, x = nn.Linear(4, 4), torch.randn(3, 4)
    with (
        recording.record(model, run, sites="output", probes={"validation": x}) as recorder,
        torch.autocast("cpu", dtype=torch.bfloat16),
        recorder.step(0, example=range(3)),
    ):
        model(x).sum().backward()
    assert model.weight.grad is not None
    assert run.values("output")[0].dtype == torch.bfloat16


def test_the_order_of_a_probes_own_generators_is_restored(run):
    generator = torch.Generator().manual_seed(5)
    sampler = torch.utils.data.RandomSampler(range(6), generator=generator)
    before = generator.get_state()
    model = Net()
    items = [{"x": torch.randn(4), "example": index} for index in range(6)]
    loader = DataLoader(items, batch_size=3, sampler=sampler)  # pyright: ignore[reportArgumentType]
    with (
        recording.record(model, run, sites="output", probes={"validation": loader}) as recorder,
        recorder.step(0, example=range(6)),
    ):
        model(torch.randn(6, 4))
    assert torch.equal(generator.get_state(), before)
