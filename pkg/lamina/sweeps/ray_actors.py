"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from lamina.extras import need
from lamina.sweeps.crews import Lost
from lamina.sweeps.working import answer


class _Worker:
    """What an actor is."""

    def __init__(self, path: list[str], threads: int) -> None:
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self._threads = threads

    def name(self) -> str:
        import ray  # pyright: ignore[reportMissingImports]

        return f"process {os.getpid()} on {ray.util.get_node_ip_address()}"

    def answer(self, payload: bytes) -> bytes:
        return answer(payload, self._threads)


class Actors:
    """A crew of actors (`lamina.sweeps.crews.Crew`), on the cluster that there is or else on a local Ray.

    Args:
        threads: What the arithmetic of each may use.

    Attributes:
        room: How many actors the cluster has cores for.
    """

    def __init__(self, threads: int) -> None:
        self._ray: Any = need("ray", extra="ray")
        self._ours = not self._ray.is_initialized()
        if self._ours:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            self._ray.init(include_dashboard=False, configure_logging=False, log_to_driver=False)
        cores = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        # an actor that wants more than a node has would wait for ever
        self._cores = max(1, min(threads, int(max(cores, default=1))))
        self.room = max(1, sum(int(each // self._cores) for each in cores))
        # Ray would limit NumPy to the actor's cores: as many here as there, for the same bits
        variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))}
        self._make = self._ray.remote(num_cpus=self._cores, runtime_env={"env_vars": variables})(_Worker)
        self._threads = threads
        self._actors: dict[int, tuple[Any, Any]] = {}
        self._answers: dict[Any, int] = {}
        self._started = 0

    def start(self) -> int:
        """Ask for an actor."""
        actor = self._make.remote(sys.path, self._threads)
        self._started += 1
        self._actors[self._started] = actor, actor.name.remote()
        return self._started

    def send(self, worker: int, payload: bytes) -> None:
        """Give an actor a task."""
        self._answers[self._actors[worker][0].answer.remote(payload)] = worker

    def wait(self) -> list[tuple[int, bytes | Lost]]:
        """Wait until an actor answers or dies."""
        (ready, *_), _ = self._ray.wait(list(self._answers), num_returns=1)
        worker = self._answers.pop(ready)
        try:
            return [(worker, self._ray.get(ready))]
        except self._ray.exceptions.RayError as error:
            actor, name = self._actors.pop(worker)
            known = "of which nothing is known"
            with suppress(self._ray.exceptions.RayError):
                known = self._ray.get(name, timeout=0)
            with suppress(Exception):
                self._ray.kill(actor)
            return [(worker, Lost(f"worker {worker} ({known})", f"died ({type(error).__name__})"))]

    def close(self) -> None:
        """End all actors, and Ray if it was started for them."""
        for actor, _ in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)
        self._actors.clear()
        if self._ours:
            self._ray.shutdown()
