"""What was acknowledged is there after the process is killed and after the disk is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lamina

ENDLESS = """
import sys, numpy as np, lamina
with lamina.open(sys.argv[1]).writer() as writer:
    for step in range(10**9):
        x = np.full((8, 16), step, np.float32)
        ticket = writer.append({"x": x}, step=step, example=list(range(8)))
        writer.log({"loss": 1.0 * step}, step=step)
        writer.save({"model": {"w": x}}, step=step)
        writer.flush()
        assert ticket.state == "durable"
        print(step, flush=True)
"""

FILLING = """
import resource, signal, sys, numpy as np, lamina
run = lamina.open(sys.argv[1])
writer = run.writer()
# the limit stands for a disk that is full after 3 MiB: the kernel refuses every write beyond it
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    for step in range(1000):
        writer.append({"x": np.full((64, 256), step, np.float32)}, step=step)
        writer.flush()
        print(step, flush=True)
except lamina.errors.StorageError as error:
    print(type(error).__name__, error.file, error.hint)
    assert "File too large" in str(error), error
try:
    writer.append({"x": np.zeros((1, 256), np.float32)}, step=0)
except lamina.errors.WriterError as error:
    print("then", type(error).__name__)
try:
    writer.close()
except lamina.errors.StorageError:
    print("close tells")
"""


def test_a_killed_writer_leaves_everything_that_it_acknowledged(run: lamina.Run) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = -1
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged == 40:
            process.kill()
    process.stdout.close()
    process.wait()
    found = lamina.open(run.path, strict=True) if not run.refresh().problems else run
    assert found.status.state == "abandoned"
    rows = found.activations("x").collect()
    assert rows["step"].to_list() == sorted(rows["step"].to_list())
    steps = range(acknowledged + 1)
    assert set(rows["step"]) >= set(steps)
    assert (rows["x"].arr.min() == rows["step"]).all()
    assert (rows["x"].arr.max() == rows["step"]).all()
    assert rows.group_by("step").len()["len"].unique().to_list() == [8]
    assert set(found.metrics().collect()["step"]) >= set(steps)
    assert (found.load(acknowledged)["w"] == acknowledged).all()
    with found.writer() as writer:
        writer.log({"again": 1.0}, step=0)
    assert found.refresh().status.state == "abandoned", "the dead writer stays on record"


def test_a_full_disk_is_named_and_loses_nothing_acknowledged(run: lamina.Run, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FILLING, str(run.path)], capture_output=True, text=True, check=True)
    *steps, failure, after, closing = done.stdout.splitlines()
    assert failure.startswith("StorageError segments/000000-000000.safetensors free some space"), done.stdout
    assert (after, closing) == ("then WriterError", "close tells")
    run.refresh()
    assert run.status.state == "failed"
    assert "File too large" in str(run.status), "who opens the run need not have seen the error"
    assert run.steps() == list(range(len(steps)))
    assert len(steps) > 10
    rows = run.activations("x").collect()
    assert (rows["x"].arr.max() == rows["step"]).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("broken")])
def test_an_exception_closes_the_run_as_failed_and_it_opens(
    run: lamina.Run, error: type[BaseException] | BaseException
) -> None:
    writer = run.writer()
    with pytest.raises((KeyboardInterrupt, ValueError)), writer:  # noqa: PT012 - it must leave the writer's block
        writer.log({"loss": 2.0}, step=5)
        raise error
    status = run.refresh().status
    assert status.state == "failed"
    assert ("KeyboardInterrupt" if error is KeyboardInterrupt else "ValueError('broken')") in str(status)
    assert run.metrics().collect()["value"].to_list() == [2.0]
