"""Statistics of attention as sites of a recorder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lamina
import lamina.recording as recording
from lamina.errors import RecordingError
from tests.recording.models import linear


def encoder() -> Any:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def test_statistics_stand_beside_the_sites_and_are_those_of_the_weights(tmp_path):
    run, model, x = lamina.Run.create(tmp_path / "run"), encoder(), torch.randn(3, 5, 8)
    with lamina.record(model, run, sites="layers.*.output", attention=("entropy", "received"), every=2) as recorder:
        for step in range(3):
            with recorder.step(step, example=[7, 8, 9]):
                model(x)
    attention = model.layers[0].self_attn
    _, weights = attention(x, x, x, average_attn_weights=False)
    entropy = -(weights * weights.log()).sum(-1).transpose(1, 2)
    for step in (0, 2):
        rows = run.rows("layers.0.self_attn.entropy", step=step)
        torch.testing.assert_close(rows.gather(range(15)), entropy.reshape(15, 2), rtol=1e-5, atol=1e-6)
    received = run.rows("layers.0.self_attn.received", step=2).gather(range(15))
    torch.testing.assert_close(received, weights.sum(2).transpose(1, 2).reshape(15, 2), rtol=1e-5, atol=1e-6)
    frame = run.activations(["layers.1.self_attn.entropy", "layers.1.output"], step=2).collect()
    assert frame.select("example", "position").rows() == [(e, p) for e in (7, 8, 9) for p in range(5)]
    assert frame.null_count().sum_horizontal().item() == 0


def test_probes_and_captures_take_them_too(run):
    model, x = encoder(), torch.randn(3, 5, 8)
    with (
        recording.record(model, run, sites=[], attention="entropy", probes={"validation": x}) as recorder,
        recorder.step(0, example=[0, 1, 2]),
    ):
        model(x)
    assert list(run.values("layers.0.self_attn.entropy", "validation")) == [0, 1]
    recording.capture(model, run, x, sites=[], attention=["logsumexp"], progress=False)
    assert run.values("layers.1.self_attn.logsumexp", "capture")[0].shape == (3, 5, 2)


def test_a_model_without_attention_raises(run):
    with pytest.raises(RecordingError, match="has no attention of a known kind"):
        recording.record(linear(), run, sites=[], attention=["entropy"])
