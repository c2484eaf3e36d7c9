"""A run on a file system that is mounted read-only: it answers, and whatever would write says why it cannot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lamina
from tests.store import small

ASKED = """
import json, pathlib, sys, warnings, numpy as np, polars as pl, lamina
from lamina import interchange
from lamina.report import report
from tests.store import small
path, free = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
found = small.examine(path)
print(json.dumps([len(found.answers), sorted(map(str, found.errors.values())), len(found.problems)]))
run = lamina.open(path, strict=True)
print(json.dumps([run.refresh().verify(progress=False).ok, run.copy(free / "copy", progress=False).steps()]))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    found = lamina.open(path.with_name("codes")).features("sae").filter(pl.col("feature") == 0).collect()
print(json.dumps([found["value"].to_list(), [str(warning.message) for warning in told]]))
WRITING = {
    "create": lambda: lamina.Run.create(path.with_name("other")),
    "copy": lambda: run.copy(path.with_name("other"), progress=False),
    "writer": lambda: run.writer(),
    "delete": lambda: run.delete(steps=0),
    "rewind": lambda: run.rewind(0),
    "compact": lambda: run.compact(progress=False),
    "gc": lambda: run.gc(grace=0, progress=False),
    "preshuffle": lambda: run.preshuffle(path.with_name("other"), "wide", seed=0),
    "retain": lambda: run.retain(last=1).apply(),
    "import": lambda: interchange.from_npy(path, free / "x.npy", site="x"),
    "safetensors": lambda: interchange.to_safetensors(run, path.with_name("x.safetensors"), sites="wide"),
    "checkpoint": lambda: interchange.to_checkpoint(run, path.with_name("x.pt")),
    "dcp": lambda: interchange.to_dcp(run, path.with_name("dcp"), step=run.checkpoints().collect()["step"][0]),
    "report": lambda: report(run, path.with_name("x.html"), progress=False),
}
np.save(free / "x.npy", np.ones((2, 2)))
for name, write in WRITING.items():
    try:
        write()
        print(name, "wrote")
    except lamina.errors.StorageError as error:
        print(name, "Read-only file system" in str(error), bool(error.hint or error.file))
"""


def damaged(path: Path) -> None:
    """Sparse codes whose index is damaged."""
    run = lamina.Run.create(path)
    with run.writer() as writer:
        writer.features("sae", np.eye(40, dtype=np.float32), threshold=0, step=0)
    run.refresh().index(progress=False)
    (file,) = (path / "index").iterdir()
    data = bytearray(file.read_bytes())
    data[10] ^= 0x10
    file.write_bytes(data)


def mounted(path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a namespace of its own, where `path` is mounted read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    whole = ["unshare", "--mount", "sh", "-c", mount, str(path), *command]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare(1) for a mount of its own")
def test_a_run_on_a_read_only_file_system_answers_and_refuses_to_be_written(tmp_path: Path) -> None:
    small.make(tmp_path / "mount" / "run")
    damaged(tmp_path / "mount" / "codes")
    if mounted(tmp_path / "mount", "true").returncode:
        pytest.skip("this machine lets nobody mount")
    free = tmp_path / "free"
    free.mkdir()
    done = mounted(tmp_path / "mount", sys.executable, "-c", ASKED, str(tmp_path / "mount" / "run"), str(free))
    answers, others, codes, *refused = done.stdout.splitlines()
    assert json.loads(answers) == [len(small.QUESTIONS), [], 0], done.stderr
    assert json.loads(others) == [True, [0, 1, 2, 3]]
    values, (told,) = json.loads(codes)
    assert values == [1.0]
    assert "codes are scanned; `lamina index` builds it" in told
    assert [line.split()[-2:] for line in refused] == [["True", "True"]] * 14, (refused, done.stderr)
    assert lamina.open(tmp_path / "mount" / "run", strict=True).steps() == [0, 1, 2, 3]
