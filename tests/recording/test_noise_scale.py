"""The gradient noise scale: planted covariances come back, whatever gives the two batch sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from lamina.recording import Numbers, two_batch_sizes
from tests.faults import broken
from tests.recording.fakes import fake_run

WIDTH, NOISE = 6, 0.5
SQUARE, TRACE = "noise_scale/gradient_square", "noise_scale/covariance_trace"


def regression() -> tuple[nn.Linear, torch.Tensor]:
    """Return a linear regression at weights that are off by a known vector."""
    model = nn.Linear(WIDTH, 1, bias=False, dtype=torch.float64)
    off = torch.linspace(0.5, 1, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(1 + off)
    return model, off


def planted() -> tuple[float, float]:
    """Return |G|^2 and tr(S) of `regression` with inputs drawn from N(0, 1) and targets with noise.

    The gradient of (w x - y)^2 / 2 is (d x - e) x with d what the weights are off by: its mean is d, and the mean of
    its squared norm is |d|^2 (width + 2) + noise^2 width.
    """
    square = regression()[1].square().sum().item()
    return square, square * (WIDTH + 2) + NOISE**2 * WIDTH - square


def draw(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
    return x, x.sum(1) + NOISE * torch.randn(size, generator=generator, dtype=torch.float64)


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (model(x)[:, 0] - y).square().mean() / 2


def estimates(run, steps: int) -> torch.Tensor:
    """Return both estimates of every step."""
    found = torch.tensor([[run.metric(name)[step] for name in (SQUARE, TRACE)] for step in range(steps)])
    assert found.shape == (steps, 2)
    return found


def measured(passes: int, size: int, steps: int, *, halves: bool = False) -> torch.Tensor:
    """Return the estimates of steps that never update: from micro-batches, or from halves of a batch."""
    model, _ = regression()
    run, generator = fake_run(), torch.Generator().manual_seed(0)
    numbers = Numbers(norms=[], noise_scale=None if halves else size)
    with recording.record(model, run, sites=[], numbers=numbers) as recorder:
        for step in range(steps):
            model.zero_grad()
            for _ in range(passes):
                x, y = draw(size, generator)
                with recorder.step(step):
                    if halves:
                        recorder.noise_scale(lambda x, y: loss_of(model, x, y), x, y)
                    else:
                        (loss_of(model, x, y) / passes).backward()
    return estimates(run, steps)


def assert_planted(found: torch.Tensor) -> None:
    mean, error = found.mean(0), found.std(0) / len(found) ** 0.5
    for estimate, truth, bar in zip(mean, planted(), error, strict=True):
        assert bar < 0.2 * truth
        assert abs(estimate - truth) < 4 * bar


@pytest.mark.parametrize(("passes", "size"), [(2, 4), (4, 8), (3, 1)])
def test_micro_batches_of_any_two_sizes_give_the_closed_form(passes, size):
    assert_planted(measured(passes, size, 400))


def test_half_batches_give_the_closed_form():
    assert_planted(measured(1, 16, 400, halves=True))


def test_a_share_that_is_taken_for_a_gradient_would_be_seen():
    with broken("noise_scale_takes_shares_for_gradients"), pytest.raises(AssertionError):
        assert_planted(measured(4, 8, 400))


def test_halves_that_are_not_apart_would_be_seen():
    with broken("noise_scale_compares_a_half_with_itself"), pytest.raises(AssertionError):
        assert_planted(measured(1, 16, 400, halves=True))


def gradient(model: nn.Module, *batch: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss_of(model, *batch), list(model.parameters()))[0]


def test_a_step_is_what_two_batch_sizes_says_of_its_gradients():
    model, _ = regression()
    generator = torch.Generator().manual_seed(0)
    batches = [draw(4, generator) for _ in range(3)]
    own = [gradient(model, *batch) for batch in batches]
    small = torch.stack([one.square().sum() for one in own]).mean()
    big = torch.stack(own).mean(0).square().sum()
    expected = two_batch_sizes(small, big, small=4, big=12)
    assert measured(3, 4, 1)[0].tolist() == pytest.approx([one.item() for one in expected])


def test_half_batches_are_halves_of_everything_and_an_odd_item_is_left_out(run):
    model, _ = regression()
    x, y = draw(7, torch.Generator().manual_seed(0))
    own = [gradient(model, x[part], y[part]) for part in (slice(0, 3), slice(3, 6))]
    expected = two_batch_sizes(
        (own[0].square().sum() + own[1].square().sum()) / 2, ((own[0] + own[1]) / 2).square().sum(), small=3, big=6
    )
    numbers = Numbers(norms=[])
    with (
        recording.record(model, run, sites="output", numbers=numbers) as recorder,
        recorder.step(0, example=range(7)),
    ):
        recorder.noise_scale(lambda a, factor, b: factor * loss_of(model, a, b), x, 1.0, y)
        assert model.weight.grad is None
        model(x)
    assert estimates(run, 1)[0].tolist() == pytest.approx([one.item() for one in expected])
    assert run.values("output")[0].shape == (7, 1)


def test_halves_are_taken_in_steps_that_are_due_and_leave_attention_recorded(run):
    model, calls = nn.MultiheadAttention(4, 2, batch_first=True), []

    def loss(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return model(x, x, x)[0].square().mean()

    numbers = Numbers(norms=[], every=2)
    with recording.record(model, run, sites=[], attention="entropy", numbers=numbers) as recorder:
        for step in range(3):
            x = torch.randn(6, 5, 4)
            with recorder.step(step, example=range(6)):
                recorder.noise_scale(loss, x)
                loss(x)
    assert calls == [3, 3, 6, 6, 3, 3, 6]
    assert [len(rows) for rows in run.values("entropy").values()] == [6, 6, 6]


def test_two_batch_sizes_solves_for_both():
    assert two_batch_sizes(3 + 20 / 5, 3 + 20 / 50, small=5, big=50) == pytest.approx((3, 20))
    for small, big in ((4, 4), (8, 4), (0, 4), (-1, 4)):
        with pytest.raises(RecordingError, match="0 < small < big"):
            two_batch_sizes(1.0, 1.0, small=small, big=big)


def test_what_cannot_be_halved_raises(run):
    model, _ = regression()
    x, y = draw(4, torch.Generator().manual_seed(0))
    with recording.record(model, run, sites=[], numbers=Numbers(norms=[])) as recorder:
        with pytest.raises(RecordingError, match="outside of a step"):
            recorder.noise_scale(loss_of, x)
        with recorder.step(0):
            for batch in ((), (1.0,), (x[:1],), (x, y[:2])):
                with pytest.raises(RecordingError, match="no batch to halve"):
                    recorder.noise_scale(lambda *batch: model(x).mean(), *batch)
            with pytest.raises(RecordingError, match="reach the same parameters"):
                recorder.noise_scale(lambda x: x.requires_grad_().mean(), x)
    with (
        recording.record(model, fake_run(), sites=[]) as recorder,
        recorder.step(0),
        pytest.raises(RecordingError, match=r"needs a schedule.*numbers="),
    ):
        recorder.noise_scale(loss_of, x)


def test_one_pass_by_one_rank_says_what_to_do_instead(run):
    model, _ = regression()
    numbers = Numbers(norms=[], noise_scale=4)

    def train():
        with recording.record(model, run, sites=[], numbers=numbers) as recorder:
            for step in range(2):
                with recorder.step(step):
                    loss_of(model, *draw(4, torch.Generator().manual_seed(step))).backward()

    with (
        pytest.warns(LaminaWarning, match="noise_scale/gradient_square: nothing was found in step 0"),
        pytest.raises(RecordingError, match=r"call recorder\.noise_scale"),
    ):
        train()


CASES = [(1, ""), (2, ""), (1, "backward_passes_end_before_ranks_are_averaged")]


def of_rank(rank: int, passes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(rank)
    return [draw(4, generator) for _ in range(passes)]


@pytest.fixture
def ranks(folder: Path) -> list[list[list[float]]]:
    """Return what each rank found in each case."""
    return [json.loads((folder / f"noise-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", [0, 1])
def test_ranks_compare_their_own_gradient_with_the_average(ranks, case):
    model, (passes, _) = regression()[0], CASES[case]
    own = [[gradient(model, *batch) for batch in of_rank(rank, passes)] for rank in range(2)]
    whole = torch.stack([one for of in own for one in of]).mean(0)
    for rank in range(2):
        small = torch.stack([one.square().sum() for one in own[rank]]).mean()
        square, trace = two_batch_sizes(small, whole.square().sum(), small=4, big=8 * passes)
        expected = [square.item(), trace.item(), whole.norm().item(), 0.5]
        assert ranks[rank][case] == pytest.approx(expected, rel=1e-5)


def test_gradients_that_are_not_averaged_yet_would_be_seen(ranks):
    with pytest.raises(AssertionError):
        test_ranks_compare_their_own_gradient_with_the_average([[rank[2]] for rank in ranks], 0)


def test_of_sharded_parameters_the_ranks_squares_add_up(ranks):
    model = regression()[0]
    whole = torch.stack([gradient(model, *of_rank(rank, 1)[0]) for rank in range(2)]).mean(0).norm().item()
    parts = torch.tensor([rank[-1] for rank in ranks], dtype=torch.float64)
    expected = [whole, 0.5, model.weight.norm().item(), 0.05]
    assert parts.norm(dim=0).tolist() == pytest.approx(expected, rel=1e-5)
