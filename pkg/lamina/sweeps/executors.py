"""Tasks that are computed one after another, by processes of this machine, or by a Ray cluster, to the same bits."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cloudpickle

from lamina.errors import LaminaWarning, SchemaError, WorkerError
from lamina.extras import need
from lamina.sweeps.crews import Crew, Lost, Outcome
from lamina.sweeps.threads import torch_threads, usual_threads

Executor: TypeAlias = Literal["processes", "ray"]


@dataclass(frozen=True)
class Task:
    """A piece of work that needs nothing but its arguments.

    Attributes:
        function: What computes it.
        arguments: What it is called with.
        name: What messages call it.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    name: str = "a task"


def execute(
    tasks: Sequence[Task],
    executor: Executor | None = None,
    *,
    retries: int = 2,
    threads: int | None = None,
    workers: int | None = None,
) -> Generator[tuple[int, Outcome], None, None]:
    """Compute tasks and yield what became of each, in the order in which they end.

    The results have the same bits wherever they are computed, on processors of one kind: a task sees nothing of the
    others, and its arithmetic has as many threads in this process as in a worker. Workers are fresh interpreters that
    import nothing of the caller's script: what it defines travels by value, so that a script needs no
    `if __name__ == "__main__"`. They end with the iterator: when it is exhausted, left or interrupted, and when this
    process is killed.

    A task that raises is not tried again. One whose worker dies (killed for want of memory, a crash) is, by a new
    worker, and a `LaminaWarning` names the dead one.

    Args:
        tasks: What to compute.
        executor: None computes in this process, one after another; "processes" in others on this machine; "ray" on the
            cluster that `ray.init` connected this process to, or else on a local Ray that lasts as long as the tasks.
        retries: How often a task whose worker died is tried again.
        threads: What the arithmetic of a task may use; None takes as many as torch has here, and at most 4.
        workers: How many tasks are computed at a time by processes or Ray; None takes what the cores have room for,
            and at least two processes.

    Yields:
        The number of a task, and its outcome.

    Raises:
        SchemaError: There is no such executor, or a number is below its least.
        MissingExtraError: Ray is not installed.
        WorkerError: No worker came to life.

    Example:
        >>> from lamina.sweeps.executors import Task, execute
        >>> tasks = [Task(pow, (2, power)) for power in range(3)]
        >>> [(index, outcome.get()) for index, outcome in execute(tasks)]
        [(0, 1), (1, 2), (2, 4)]
    """
    for name, given, least in (("retries", retries, 0), ("threads", threads, 1), ("workers", workers, 1)):
        if given is not None and given < least:
            raise SchemaError(f"{name}={given}", hint=f"give at least {least}")
    threads = threads or usual_threads()
    if executor is None:
        return _here(tasks, threads)
    if executor not in ("processes", "ray"):
        raise SchemaError(f"executor={executor!r}", hint="it is None, 'processes' or 'ray'")
    if executor == "ray":
        need("ray", extra="ray")
    return _by(executor, tasks, threads, workers, retries)


def _crew(executor: Executor, threads: int) -> Crew:
    if executor == "ray":
        from lamina.sweeps.ray_actors import Actors

        return Actors(threads)
    from lamina.sweeps.processes import Processes

    return Processes(threads)


def _here(tasks: Sequence[Task], threads: int) -> Generator[tuple[int, Outcome], None, None]:
    for index, task in enumerate(tasks):
        with torch_threads(threads):
            try:
                outcome = Outcome(task.function(*task.arguments))
            except Exception as error:
                outcome = Outcome(error=error)
        yield index, outcome


def _by(
    executor: Executor, tasks: Sequence[Task], threads: int, workers: int | None, retries: int
) -> Generator[tuple[int, Outcome], None, None]:
    waiting, idle, busy = deque(range(len(tasks))), list[int](), dict[int, int]()
    lost: dict[int, list[Lost]] = {}
    crew = _crew(executor, threads)
    try:
        workers = workers or crew.room
        while waiting or busy:
            while waiting and len(busy) < workers:
                index = waiting.popleft()
                try:
                    payload = cloudpickle.dumps((tasks[index].function, tasks[index].arguments))
                except Exception as error:
                    yield index, Outcome(error=_unsent(tasks[index], error))
                    continue
                worker = idle.pop() if idle else crew.start()
                busy[worker] = index
                crew.send(worker, payload)
            for worker, reply in crew.wait() if busy else []:
                index = busy.pop(worker)
                deaths = lost.setdefault(index, [])
                if isinstance(reply, bytes):
                    idle.append(worker)
                    yield index, _received(tasks[index], reply, deaths)
                    continue
                deaths.append(reply)
                if len(deaths) > retries:
                    yield index, Outcome(error=_given_up(tasks[index], deaths), lost=_names(deaths))
                    continue
                text = f"{reply.worker} {reply.cause} while it computed {tasks[index].name}, which is tried again"
                warnings.warn(text, LaminaWarning, stacklevel=2)
                waiting.append(index)
    finally:
        crew.close()


def _received(task: Task, reply: bytes, deaths: list[Lost]) -> Outcome:
    try:
        outcome: Outcome = cloudpickle.loads(reply)
    except Exception as error:
        raised = WorkerError(f"what came back of {task.name} cannot be unpickled: {type(error).__name__}: {error}")
        return Outcome(error=raised, lost=_names(deaths))
    return Outcome(outcome.value, outcome.error, _names(deaths))


def _unsent(task: Task, error: Exception) -> WorkerError:
    return WorkerError(
        f"{task.name} cannot be sent to a worker: {type(error).__name__}: {error}",
        hint="its function and arguments have to pickle; executor=None computes it here",
    )


def _given_up(task: Task, deaths: list[Lost]) -> WorkerError:
    last = deaths[-1]
    return WorkerError(
        f"{task.name} was given up: {last.worker} {last.cause} while it computed it"
        + (f", as did {', '.join(_names(deaths[:-1]))}" if deaths[1:] else ""),
        hint="is there memory for as many workers? executor=None computes one at a time in this process",
    )


def _names(deaths: list[Lost]) -> tuple[str, ...]:
    return tuple(death.worker for death in deaths)
