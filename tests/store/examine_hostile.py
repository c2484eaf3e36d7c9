"""Makes and examines hostile runs in a process that may not allocate much.

`python -m tests.store.examine_hostile HEALTHY FOLDER CASE...` prints for each case a line of JSON: what was raised that
is no error of Lamina's, what errors and problems say is wrong, and what was answered otherwise than it should be.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from lamina.errors import NotFoundError
from tests.store import hostile_envelopes, hostile_groups, hostile_random, hostile_records, small

BUDGET = 64 << 20
"""Bytes of address space that examining may take beyond what a healthy run took; the files have 2 MiB."""
CASES = hostile_groups.CASES | hostile_records.CASES | hostile_envelopes.CASES | hostile_random.CASES
OTHERS = {("bits", 2, "wide"), ("bits", 3, "loss"), ("cells", 2), ("cells", 3)}


def address_space() -> int:
    """The most bytes of address space that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmPeak:")).split()[1]) * 1024


def verdict(run: Path, expected: small.Examined) -> dict[str, Any]:
    try:
        found = small.examine(run)
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {str(error)[:300]}"}
    # that something is not there any more is no notice of why
    notices = [error for error in found.errors.values() if not isinstance(error, NotFoundError)] + found.problems
    return {
        "raised": None,
        "notices": sorted({f"{type(notice).__name__}: {notice.message} [{notice.file}]" for notice in notices}),
        "nameless": sorted({str(notice.message) for notice in notices if notice.file is None}),
        "opened": ("open",) not in found.errors,
        "wrong": sorted(
            str(key) for key in OTHERS & found.answers.keys() if found.answers[key] != expected.answers[key]
        ),
    }


def main(healthy: Path, folder: Path, names: list[str]) -> None:
    expected = small.examine(healthy)
    limit = address_space() + BUDGET
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name in names:
        print(json.dumps({"case": name, "state": "begun"}), flush=True)
        run = Path(shutil.copytree(healthy, folder / "run"))
        CASES[name](run)
        print(json.dumps({"case": name, "state": "done"} | verdict(run, expected)), flush=True)
        shutil.rmtree(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
