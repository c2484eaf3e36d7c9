"""Models whose weights have no shape yet, or lie elsewhere until they are needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lamina
import lamina.recording as recording
from lamina.errors import RecordingError
from lamina.recording import Probe

X = torch.arange(12.0).reshape(3, 4)


def lazy() -> nn.Sequential:
    return nn.Sequential(nn.LazyLinear(5), nn.ReLU(inplace=True), nn.LazyLinear(2))


def test_a_lazy_model_is_recorded_from_its_first_batch_on(run):
    torch.manual_seed(0)
    model, seen = lazy(), []
    with recording.record(model, run, sites=["*.output", "0.input", "2.output.grad"]) as recorder:
        # The first call makes another class of the layer.
        for step in range(2):
            with recorder.step(step, example=range(3)):
                seen.append(model(X))
                seen[-1].sum().backward()
    first = model[0]
    assert type(first) is nn.Linear
    for step in range(2):
        assert torch.equal(run.values("2.output")[step], seen[step])
        assert torch.equal(run.values("0.output")[step], nn.functional.linear(X, first.weight, first.bias))
        assert torch.equal(run.values("0.input")[step], X)
        assert torch.equal(run.values("2.output.grad")[step], torch.ones(3, 2))


@pytest.mark.parametrize(
    "options", [{"probes": {"fixed": X}}, {"probes": {"fixed": Probe(X, every=1)}}, {"checkpoint_every": 1}]
)
def test_what_would_give_a_lazy_model_its_weights_raises_and_leaves_it(run, options):
    model = lazy()
    with (
        pytest.raises(RecordingError, match=r"'0.weight' has no shape yet.*on one batch first"),
        recording.record(model, run, sites="*.output", **options) as recorder,
        recorder.step(0, example=range(3)),
    ):
        model(X)
    assert all(nn.parameter.is_lazy(parameter) for parameter in model.parameters())


def test_so_do_captures_and_surveys(run):
    for look in (
        lambda: recording.capture(lazy(), run, X, sites="*.output", progress=False),
        lambda: lamina.sites(lazy(), X),
        lambda: lamina.sites(lazy(), X, sites="*.output"),
    ):
        with pytest.raises(RecordingError, match="has no shape yet"):
            look()


def offloaded(folder: Any) -> nn.Sequential:
    """Return a model whose weights lie on the disk and on the device meta, but for those of its last layer."""
    from accelerate import disk_offload

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    disk_offload(model[0], folder, execution_device=torch.device("cpu"))
    return model


def test_a_model_whose_weights_come_from_the_disk_gives_the_rows_of_a_plain_one(run, tmp_path):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    model = offloaded(tmp_path)
    assert model[0].weight.is_meta
    with (
        recording.record(model, run, sites=["0.input", "*.output"], probes={"fixed": X + 1}) as recorder,
        recorder.step(0, example=range(3)),
    ):
        model(X)
    for source, x in (("train", X), ("fixed", X + 1)):
        first = plain[0](x)
        assert torch.equal(run.values("0.input", source)[0], x)
        assert torch.equal(run.values("0.output", source)[0], first)
        assert torch.equal(run.values("2.output", source)[0], plain[2](first.relu()))


def test_parameters_without_values_raise_before_anything_starts(run, tmp_path):
    with pytest.raises(RecordingError, match=r"'0.weight' has no values.*meta"):
        recording.record(offloaded(tmp_path), run, sites="*.weight")


def test_a_checkpoint_without_values_raises(tmp_path):
    run = lamina.Run.create(tmp_path / "run")
    with (
        pytest.raises(lamina.LaminaError, match=r"0.weight.*device meta"),
        lamina.record(offloaded(tmp_path), run, sites=[], checkpoint_every=1) as recorder,
        recorder.step(0),
    ):
        pass
