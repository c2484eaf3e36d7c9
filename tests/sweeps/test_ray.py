"""A real local Ray, started once, as the executor itself starts it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lamina
from lamina import similarity
from lamina.errors import LaminaWarning
from lamina.sweeps.executors import Task, execute
from tests.sweeps import jobs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lamina[ray]'")


def check_a_grid(wide: lamina.Run) -> None:
    here, there = (
        lamina.sweep(similarity.cka, wide, steps=0, executor=executor, cache=False, progress=False)
        for executor in (None, "ray")
    )
    assert here.height == 45
    assert there.equals(here)


def check_tasks(folder: Path) -> None:
    tasks = [
        *(Task(jobs.product, (seed,)) for seed in range(4)),
        Task(jobs.threads),
        Task(jobs.fail, ("on purpose",)),
        Task(jobs.die, (folder, 1), "the cell b"),
    ]
    here = dict(execute(tasks[:5], threads=1))
    with pytest.warns(LaminaWarning, match=r"worker \d \(process \d+ on [\d.]+\) died .* while it computed the cell"):
        there = dict(execute(tasks, "ray", threads=1, retries=1, workers=1))
    assert all(torch.equal(here[index].get(), there[index].get()) for index in range(4))
    assert here[4].get() == there[4].get() == 1
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        there[5].get()
    assert there[6].get() == "alive"
    (dead,) = (path.name for path in folder.iterdir())
    assert f"(process {dead} on " in there[6].lost[0]


@pytest.mark.filterwarnings("ignore:::ray")
def test_ray_has_the_same_bits_names_who_dies_and_leaves_nothing(wide: lamina.Run, tmp_path: Path) -> None:
    from lamina.sweeps.ray_actors import Actors

    (folder := tmp_path / "dead").mkdir()
    crew = Actors(threads=1)
    try:
        check_a_grid(wide)
        check_tasks(folder)
        assert ray.is_initialized(), "a Ray that was there stays"
    finally:
        crew.close()
    assert not ray.is_initialized()
