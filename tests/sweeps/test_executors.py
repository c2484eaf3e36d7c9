from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from lamina.errors import LaminaWarning, MissingExtraError, SchemaError, WorkerError
from lamina.sweeps.executors import Task, execute
from tests.sweeps import jobs


def results(tasks, *arguments, **options):
    return dict(sorted(execute(tasks, *arguments, **options)))


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds=200.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.mark.parametrize("executor", [None, "processes"])
def test_every_task_has_an_outcome_of_its_own(executor):
    tasks = [
        Task(jobs.fail, ("on purpose",)),
        *(Task(pow, (2, power)) for power in range(5)),
        Task(len, ([None] * 10**6,)),
        Task(partial(pow, exp=3), (2,)),
    ]
    found = results(tasks, executor)
    assert [found[index].get() for index in range(1, 8)] == [1, 2, 4, 8, 16, 10**6, 8]
    assert all(outcome.lost == () for outcome in found.values())
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        found[0].get()


def test_what_does_not_travel_is_an_outcome_too():
    tasks = [
        Task(len, ((each for each in "abc"),), "the cell a"),
        Task(jobs.unpicklable),
        Task(jobs.fail_picky),
        Task(jobs.fail, ("on purpose",)),
        Task(pow, (2, 2)),
    ]
    found = results(tasks, "processes", workers=1)
    assert found[4].get() == 4
    with pytest.raises(WorkerError, match="the cell a cannot be sent to a worker"):
        found[0].get()
    with pytest.raises(TypeError, match="generator"):
        found[1].get()
    with pytest.raises(WorkerError, match="PickyError: too picky"):
        found[2].get()
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        found[3].get()
    assert "jobs.py" in caught.value.__notes__[0], "the worker's own traceback"


def test_processes_have_the_bits_of_this_one_and_its_threads():
    before = torch.get_num_threads()
    threads = 1 + before % 2
    tasks = [*(Task(jobs.product, (seed,)) for seed in range(6)), Task(jobs.threads)]
    here, there = (results(tasks, executor, threads=threads, workers=1) for executor in (None, "processes"))
    assert here.pop(6).get() == there.pop(6).get() == threads
    assert all(torch.equal(here[index].get(), there[index].get()) for index in range(6))
    assert torch.get_num_threads() == before


def test_a_worker_that_dies_is_named_and_its_task_tried_again_and_at_last_given_up(tmp_path):
    tasks = [Task(jobs.die, (tmp_path, 1), "the cell b"), Task(jobs.leave, (7,), "the cell of doom"), Task(pow, (3, 3))]
    with pytest.warns(LaminaWarning) as warned:
        found = results(tasks, "processes", retries=1, workers=1)
    assert (found[0].get(), found[2].get()) == ("alive", 27)
    (dead,) = (path.name for path in tmp_path.iterdir())
    (name,) = found[0].lost
    assert name.endswith(f"(process {dead})")
    assert found[2].lost == ()
    assert [str(each.message) for each in warned] == [
        f"{name} was ended by SIGKILL while it computed the cell b, which is tried again",
        f"{found[1].lost[0]} ended with code 7 while it computed the cell of doom, which is tried again",
    ]
    assert len(set(found[1].lost)) == 2
    with pytest.raises(
        WorkerError, match=r"the cell of doom was given up: worker \d \(process \d+\) ended with code 7"
    ):
        found[1].get()


def test_nothing_runs_on_when_the_iterator_is_left(tmp_path):
    path = tmp_path / "who"
    outcomes = execute([Task(jobs.sleep, (600, path)), Task(pow, (2, 3))], "processes", workers=2)
    index, outcome = next(outcomes)
    assert (index, outcome.get()) == (1, 8)
    wait_until(lambda: path.exists() and len(path.read_text().split()) == 2)
    processes = [int(each) for each in path.read_text().split()]
    assert all(map(alive, processes))
    outcomes.close()
    wait_until(lambda: not any(map(alive, processes)))


SCRIPT = """
    import signal, sys, time
    from pathlib import Path
    from lamina.sweeps.executors import Task, execute
    from tests.sweeps import jobs

    class Doubled:  # of this script: no worker can import it
        def __call__(self, value):
            return 2 * value

    # a shell that starts tests in the background tells them to ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("begun", flush=True)
    tasks = [Task(Doubled(), (21,)), Task(jobs.sleep, (float(sys.argv[2]), Path(sys.argv[1])))]
    for index, outcome in execute(tasks, "processes", workers=2):
        print(index, outcome.get(), flush=True)
"""


def script(tmp_path, seconds):
    """A script without `if __name__ == "__main__"`, which begins once however many workers it has."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, path, tmp_path / "who", str(seconds)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in (*sys.path, str(Path.cwd())) if each)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, process_group=0
    )


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_after_ctrl_c_or_the_death_of_the_caller(tmp_path, told):
    path = tmp_path / "who"
    with script(tmp_path, 600) as process:
        try:
            wait_until(lambda: path.exists() and len(path.read_text().split()) == 2)
            worker, child = map(int, path.read_text().split())
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            # it began once, whatever the workers are, and its class travelled
            assert process.stdout.readline() == "0 42\n"
            # as a terminal does: to the whole group of the script, in which no worker is
            os.killpg(process.pid, told)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    wait_until(lambda: not alive(worker) and not alive(child))
    if told == signal.SIGINT:
        assert err.count("KeyboardInterrupt") == 1, "the script says it, and no worker does"


def test_a_worker_that_cannot_start_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr("lamina.sweeps.processes._BEGIN", "import sys; sys.exit(3)")
    with pytest.raises(WorkerError, match="ended with code 3 before it was ready"):
        results([Task(pow, (2, 2))], "processes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "threads"}, "executor='threads'.*'processes' or 'ray'"),
        ({"retries": -1}, "retries=-1"),
        ({"threads": 0}, "threads=0"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(SchemaError, match=message):
        execute([Task(pow, (1, 1))], **options)


def test_no_tasks_start_no_worker(monkeypatch):
    monkeypatch.setattr("lamina.sweeps.processes._BEGIN", "import sys; sys.exit(3)")
    assert results([], "processes") == {}


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"lamina\[ray\]"):
        results([Task(pow, (1, 1))], "ray")
