"""A training in float16 under a GradScaler: what the optimizer takes is recorded, and what it skips is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina.errors import LaminaWarning
from tests.faults import broken

STEPS = 5
SITES = ["0.output", "1.output.grad", "0.weight.grad", "0.weight.update"]


def training(fused: bool, overflow: int | None = None) -> Any:
    """Return a model, its optimizer, a scaler and its batches, one of which may be too large for float16."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, fused=fused)
    batches = [torch.randn(6, 4) for _ in range(STEPS)]
    if overflow is not None:
        batches[overflow] = batches[overflow] * 1e6
    return model, optimizer, torch.amp.GradScaler("cpu", init_scale=1024.0), batches


def take(model: nn.Module, optimizer: Any, scaler: Any, batch: torch.Tensor, clip: Callable[[], object]) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = (model(batch) - 1).square().mean()
    scaler.scale(loss).backward()
    clip()
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("way", ["unscaled by the scaler", "unscaled by hand and clipped", "fused"])
def test_gradients_are_what_the_optimizer_takes(tmp_path: Path, way: str) -> None:
    model, optimizer, scaler, batches = training(way == "fused")
    alone, other, its, _ = training(way == "fused")

    def clipping(model: Any, optimizer: Any, scaler: Any) -> Callable[[], object]:
        def clip() -> None:
            if way == "unscaled by hand and clipped":
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)

        return clip

    run = lamina.Run.create(tmp_path / "run")
    with lamina.record(model, run, sites=SITES, optimizer=optimizer) as recorder:
        for step, batch in enumerate(batches):
            take(alone, other, its, batch, clipping(alone, other, its))
            with recorder.step(step, example=range(6)):
                take(model, optimizer, scaler, batch, clipping(model, optimizer, scaler))
            assert all(torch.equal(*pair) for pair in zip(model.parameters(), alone.parameters(), strict=True))
    run.refresh()
    for step in range(STEPS):
        taken = run.rows("0.weight.grad", step=step).gather(range(8))
        update = run.rows("0.weight.update", step=step).gather(range(8))
        # By plain SGD the weights lose what was taken.
        torch.testing.assert_close(-0.125 * taken, update, rtol=1e-3, atol=1e-7)
        assert taken.abs().max() < 1
    # Gradients of activations are inside of what the scaler scales.
    assert run.rows("1.output.grad", step=0).gather(range(6)).abs().max() > 1
    assert run.rows("0.output", step=0).gather([0]).dtype == torch.float16


def test_gradients_of_fused_optimizers_that_stay_scaled_are_noticed(tmp_path: Path) -> None:
    with broken("fused_optimizers_unscale_before"), pytest.raises(AssertionError):
        test_gradients_are_what_the_optimizer_takes(tmp_path, "fused")


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_leaves_what_was_there(tmp_path: Path, fused: bool) -> None:
    model, optimizer, scaler, batches = training(fused, overflow=2)
    run = lamina.Run.create(tmp_path / "run")

    def train() -> None:
        with lamina.record(model, run, sites=SITES, optimizer=optimizer) as recorder:
            for step, batch in enumerate(batches):
                with recorder.step(step, example=range(6)):
                    take(model, optimizer, scaler, batch, lambda: None)

    # An optimizer that is not fused is not called at all.
    with nullcontext() if fused else pytest.warns(LaminaWarning, match=r"0\.weight\.(grad|update)"):
        train()
    assert scaler.get_scale() == 512.0
    frame = run.refresh().activations("0.weight.update").collect()
    assert sorted(set(frame["step"])) == ([0, 1, 2, 3, 4] if fused else [0, 1, 3, 4])
    if fused:
        assert run.rows("0.weight.update", step=2).gather(range(8)).count_nonzero() == 0
    assert sorted(set(run.activations("0.output").collect()["step"])) == list(range(STEPS))
