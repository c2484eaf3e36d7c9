"""Makes and examines hostile runs in a process that may not allocate much.

`python -m tests.store.examine_hostile HEALTHY FOLDER CASE...` prints for each case a line of JSON: what was raised that
is no error of Lamina's, what errors and problems say is wrong, and what was answered otherwise than it should be.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lamina
from lamina.errors import NotFoundError
from tests.store import hostile_envelopes, hostile_groups, hostile_keeping, hostile_random, hostile_records, small

BUDGET = 64 << 20
"""Bytes of address space that examining may take beyond what a healthy run took; the files have 2 MiB."""
CASES = (
    hostile_groups.CASES
    | hostile_records.CASES
    | hostile_envelopes.CASES
    | hostile_keeping.CASES
    | hostile_random.CASES
)
OTHERS = {("bits", 2, "wide"), ("bits", 3, "loss"), ("cells", 2), ("cells", 3)}


def append(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"wide": np.ones((1, 3), np.float32)}, step=9, label="new")
        writer.save({"model": {"weight": torch.arange(6.0), "lr": 0.5}}, step=9)


ACTS: dict[str, Callable[[lamina.Run], Any]] = {
    "verify": lambda run: run.verify(progress=False),
    "append": append,
    "delete": lambda run: run.delete("loss", steps=0),
    "compact": lambda run: run.compact(progress=False),
    "gc": lambda run: run.gc(grace=0, progress=False),
    "copy": lambda run: run.copy(run.path.with_name("copy"), progress=False),
}
"""What is done to a run, be it hostile or not, after every question was asked."""


def act(path: Path) -> str | None:
    """Does all of it; says what was raised that is no error of Lamina's."""
    for name, do in ACTS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lamina.LaminaWarning)
            try:
                do(lamina.open(path))
            except lamina.LaminaError:
                pass
            except BaseException as error:
                return f"{name}: {type(error).__name__}: {str(error)[:300]}"
    return None


def address_space(when: str) -> int:
    """Bytes of address space that this process has (`VmSize`), or has had at most (`VmPeak`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{when}:")).split()[1]) * 1024


def verdict(run: Path, expected: small.Examined, *, acts: bool) -> dict[str, Any]:
    try:
        found = small.examine(run)
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {str(error)[:300]}"}
    # that something is not there any more is no notice of why
    notices = [error for error in found.errors.values() if not isinstance(error, NotFoundError)] + found.problems
    files = [path for path in (run / "run.json", run / small.SEALED_LOG) if path.stat().st_size < 1 << 30]
    kept = {path: path.read_bytes() for path in files}
    return {
        "raised": act(run) if acts else None,
        "removed": sorted(path.name for path, data in kept.items() if not path.exists() or path.read_bytes() != data),
        "notices": sorted({f"{type(notice).__name__}: {notice.message} [{notice.file}]" for notice in notices}),
        "nameless": sorted({str(notice.message) for notice in notices if notice.file is None}),
        "opened": ("open",) not in found.errors,
        "wrong": sorted(
            str(key) for key in OTHERS & found.answers.keys() if found.answers[key] != expected.answers[key]
        ),
    }


def fresh(healthy: Path, folder: Path) -> Path:
    for name in ("run", "copy"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return Path(shutil.copytree(healthy, folder / "run"))


def main(healthy: Path, folder: Path, names: list[str]) -> None:
    expected = small.examine(healthy)
    assert act(fresh(healthy, folder)) is None
    more = address_space("VmPeak") - address_space("VmSize") + BUDGET
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    for name in names:
        # of each case by itself: what allocators keep of four hundred would use up the budget of the last
        resource.setrlimit(resource.RLIMIT_AS, (address_space("VmSize") + more, most))
        print(json.dumps({"case": name, "state": "begun"}), flush=True)
        run = fresh(healthy, folder)
        CASES[name](run)
        acts = name not in hostile_random.CASES or name.endswith("7")
        print(json.dumps({"case": name, "state": "done"} | verdict(run, expected, acts=acts)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
