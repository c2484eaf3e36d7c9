from __future__ import annotations

from typing import cast

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from lamina.recording import Site, log_then_linear, taps
from tests.faults import broken
from tests.recording.fakes import fake_run
from tests.recording.models import Net, Returns, linear

X = torch.arange(6.0).reshape(3, 2)


def record_steps(model, run, steps, x=X, **options):
    """Run the model on `x` once in each step."""
    with recording.record(model, run, **options) as recorder:
        for step in steps:
            with recorder.step(step, example=range(len(x))):
                model(x)
    return run


def test_due_steps_leave_their_rows_and_others_do_not(run):
    record_steps(linear(), run, range(6), sites="output", every=2)
    assert list(run.values("output")) == [0, 2, 4]
    assert torch.equal(run.values("output")[4], 2 * X)
    assert run.columns("output") == 3 * [{"example": range(3)}]
    assert run.written.closed
    assert run.written.error is None
    assert run.refreshed == 2  # before the first step and at the end


def test_log_then_linear_steps_are_recorded(run):
    record_steps(linear(), run, range(30), sites="output", every=log_then_linear(4, 10))
    assert list(run.values("output")) == [0, 1, 2, 4, 10, 20]


def test_rows_of_a_site_are_due_steps_times_batch(run):
    record_steps(Net(), run, range(7), x=torch.randn(5, 4), sites="blocks.*.mlp.output", every=3)
    for site in ("blocks.0.mlp.output", "blocks.1.mlp.output"):
        assert sum(len(value) for value in run.values(site).values()) == 3 * 5


def test_sites_keep_schedules_of_their_own(run):
    sites = {"0.output": Site(), "1.output": Site(every={1, 4}), "2.output": Site(every=lambda step: step == 5)}
    record_steps(nn.Sequential(linear(), linear(), linear()), run, range(6), sites=sites, every=2)
    assert {site: list(run.values(site)) for site in sites} == {
        "0.output": [0, 2, 4],
        "1.output": [1, 4],
        "2.output": [5],
    }


def test_a_schedule_is_asked_once_a_step(run):
    asked = []
    record_steps(
        nn.Sequential(linear(), linear()), run, range(3), sites={"*.output": Site(every=lambda s: not asked.append(s))}
    )
    assert asked == [0, 1, 2]


def test_sites_of_one_step_are_written_together(run):
    record_steps(nn.Sequential(linear(), linear()), run, [0], sites=["*.output", "input"])
    [append] = run.written.appends
    assert {name: value.tolist() for name, value in append.sites.items()} == {
        "input": X.tolist(),
        "0.output": (2 * X).tolist(),
        "1.output": (4 * X).tolist(),
    }


def check_that_the_value_is_that_at_the_hook(run):
    model = nn.Sequential(linear(), nn.ReLU(inplace=True))
    x = torch.tensor([[-1.0, 1.0]])
    record_steps(model, run, [0], x=x, sites=["0.output", "1.input", "1.output"])
    got = {site: run.values(site)[0].tolist() for site in ("0.output", "1.input", "1.output")}
    assert got == {"0.output": [[-2, 2]], "1.input": [[-2, 2]], "1.output": [[0, 2]]}


def test_an_in_place_operation_behind_the_hook_changes_nothing(run):
    check_that_the_value_is_that_at_the_hook(run)


def test_a_recorder_that_keeps_references_is_found_out(run):
    with broken("recorder_keeps_references"), pytest.raises(AssertionError):
        check_that_the_value_is_that_at_the_hook(run)


def test_inputs_are_found_by_position_and_by_keyword(run):
    class Add(nn.Module):
        def forward(self, x, *, shift=None):
            return x if shift is None else x + shift

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.add = Add()

        def forward(self, x):
            return self.add(x, shift=x + 1)

    record_steps(Outer(), run, [0], sites=["add.input[0]", "add.input[shift]", "input"])
    assert torch.equal(run.values("add.input[0]")[0], X)
    assert torch.equal(run.values("add.input[shift]")[0], X + 1)
    assert torch.equal(run.values("input")[0], X)


def test_elements_of_what_a_module_returns(run):
    x = torch.randn(1, 4, 2)  # a batch of one, as the last state leads with the layers
    lstm = nn.LSTM(2, 5, batch_first=True)
    with recording.record(lstm, run, sites=["output[0]", "output[1][0]"]) as recorder, recorder.step(0, example=5):
        out, (last, _) = lstm(x)
    assert torch.equal(run.values("output[0]")[0], out)
    assert torch.equal(run.values("output[1][0]")[0], last)


def test_an_ambiguous_output_raises_where_it_is_seen(run):
    model = Returns()
    with (
        pytest.raises(RecordingError, match=r"several tensors.*name the one that is meant"),
        recording.record(model, run, sites="output") as recorder,
        recorder.step(0),
    ):
        model(X, X)
    assert "RecordingError" in run.written.error


def test_columns_of_the_step_go_with_its_rows(run):
    model, columns = linear(), {"mask": np.array([True, False, True]), "split": "a", "epoch": 2}
    with (
        recording.record(model, run, sites="output") as recorder,
        recorder.step(0, example=torch.tensor([5, 6, 7]), **columns),
    ):
        model(X)
    assert run.columns("output") == [{"example": [5, 6, 7], "mask": [True, False, True], "split": "a", "epoch": 2}]


def test_every_call_of_a_module_has_its_rows(run):
    shared = linear()
    record_steps(nn.Sequential(shared, shared, linear()), run, [0], sites=["0.output", "2.output"])
    assert run.values("0.output")[0].tolist() == torch.cat([2 * X, 4 * X]).tolist()
    assert run.columns("0.output") == [{"example": range(3), "call": 0}, {"example": range(3), "call": 1}]
    assert run.columns("2.output") == [{"example": range(3), "call": 0}]


def test_micro_batches_divide_the_columns(run):
    model = linear()
    with recording.record(model, run, sites="output") as recorder, recorder.step(0, example=[7, 8, 9]):
        model(X[:2])
        model(X[2:])
        recorder.put("loss", [0.0, 1.0, 2.0])
    assert torch.equal(run.values("output")[0], 2 * X)
    assert run.columns("output") == [{"example": [7, 8], "call": 0}, {"example": [9], "call": 1}]
    assert run.columns("loss") == [{"example": [7, 8, 9], "call": 0}]


def test_without_example_items_are_numbered_and_one_warning_says_so(run):
    model = linear()
    with recording.record(model, run, sites="output") as recorder:
        with pytest.warns(LaminaWarning, match="no example= was given"), recorder.step(0):
            model(X)
        for step in (1, 2):
            with recorder.step(step):
                model(X)
    assert [columns["example"] for columns in run.columns("output")] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_put_records_at_due_steps_only(run):
    with recording.record(linear(), run, sites=[], every=2) as recorder:
        for step in range(4):
            with recorder.step(step, example=[0, 1]):
                assert recorder.due == (step % 2 == 0)
                recorder.put("loss", torch.tensor([1.0, step], requires_grad=True))
        assert not recorder.due
    assert {step: value.tolist() for step, value in run.values("loss").items()} == {0: [1, 0], 2: [1, 2]}


def test_put_stands_in_one_row_with_the_sites(run):
    model = linear()
    with recording.record(model, run, sites="output") as recorder, recorder.step(0, example=range(3)):
        recorder.put("loss", model(X).sum(1))
    assert [sorted(append.sites) for append in run.written.appends] == [["loss", "output"]]


def test_put_raises_outside_of_a_step_and_under_the_name_of_a_site(run):
    model = linear()
    with recording.record(model, run, sites="output") as recorder:
        with pytest.raises(RecordingError, match="outside of a step"):
            recorder.put("loss", torch.ones(2))
        with recorder.step(0, example=range(3)):
            model(X)
            with pytest.raises(RecordingError, match=r"put\('name'\): str is no tensor"):
                recorder.put("name", "text")
            with pytest.raises(RecordingError, match="a module's site has this name"):
                recorder.put("output", torch.ones(2))
            with pytest.raises(RecordingError, match="a single number"):
                recorder.put("loss", torch.tensor(1.0))


def test_log_belongs_to_the_current_or_the_last_step(run):
    with recording.record(linear(), run, sites=[], every=100) as recorder:
        with pytest.raises(RecordingError, match="before the first step"):
            recorder.log({"early": 1})
        recorder.log({"early": 1}, step=0)
        with recorder.step(3):
            recorder.log({"in": 1})
        recorder.log({"after": 1})
    assert run.written.logs == [({"early": 1}, 0), ({"in": 1}, 3), ({"after": 1}, 3)]


def test_checkpoints_come_before_the_update_and_for_the_final_state(run):
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with recording.record(model, run, sites=[], checkpoint_every=2, optimizer=optimizer) as recorder:
        for step in range(4):
            with recorder.step(step), torch.no_grad():
                model.weight.fill_(step + 1)
    # The state of step s is what s updates have made: here the number s, but for the initial one.
    saved = {step: parts["model"]["weight"].item() for step, parts in run.written.saves}
    assert list(saved) == [0, 2, 4]
    assert (saved[2], saved[4]) == (2, 4)
    assert all(list(parts) == ["model", "optimizer"] for _, parts in run.written.saves)


def test_without_an_optimizer_only_the_model_is_saved(run):
    record_steps(linear(), run, range(2), sites=[], checkpoint_every={1})
    assert [(step, list(parts)) for step, parts in run.written.saves] == [(1, ["model"]), (2, ["model"])]


def test_the_checkpoint_of_a_compiled_model_loads_into_a_plain_one(run):
    model = Net()
    compiled = cast("nn.Module", torch.compile(model, backend="eager"))
    with recording.record(compiled, run, sites=[], checkpoint_every=1) as recorder, recorder.step(0):
        pass
    Net().load_state_dict(run.written.saves[0][1]["model"])


def test_steps_grow(run):
    with recording.record(linear(), run, sites=[]) as recorder:
        for step in (np.int64(2), 5):
            with recorder.step(cast("int", step)):
                pass
        with pytest.raises(RecordingError, match=r"step 3 comes after step 5.*run\.rewind\(step\)"), recorder.step(3):
            pass
        with pytest.raises(RecordingError, match="negative"), recorder.step(-1):
            pass
        with pytest.raises(RecordingError, match="no whole number"), recorder.step(cast("int", 1.5)):
            pass


def test_steps_are_not_nested(run):
    with recording.record(linear(), run, sites=[]) as recorder:
        with recorder.step(0), pytest.raises(RecordingError, match="step 1 begins inside step 0"), recorder.step(1):
            pass
        with recorder.step(1):
            pass


def test_reserved_columns_raise(run):
    message = "column call, source is filled by Lamina"
    with (
        recording.record(linear(), run, sites=[]) as recorder,
        pytest.raises(RecordingError, match=message),
        recorder.step(0, source="mine", call=3),
    ):
        pass


def test_a_recorder_is_entered_once_and_first(run):
    recorder = recording.record(linear(), run, sites=[])
    with pytest.raises(RecordingError, match="outside of the recorder"), recorder.step(0):
        pass
    with recorder:
        pass
    with pytest.raises(RecordingError, match="entered once"), recorder:
        pass
    with pytest.raises(RecordingError, match="outside of the recorder"), recorder.step(0):
        pass
    with pytest.raises(RecordingError, match="outside of the recorder"):
        recorder.log({"late": 1}, step=0)


def test_a_glob_or_a_schedule_that_will_not_do_raises_before_anything_starts(run):
    with pytest.raises(RecordingError, match="matches nothing"):
        recording.record(linear(), run, sites="blocks.output")
    with pytest.raises(RecordingError, match="is no schedule"):
        recording.record(linear(), run, sites=[], every=0)
    with pytest.raises(RecordingError, match="is no schedule"):
        recording.record(linear(), run, sites=[], checkpoint_every="often")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RecordingError, match="is no schedule"):
        recording.record(linear(), run, sites={"output": Site(every=0)})
    assert not run.written.closed


def test_numbers_go_on_behind_the_rows_that_a_run_holds():
    run = fake_run(pl.DataFrame({"step": [0, 0, 0], "example": [4, 9, 70], "source": ["train", "train", "probe"]}))
    model = linear()
    with pytest.warns(LaminaWarning), recording.record(model, run, sites="output") as recorder, recorder.step(1):
        model(X)
    assert run.columns("output") == [{"example": [71, 72, 73]}]


def test_steps_that_are_not_due_do_nothing_but_read_a_flag(run, monkeypatch):
    received = []
    whole = taps._Hook.receive
    monkeypatch.setattr(taps._Hook, "receive", lambda self, value: (received.append(type(self)), whole(self, value))[1])
    record_steps(Net(), run, range(10), x=torch.randn(5, 4), sites=["head.output", "head.input"], every={3})
    assert [kind.__name__ for kind in received] == ["BatchCounter", "Tap", "Tap"]


def test_a_step_that_comes_again_is_a_micro_batch(run):
    model, asked = linear(), []
    with recording.record(
        model, run, sites="output", every=lambda step: not asked.append(step), checkpoint_every=1, probes={"p": X}
    ) as recorder:
        for step in range(2):
            for part in (X[:2], X[2:]):
                with recorder.step(step, example=part[:, 0].long()):
                    model(part)
    assert run.columns("output") == 2 * [{"example": [0, 2]}, {"example": [4], "micro": 1}]
    assert torch.equal(run.values("output")[1], 2 * X)
    assert asked == [0, 1]
    assert [step for step, _ in run.written.saves] == list(run.values("output", "p")) == [0, 1, 2]


def test_two_recorders_share_a_model(run):
    model, other = linear(), fake_run()
    with (
        recording.record(model, run, sites="output") as a,
        recording.record(model, other, sites="output", every=2) as b,
    ):
        for step in range(3):
            with a.step(step, example=range(3)), b.step(step, example=range(3)):
                model(X)
    assert list(run.values("output")) == [0, 1, 2]
    assert list(other.values("output")) == [0, 2]


def test_positions_go_on_behind_a_cache(run):
    class Cache:
        def get_seq_length(self):
            return 5

    class Decoder(nn.Module):
        def forward(self, x, past_key_values=None):
            return x

    model = Decoder()
    with recording.record(model, run, sites="output") as recorder:
        for step, cache in enumerate((None, Cache())):
            with recorder.step(step, example=[7]):
                model(X[None], past_key_values=cache)
    assert run.columns("output") == [{"example": [7]}, {"example": [7], "position": [[5, 6, 7]]}]


def test_a_function_chooses_sites(run):
    record_steps(Net(), run, [0], x=torch.randn(3, 4), sites=lambda name: name.endswith("mlp.0.output"))
    assert set(run.written.appends[0].sites) == {"blocks.0.mlp.0.output", "blocks.1.mlp.0.output"}
    with pytest.raises(RecordingError, match="chooses none of"):
        recording.record(Net(), run, sites=lambda name: False)


def test_a_path_is_no_run():
    with pytest.raises(RecordingError, match=r"run= is a str \(.*Run.create"):
        recording.record(linear(), "runs/mine", sites="output")  # pyright: ignore[reportArgumentType]
