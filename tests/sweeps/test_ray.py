"""A real local Ray, started by the executor itself; `test_division` has the bits of a sweep on it."""

from __future__ import annotations

import pytest
import torch

from lamina.errors import LaminaWarning, WorkerError
from lamina.sweeps.executors import Task, execute
from tests.sweeps import jobs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lamina[ray]'")


@pytest.mark.filterwarnings("ignore:::ray")
def test_ray_has_the_same_bits_names_who_dies_and_leaves_nothing(tmp_path):
    tasks = [
        *(Task(jobs.product, (seed,)) for seed in range(4)),
        Task(jobs.threads),
        Task(jobs.fail, ("on purpose",)),
        Task(jobs.die, (tmp_path, 1), "the cell b"),
        Task(jobs.leave, (7,), "the cell of doom"),
    ]
    here = dict(execute(tasks[:5], threads=1))
    with pytest.warns(LaminaWarning, match=r"worker \d \(process \d+ on [\d.]+\) died .* while it computed the cell"):
        there = dict(execute(tasks, "ray", threads=1, retries=1))
    assert all(torch.equal(here[index].get(), there[index].get()) for index in range(4))
    assert here[4].get() == there[4].get() == 1
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        there[5].get()
    assert there[6].get() == "alive"
    (dead,) = (path.name for path in tmp_path.iterdir())
    assert f"(process {dead} on " in there[6].lost[0]
    with pytest.raises(WorkerError, match="the cell of doom was given up"):
        there[7].get()
    assert not ray.is_initialized()
