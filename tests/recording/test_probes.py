from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lamina.recording as recording
from lamina.errors import RecordingError
from lamina.recording import Site
from tests.recording.models import Net, linear

X = torch.arange(10.0).reshape(5, 2)


class Named(Dataset):
    """Items that say which example they are."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"input": X[index], "example": 10 + index}


def probed(run, data, model=None, **options):
    """Record one step of a model with a probe; return the probe's rows of step 0 and its columns."""
    model = linear() if model is None else model
    probes = {"validation": data}
    with (
        recording.record(model, run, sites="output", probes=probes, **options) as recorder,
        recorder.step(0, example=range(2)),
    ):
        model(torch.ones(2, 2))
    examples = [columns["example"] for columns in run.columns("output", "validation")]
    return run.values("output", "validation")[0], examples[: len(examples) // 2]


@pytest.mark.parametrize(
    ("data", "examples"),
    [
        (X, [[0, 1, 2, 3, 4]]),
        ((X, torch.zeros(5)), [[0, 1, 2, 3, 4]]),
        ([X[:2], X[2:]], [[0, 1], [2, 3, 4]]),
        ([(X[:2], None), (X[2:], None)], [[0, 1], [2, 3, 4]]),
        (DataLoader(TensorDataset(X, torch.zeros(5)), batch_size=3), [[0, 1, 2], [3, 4]]),
        ({"input": X}, [[0, 1, 2, 3, 4]]),
        ([{"input": X[:2], "example": [7, 3]}, UserDict(input=X[2:], example=[1, 0, 2])], [[7, 3], [1, 0, 2]]),
        (DataLoader(Named(), batch_size=5), [[10, 11, 12, 13, 14]]),
    ],
)
def test_any_usual_data_is_a_probe(run, data, examples):
    rows, numbers = probed(run, data)
    assert torch.equal(rows, 2 * X)
    assert numbers == examples


def test_a_probe_runs_in_evaluation_mode_without_gradients(run):
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    probed(run, X, Watch())
    assert seen == [(False, False), (True, True), (False, False)]


def test_the_probe_of_a_step_sees_the_weights_before_its_update(run):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0)
    x = torch.ones(2, 1)
    with recording.record(model, run, sites="output", every=2, probes={"validation": x}) as recorder:
        for step in range(3):
            with recorder.step(step, example=range(2)):
                model(x)
                nn.init.constant_(model.weight, step + 1)
    expected = {0: [[0], [0]], 2: [[2], [2]], 3: [[3], [3]]}
    assert {step: value.tolist() for step, value in run.values("output", "validation").items()} == expected
    assert {step: value.tolist() for step, value in run.values("output").items()} == {0: [[0], [0]], 2: [[2], [2]]}


def test_a_probe_records_the_sites_that_are_due_and_all_of_them_at_the_end(run):
    sites = {"blocks.0.output": Site(every=2), "head.output": Site(every={1})}
    model, x = Net(), torch.randn(3, 4)
    with recording.record(model, run, sites=sites, probes={"validation": x}) as recorder:
        for step in range(3):
            with recorder.step(step, example=range(3)):
                model(x)
    assert list(run.values("blocks.0.output", "validation")) == [0, 2, 3]
    assert list(run.values("head.output", "validation")) == [1, 3]


def test_a_probe_does_not_disturb_what_the_step_captures(run):
    model = linear()
    probes = {"a": X, "b": [X[:1], X[1:]]}
    with (
        recording.record(model, run, sites="output", probes=probes) as recorder,
        recorder.step(0, example=range(2)),
    ):
        model(X[:2])
    assert torch.equal(run.values("output")[0], 2 * X[:2])
    assert run.columns("output") == [{"example": range(2)}]
    assert [set(append.columns) for append in run.written.appends] == len(run.written.appends) * [{"source", "example"}]


def test_a_shuffled_loader_needs_examples_of_its_own(run):
    with pytest.raises(RecordingError, match="a shuffled loader"):
        probed(run, DataLoader(TensorDataset(X), batch_size=2, shuffle=True))


def test_a_shuffled_loader_with_examples_is_taken(run):
    rows, [numbers] = probed(run, DataLoader(Named(), batch_size=5, shuffle=True))
    assert sorted(numbers) == [10, 11, 12, 13, 14]
    assert torch.equal(rows, 2 * X[torch.tensor(numbers) - 10])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (iter([X]), "can be gone through only once"),
        ((x for x in X), "can be gone through only once"),
        (3, "data of the type int cannot be gone"),
    ],
)
def test_what_cannot_be_a_probe_raises_before_anything_starts(run, data, reason):
    with pytest.raises(RecordingError, match=reason):
        recording.record(linear(), run, sites="output", probes={"validation": data})
    assert not run.written.closed


@pytest.mark.parametrize(
    ("data", "reason"),
    [([], "there is no batch"), ([()], "a batch is a tuple without a tensor"), (["text"], "a batch is a str without")],
)
def test_a_probe_without_batches_or_tensors_raises(run, data, reason):
    with pytest.raises(RecordingError, match=f"the probe 'validation': {reason}"):
        probed(run, data)


@pytest.mark.parametrize("name", ["train", "capture"])
def test_a_probe_cannot_take_the_name_of_another_source(run, name):
    with pytest.raises(RecordingError, match="cannot be named"):
        recording.record(linear(), run, sites="output", probes={name: X})


def test_examples_that_do_not_fit_the_rows_raise(run):
    class Flat(nn.Module):
        def forward(self, x):
            return x.flatten(0, 1)

    with pytest.raises(RecordingError, match=r"'example' has 3 entries, but the site 'output' has shape \[12, 2\]"):
        probed(run, torch.zeros(3, 4, 2), Flat())


def test_a_probe_may_have_a_schedule_of_its_own(run):
    model, x = Net(), torch.randn(3, 4)
    probes = {"often": x, "seldom": recording.Probe(x, every={1})}
    with recording.record(model, run, sites=["blocks.0.output", "head.output"], every=2, probes=probes) as recorder:
        for step in range(4):
            with recorder.step(step, example=range(3)):
                model(x)
    assert list(run.values("head.output", "often")) == [0, 2, 4]
    assert list(run.values("head.output", "seldom")) == [1, 4]
    assert list(run.values("blocks.0.output", "seldom")) == [1, 4]


def test_a_probe_that_gives_other_data_raises(run):
    class Noise(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            drawn.append(index)
            return torch.full((2,), float(len(drawn)))

    drawn = []
    model = linear()

    def train():
        with recording.record(model, run, sites="output", probes={"validation": DataLoader(Noise(), 2)}) as recorder:
            for step in range(2):
                with recorder.step(step, example=range(5)):
                    model(X)

    with pytest.raises(RecordingError, match="'validation' gives other data at step 1 than before"):
        train()
    assert list(run.values("output", "validation")) == [0]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("second", "written"),
    [([0, 1, 2], None), ([0, 2, 1], [0]), ([0, 1], [0, 1]), ([0, 1, 2, 2], [0, 1, 2]), ([0, 1, 1], [0, 1])],
)
def test_of_a_probe_that_changes_no_row_of_other_data_is_written(run, second, written, named):
    def batch(value: int) -> Any:
        x = torch.full((2, 2), float(value))
        return {"input": x, "example": torch.tensor([2 * value, 2 * value + 1])} if named else x

    class Changing:
        now = (0, 1, 2)

        def __iter__(self):
            return map(batch, self.now)

    model, probe = linear(), Changing()

    def train() -> None:
        with recording.record(model, run, sites="output", every={0, 1}, probes={"validation": probe}) as recorder:
            for step in range(2):
                with recorder.step(step, example=range(5)):
                    model(X)
                probe.now = second

    # Examples with names may come in another order.
    if written is None or (named and sorted(second) == [0, 1, 2]):
        train()
        return
    with pytest.raises(RecordingError, match="gives other data at step 1 than before"):
        train()
    rows = run.values("output", "validation").get(1, torch.zeros(0, 2))
    assert rows[::2, 0].tolist() == [2.0 * value for value in written]


def test_a_shuffled_loader_with_examples_may_change_its_order(run):
    loader = DataLoader(Named(), batch_size=5, shuffle=True)
    model = linear()
    with recording.record(model, run, sites="output", probes={"validation": loader}) as recorder:
        for step in range(5):
            torch.manual_seed(step)
            with recorder.step(step, example=range(5)):
                model(X)
    orders = {tuple(columns["example"]) for columns in run.columns("output", "validation")}
    assert len(orders) > 1


def test_padding_of_a_probe_is_dropped(run):
    class Tokens(nn.Module):
        def forward(self, input_ids, attention_mask):
            return input_ids[..., None].float()

    ids, mask = torch.arange(6).reshape(2, 3), torch.tensor([[1, 1, 0], [1, 1, 1]])
    probe = recording.Probe({"input_ids": ids, "attention_mask": mask}, mask="attention_mask")
    model = Tokens()
    with (
        recording.record(model, run, sites="output", probes={"validation": probe}) as recorder,
        recorder.step(0, example=range(2)),
    ):
        model(ids, mask)
    assert run.columns("output", "validation")[0]["mask"] == mask.tolist()
    with (
        pytest.raises(RecordingError, match="mask='padding' names an entry"),
        recording.record(
            model, run, sites="output", probes={"validation": recording.Probe(ids, mask="padding")}
        ) as recorder,
        recorder.step(0),
    ):
        pass
