from __future__ import annotations

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError
from lamina.recording import Site
from tests.recording.models import Net, Returns
from tests.recording.test_restored import Counts, same, state

X = torch.randn(6, 4)


def test_every_input_output_and_parameter_is_listed():
    model = Net(depth=1)
    frame = lamina.sites(model, X).frame
    row = dict(zip(frame["site"], frame.rows(), strict=True))
    assert row["head.output"] == ("head.output", "6 x 3", "float32", 1, 6, 6 * 3 * 4)
    assert row["blocks.0.mlp.0.weight"] == ("blocks.0.mlp.0.weight", "4 x 4", "float32", 1, 4, 64)
    called = [name for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)]
    assert frame.height == 2 * len(called) + len(list(model.parameters()))


def test_elements_of_tuples_are_sites_of_their_own_that_can_be_recorded():
    model = nn.LSTM(4, 3, batch_first=True)
    frame = lamina.sites(model, torch.randn(2, 5, 4)).frame
    assert frame["site"].to_list()[:4] == ["input", "output[0]", "output[1][0]", "output[1][1]"]
    assert frame.filter(site="output[0]").rows()[0][1:] == ("2 x 5 x 3", "float32", 1, 10, 120)
    assert lamina.sites(model, torch.randn(2, 5, 4), sites="output[0]").bytes == 120


def test_a_plan_costs_what_recording_it_stores(tmp_path):
    model, x = Net(), torch.randn(6, 4)
    plan = {
        "blocks.*.output": Site(dtype=torch.bfloat16, sample=0.5),
        "head.output": Site(every=3),
        "head.weight": Site(),
    }
    survey = lamina.sites(model, x, sites=plan, every=2, steps=10)
    run = lamina.Run.create(tmp_path / "run")
    with lamina.record(model, run, sites=plan, every=2) as recorder:
        for step in range(10):
            with recorder.step(step, example=range(6)):
                model(x)
    stored = {name: (rows, size) for name, rows, size in run.sites().select("site", "rows", "bytes").rows()}
    planned = {name: (rows * due, total) for name, _, _, _, rows, _, due, total in survey.frame.rows()}
    assert planned == stored
    assert survey.total == sum(size for _, size in stored.values())


def test_a_shared_module_counts_all_its_calls():
    layer = nn.Linear(4, 4)
    frame = lamina.sites(nn.Sequential(layer, layer), X, sites="0.output").frame
    assert frame.rows() == [("0.output", "6 x 4", "float32", 2, 12, 192)]


def test_masks_of_the_batch_are_no_part_of_the_model_that_changes():
    model = Counts()
    before = state(model)
    lamina.sites(model, X)
    lamina.sites(model, X, sites="**.output")
    assert same(state(model), before)


def test_it_prints_a_table_and_what_the_plan_takes():
    text = str(lamina.sites(Net(), X, sites="*.output", every=10, steps=1000))
    assert "head.output" in text
    assert "2 sites, 12 rows, 168 bytes a step that is due; the whole run takes 16.8 kB" in text


def test_what_is_no_plan_raises():
    with pytest.raises(RecordingError, match="matches nothing"):
        lamina.sites(Net(), X, sites="heads.output")
    with pytest.raises(RecordingError, match="attention= belongs to a plan"):
        lamina.sites(Net(), X, attention=["entropy"])
    with pytest.raises(RecordingError, match="asks for the element"):
        lamina.sites(nn.Sequential(Returns()), X, sites="0.input[1]")


def test_the_statistics_of_attention_are_sites_too():
    model = nn.TransformerEncoderLayer(8, nhead=2, batch_first=True)
    frame = lamina.sites(model, torch.randn(3, 5, 8), sites=[], attention="entropy").frame
    assert frame.rows() == [("self_attn.entropy", "3 x 5 x 2", "float32", 1, 15, 120)]
