"""The log-partition of logits: planted constants come back, in any precision, without padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from lamina.recording import Numbers
from lamina.recording.numbers import log_partition as module
from tests.faults import broken
from tests.recording.fakes import fake_run
from tests.recording.models import Returns

NAMES = ("log_partition", "log_partition_square", "log_partition_max")


def flat(*rows: float, width: int = 8) -> torch.Tensor:
    """Return logits that are all alike in a row: log Z is that value and log(width)."""
    return torch.tensor(rows)[:, None].expand(len(rows), width) - math.log(width)


def logged(*batches: torch.Tensor, mask=None, run=None, calls: int = 1):
    """Pass logits through a model, so many calls a `recorder.step`, all in one step."""
    run, model = run or fake_run(), nn.Sequential(Returns(), Returns())
    with recording.record(model, run, sites=[], numbers=Numbers(norms=[], log_partition="1.output")) as recorder:
        for first in range(0, len(batches), calls):
            with recorder.step(0, mask=mask):
                for batch in batches[first : first + calls]:
                    model(batch)
    return [run.metric(name, "1.output")[0] for name in NAMES]


def test_mean_square_and_maximum_are_those_of_log_z():
    assert logged(flat(1, 2, 6)) == pytest.approx([3, 41 / 3, 6])
    assert logged(flat(1, 2, 6).reshape(1, 3, 8)) == pytest.approx([3, 41 / 3, 6])


def test_calls_and_micro_batches_count_row_by_row():
    assert logged(flat(1, 2), flat(6)) == pytest.approx([3, 41 / 3, 6])
    assert logged(flat(1, 2), flat(6), calls=2) == pytest.approx([3, 41 / 3, 6])


def test_rows_that_the_mask_leaves_out_do_not_count():
    assert logged(flat(1, 2, 6, 9), mask=torch.tensor([1, 1, 1, 0])) == pytest.approx([3, 41 / 3, 6])
    positions = flat(1, 2, 6, 9).reshape(2, 2, 8)
    assert logged(positions, mask=[[1, 1], [1, 0]]) == pytest.approx([3, 41 / 3, 6])
    assert logged(positions, mask=torch.tensor([True, False])) == pytest.approx([1.5, 2.5, 2])
    assert logged(flat(1, 9), flat(2, 6), mask=[1, 0, 1, 1], calls=2) == pytest.approx([3, 41 / 3, 6])
    assert logged(flat(1, 9), flat(5, 6), mask=[1, 0], calls=2) == pytest.approx([3, 13, 5])


def test_padding_that_counts_would_be_seen():
    with broken("log_partition_counts_padding"), pytest.raises(AssertionError):
        test_rows_that_the_mask_leaves_out_do_not_count()


def test_padding_that_is_not_a_number_does_not_show_and_rows_that_are_do():
    rows = torch.cat([flat(1, 2, 6), torch.full((1, 8), torch.nan)])
    assert logged(rows, mask=[1, 1, 1, 0]) == pytest.approx([3, 41 / 3, 6])
    assert all(math.isnan(one) for one in logged(rows))


def test_tokens_that_are_ruled_out_have_no_share():
    logits = torch.zeros(2, 8)
    logits[:, 4:] = -torch.inf
    assert logged(logits) == pytest.approx([math.log(4), math.log(4) ** 2, math.log(4)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_neither_overflows_nor_stops_counting(dtype, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 3 * 5000)
    logits = torch.zeros(10, 5000, dtype=dtype)
    logits[7] = 60000.0
    found = module.log_partition(logits.reshape(2, 5, 5000))
    assert found.shape == (2, 5)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.flatten()[0].item() == pytest.approx(math.log(5000), rel=1e-6)
    assert found.flatten()[7].item() == pytest.approx(logits[7, 0].item() + math.log(5000), rel=1e-6)


def test_sums_in_half_precision_would_be_seen(monkeypatch):
    with broken("log_partition_is_summed_in_the_dtype_of_the_logits"), pytest.raises(AssertionError):
        test_half_precision_neither_overflows_nor_stops_counting(torch.bfloat16, monkeypatch)


def test_a_recomputation_counts_no_rows(run):
    # Recomputation stops where nothing more was saved: the last module is not called again.
    logits = nn.Linear(4, 8)
    model = nn.Sequential(nn.Linear(4, 4), logits, nn.Linear(8, 1))
    numbers = Numbers(norms=[], log_partition=["1.output"])
    x, seen = torch.randn(3, 4), []
    logits.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with recording.record(model, run, sites=[], numbers=numbers) as recorder, recorder.step(0):
        loss = torch.as_tensor(checkpoint(model, x, use_reentrant=False)).sum()
        with torch.no_grad():
            logits.bias.add_(1)
        loss.backward()
    assert len(seen) == 2
    assert run.metric("log_partition", "1.output")[0] == pytest.approx(seen[0].logsumexp(1).mean().item())


def test_several_sites_have_a_row_each(run):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 8))
    numbers = Numbers(norms=[], log_partition="*.output", every=2)
    with recording.record(model, run, sites="0.output", numbers=numbers) as recorder:
        for step in range(4):
            with recorder.step(step, example=range(3)):
                model(torch.randn(3, 4))
    for site in ("0.output", "1.output"):
        assert list(run.metric("log_partition", site)) == [0, 2]
    assert list(run.values("0.output")) == [0, 1, 2, 3]


def test_what_are_no_logits_raises(run):
    model = nn.Sequential(Returns())
    for batch in (torch.zeros(3), torch.zeros(3, 4, dtype=torch.int64)):
        with (
            pytest.raises(RecordingError, match=r"at '0\.output' there are no logits"),
            recording.record(model, run, sites=[], numbers=Numbers(norms=[], log_partition="0.output")) as recorder,
            recorder.step(0),
        ):
            model(batch)
    with pytest.raises(RecordingError, match="matches nothing"):
        recording.record(model, run, sites=[], numbers=Numbers(norms=[], log_partition="1.output"))
    with pytest.raises(RecordingError, match="is no output of a module"):
        recording.record(nn.Linear(2, 2), run, sites=[], numbers=Numbers(norms=[], log_partition="weight"))


def test_a_mask_that_does_not_fit_raises():
    for mask in ([1, 1], [[1, 1, 1, 1]] * 3, 1):
        with pytest.raises(RecordingError, match="the mask of the step is"):
            logged(flat(1, 2, 6), mask=torch.tensor(mask))


def test_logits_that_never_come_warn_and_then_raise(run):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 8))

    def train():
        with recording.record(model, run, sites=[], numbers=Numbers(norms=[], log_partition="1.output")) as recorder:
            for step in range(2):
                with recorder.step(step):
                    model[0](torch.randn(3, 4))

    with (
        pytest.warns(LaminaWarning, match="log_partition: nothing was found in step 0"),
        pytest.raises(RecordingError, match="log_partition: nothing was found in any step"),
    ):
        train()
