"""Norms, noise scale and log-partition on a GPU: the numbers of the CPU, and nothing waits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina.recording import Numbers
from lamina.recording.numbers.squares import plain, sums_of_squares

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sums_of_squares_are_those_of_the_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    own, others = (
        [torch.randn(size, generator=generator).to(dtype) for size in (0, 1, 1000, 300_000)] for _ in range(2)
    )
    for minus in (None, others):
        far = None if minus is None else [one.cuda() for one in minus]
        found = sums_of_squares([plain(one.cuda()) for one in own], far)
        assert found.device.type == "cuda"
        assert found.tolist() == pytest.approx(sums_of_squares(own, minus).tolist(), rel=1e-5)
    both = sums_of_squares([own[2], own[3].cuda(), own[1]])
    assert both.tolist() == pytest.approx(sums_of_squares([own[2], own[3], own[1]]).tolist(), rel=1e-5)


def train(device: str, run: lamina.Run, **options: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batches = torch.randn(12, 6, 8).to(device)
    numbers = Numbers(norms=["gradient", "raw_gradient", "weight", "update"], noise_scale=6, log_partition="output")
    with lamina.record(model, run, sites=[], optimizer=optimizer, numbers=numbers) as recorder:
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            for step in range(6):
                optimizer.zero_grad()
                for batch in batches[2 * step : 2 * step + 2]:
                    with recorder.step(step, mask=[1, 1, 1, 1, 1, 0]):
                        (model(batch).square().mean() / 2).backward()
                with recorder.step(step):
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                    optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_training_logs_the_numbers_of_the_cpu_and_nothing_waits(tmp_path):
    found = {}
    for device in ("cpu", "cuda"):
        run = lamina.Run.create(tmp_path / device)
        train(device, run)
        rows = run.metrics().select("step", "name", "site", "value").collect().rows()
        found[device] = {row[:3]: row[3] for row in rows}
        assert len(found[device]) == len(rows)
    assert found["cpu"].keys() == found["cuda"].keys()
    for key, value in found["cpu"].items():
        assert found["cuda"][key] == pytest.approx(value, rel=1e-3, abs=1e-6), key
