"""Values that are large enough to be lent to the writer go every way that small ones go."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import lamina
from lamina.recording.captured import LARGE
from tests.faults import broken

ROWS, WIDTH = 256, 512


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, WIDTH), nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))


def batch(step: int) -> torch.Tensor:
    return torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(step))


def expected(step: int) -> torch.Tensor:
    """What the first layer gives, before the ReLU changes it in place."""
    value = model()[0](batch(step)).detach()
    assert value.nbytes > LARGE
    return value


@pytest.fixture
def run(tmp_path):
    return lamina.Run.create(tmp_path / "run")


def rows(run: lamina.Run, step: int, source: str = "train", site: str = "0.output") -> torch.Tensor:
    found = run.refresh().rows(site, step=step, source=source)
    return found.gather(range(len(found)))


def test_every_step_is_stored_as_it_was_at_the_hook(run):
    net = model()
    with lamina.record(net, run, sites=["*.output"]) as recorder:
        for step in range(4):
            with recorder.step(step, example=range(ROWS)):
                net(batch(step))
    for step in range(4):
        assert torch.equal(rows(run, step), expected(step))


def test_that_test_notices_memory_that_is_used_again_too_early(run):
    with broken("pool_gives_out_what_is_lent"), pytest.raises(AssertionError):
        test_every_step_is_stored_as_it_was_at_the_hook(run)


def test_masks_samples_and_dtypes(run):
    net, mask = model(), torch.arange(ROWS) % 2 == 0
    sites = {
        "0.output": lamina.Site(),
        "2.output": lamina.Site(dtype=torch.float64),
        "1.output": lamina.Site(sample=0.5),
    }
    with lamina.record(net, run, sites=sites) as recorder, recorder.step(0, example=range(ROWS), mask=mask):
        output = net(batch(0)).detach()
    assert torch.equal(rows(run, 0), expected(0)[mask])
    assert torch.equal(rows(run, 0, site="2.output"), output[mask].double())
    kept = run.rows("1.output", step=0).metadata(["example"])["example"].to_list()
    assert 0 < len(kept) < ROWS // 2
    assert torch.equal(rows(run, 0, site="1.output"), expected(0).relu()[kept])


def test_gradients_are_added_up_before_they_are_lent(run):
    net, site = model(), "2.output.grad"
    with lamina.record(net, run, sites=[site]) as recorder, recorder.step(0, example=range(ROWS)):
        output = net(batch(0))
        output.sum().backward(retain_graph=True)
        (2 * output).sum().backward()
    assert (rows(run, 0, site=site) == 3).all()


def test_probes_and_captures(run):
    net = model()
    recorder = lamina.record(net, run, sites=["0.output"], probes={"validation": [batch(7), batch(8)]})
    with recorder, recorder.step(0, example=range(ROWS)):
        net(batch(0))
    lamina.capture(net, run, [batch(9)], sites=["0.output"], progress=False)
    assert torch.equal(rows(run, 0, "validation"), torch.cat([expected(7), expected(8)]))
    assert torch.equal(rows(run, 0, "capture"), expected(9))


def test_a_flight_recorder_keeps_what_no_schedule_wrote(run):
    net, flight = model(), lamina.Flight(last=3, when=[lamina.Above("loss", 1.0)], state=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        with lamina.record(net, run, sites="0.output", every=1000, flight=flight) as recorder:
            for step in range(7):
                with recorder.step(step, example=range(ROWS), batch=batch(step)):
                    net(batch(step))
                recorder.log({"loss": float(step == 5) * 2})
    assert run.refresh().steps() == [0, 3, 4, 5]
    for step in run.steps():
        assert torch.equal(rows(run, step), expected(step))


def test_a_survey_counts_their_bytes():
    assert "524.3 kB" in str(lamina.sites(model(), batch(0), sites=["0.output"]))
