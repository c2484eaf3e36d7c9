"""Tensors of a GPU are stored from pinned memory, into which they are copied once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lamina
from lamina.runs import staging

pytestmark = pytest.mark.gpu


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def test_memory_for_a_gpu_is_pinned() -> None:
    assert torch.from_numpy(staging.pinned(1 << 20)).is_pinned()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_tensors_of_any_strides_come_back_from_pinned_memory(run: lamina.Run, dtype: torch.dtype) -> None:
    value = torch.randn(4000, 1024, generator=torch.Generator().manual_seed(0)).mul(40).to(dtype)
    views = {"x": lambda x: x, "y": lambda x: x.T, "z": lambda x: x[:, ::2], "small": lambda x: x[:2]}
    with run.writer(durable_seconds=None) as writer:
        for name, view in views.items():
            moved = value.cuda()
            writer.append({name: view(moved)}, step=0)
            moved.zero_()  # what was appended is copied
        assert writer._staging._pinned.held()[0] >= 2 * value.nbytes
        writer.flush()
        assert writer._staging._pinned.held()[0] == 0
    run.refresh()
    for name, view in views.items():
        assert torch.equal(run.rows(name).gather(range(len(view(value)))), view(value))
