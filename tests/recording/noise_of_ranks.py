"""What one of two processes does for `test_noise_scale`: steps of a regression, and the numbers that they log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lamina.recording as recording
from lamina.errors import RecordingError
from lamina.recording.numbers import backward
from tests.faults import broken
from tests.recording import test_noise_scale as shared
from tests.recording.fakes import fake_run


def in_parallel(looked: Path, rank: int, passes: int, fault: str) -> list[float]:
    """A step with some micro-batches, and maybe a fault."""
    model, run = DistributedDataParallel(shared.regression()[0], gradient_as_bucket_view=True), fake_run()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    numbers = recording.Numbers(norms=["raw_gradient", "gradient"], noise_scale=4)
    with pytest.raises(RecordingError, match="DistributedDataParallel"):
        recording.record(model.module, run, sites=[], numbers=recording.Numbers(norms=[], noise_scale=4))
    with (
        broken(fault) if fault else nullcontext(),
        pytest.MonkeyPatch.context() as patch,
        recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder,
    ):
        if fault:
            one_after_the_other(patch, looked, rank)
        for micro, batch in enumerate(shared.of_rank(rank, passes)):
            model.require_backward_grad_sync = last = micro == passes - 1
            with recorder.step(0):
                (shared.loss_of(model, *batch) / passes).backward()
                if last:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    sgd.step()
    names = (shared.SQUARE, shared.TRACE, "raw_gradient_norm", "gradient_norm")
    return [run.metric(name)[0] for name in names]


def one_after_the_other(patch: pytest.MonkeyPatch, looked: Path, rank: int) -> None:
    """Rank 1 begins when rank 0 has looked: what rank 0 looked at cannot be an average."""
    behind: Any = backward.behind_backward

    def told(act: Callable[[], None]) -> None:
        behind(lambda: (act(), looked.touch()))

    while rank == 1 and not looked.exists():
        time.sleep(0.01)
    patch.setattr(backward, "behind_backward", told)


def in_shards(rank: int) -> list[float]:
    model, run = shared.regression()[0], fake_run()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    numbers = recording.Numbers(norms=["raw_gradient", "gradient", "weight", "update"])
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder, recorder.step(0):
        shared.loss_of(model, *shared.of_rank(rank, 1)[0]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        sgd.step()
    return [run.metric(f"{name}_norm")[0] for name in numbers.norms]


def noise_scales(folder: Path, rank: int) -> None:
    """Write what this rank found in each case."""
    found = [in_parallel(folder / "looked", rank, *case) for case in shared.CASES]
    (folder / f"noise-{rank}.json").write_text(json.dumps([*found, in_shards(rank)]))
