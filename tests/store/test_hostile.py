"""Records that lie under valid checksums: an error of Lamina's own names the file; nothing crashes, hangs or bloats."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.store import hostile_random
from tests.store.examine_hostile import CASES

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
SECONDS = 20
"""Processor time after which a case hangs; all of them together take a few seconds."""
PATIENCE = 600
"""Seconds after which a case hangs that does nothing: others may have the machine."""
HARMLESS = {
    "booleans_of_seven": "a byte that is not zero is true",
    "validity_of_seven": "a byte that is not zero is true",
    "open_twice": "it says who writes, not what is there",
    "create_in_a_log": "only that of commit 0 is read",
    "seal_path_up": "no reader needs a seal",
    "seal_length_overflowing": "no reader needs a seal",
    "layout_dtype_other": "blocks of checkpoints are checked by their CRC32C, not by their key",
    "frame_key_twice": "it is a `close` with two times, one of which counts",
    "commit_skipped_greatest": "what was skipped is for people",
    "commit_skipped_many": "what was skipped is for people",
    "commit_time_huge": "the time of a commit is for people",
    **dict.fromkeys(
        [
            *("commit_rewind_step_least", "commit_rewind_step_greatest", "commit_rewind_positions_greatest"),
            *("commit_rewind_positions_many", "commit_delete_site_unknown", "commit_delete_of_nothing"),
            *("commit_delete_spans_many", "commit_delete_spans_of_everything"),
            *("commit_discard_of_nothing", "commit_discard_of_what_is_not_there", "commit_discard_parts_many"),
            *("commit_discard_steps_many", "commit_discard_steps_backwards", "commit_discard_many"),
            *("commit_discard_positions_many", "commit_discard_positions_greatest"),
        ],
        "it hides what is not there",
    ),
    "commit_discard_of_everything": "who may write a commit may hide checkpoints",
    "discard_in_a_log": "it is read in commits alone",
    **{
        f"commit_{kind}_{what}": "who may write a commit may remove the run's rows; nothing else is removed"
        for kind in ("condemn", "drop")
        for what in ("of_what_is_outside", "of_many", "of_what_counts", "long_name")
    },
    **dict.fromkeys(
        ["replace_by_nothing", "replace_by_itself", "replace_by_itself_twice", "replace_old_numbers_many"],
        "who may write a commit may put rows out",
    ),
    "replace_new_commit_greatest": "the number is read in logs alone",
    "sparse_segment": "the file is longer than what counts",
    "sparse_pack": "the file is longer than what counts",
    "seal_far": "the rows lie there; `verify` finds that the header is none",
    "fence_greatest": "the log ends before",
    "fence_without_a_log": "there is nothing to close",
    "commit_dropped_in_a_commit": "it is read in logs alone",
    "dropped_greatest": "it is a count",
    "dropped_greatest_twice": "it is a count",
    "dropped_of_many": "it is a count",
    "replace_in_a_log": "it is read where the commit is damaged",
    "drop_in_a_log": "it is read in commits alone",
    "rewind_in_a_log": "it is read in commits alone",
    "many_saves": "the last one counts",
    "many_examples": "they are all one example",
    "sources_shift_far": "it is for people",
    "sources_many": "they are for people",
}
"""Cases that need not be noticed, and why."""


def verdicts_of(healthy: Path, folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Examines the cases in as many processes as crash or hang, and one."""
    found: dict[str, dict[str, Any]] = {}
    while left := [name for name in names if name not in found]:
        shutil.rmtree(folder / "run", ignore_errors=True)
        command = [sys.executable, "-m", "tests.store.examine_hostile", str(healthy), str(folder), *left]
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=out,
                stderr=err,
                env=os.environ
                | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0", "MALLOC_ARENA_MAX": "2"},
            )
            ended = _wait(process, folder / "out")
        lines = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
        assert lines, (folder / "err").read_text()
        found |= {line["case"]: line for line in lines if line["state"] == "done"}
        if lines[-1]["state"] == "begun":
            died = f"the process ended with {ended}: {(folder / 'err').read_text()[-500:]}"
            found[lines[-1]["case"]] = {"raised": died if ended is not None else "it hung"}
    return found


def _wait(process: subprocess.Popen[bytes], out: Path) -> int | None:
    """Waits as long as lines come; returns the exit status, or None if it had to be killed."""
    size, worked, since = -1, 0.0, 0.0
    while True:
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            now = processor_time(process.pid)
            if out.stat().st_size != size:
                size, worked, since = out.stat().st_size, now, time.monotonic()
            elif now - worked > SECONDS or time.monotonic() - since > PATIENCE:
                process.kill()
                process.wait()
                return None


def processor_time(process: int) -> float:
    """Seconds that a process has worked."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def verdicts(whole_small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    # memory where that can be had: what a disk does to syncs is no matter here
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path_factory.mktemp("hostile")) as folder:
        return verdicts_of(whole_small_run, Path(folder), list(CASES))


@pytest.mark.parametrize("name", [name for name in CASES if name not in hostile_random.CASES])
def test_a_hostile_run_is_refused_by_name(name: str, verdicts: dict[str, dict[str, Any]]) -> None:
    verdict = verdicts[name]
    assert verdict["raised"] is None
    assert not verdict["wrong"]
    assert not verdict["removed"]
    if name not in HARMLESS:
        assert verdict["notices"]
        assert not verdict["nameless"]


def test_no_random_change_of_a_record_crashes_or_harms_what_others_wrote(verdicts: dict[str, dict[str, Any]]) -> None:
    random = {name: verdicts[name] for name in hostile_random.CASES}
    assert {name: verdict["raised"] for name, verdict in random.items() if verdict["raised"]} == {}
    assert {name: verdict["wrong"] for name, verdict in random.items() if verdict["wrong"]} == {}
