"""The commands that keep a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_verify_lists_problems_and_says_by_its_code_whether_there_are_any(recorded: Path, command: Callable) -> None:
    done = command("verify", recorded)
    assert (done.code, done.err) == (0, "")
    assert "no problems" in done.out
    (segment,) = (recorded / "segments").iterdir()
    flip(segment, 1 << 20)
    done = command("verify", recorded)
    assert done.code == 1
    assert all(text in done.out for text in ("1 problem", segment.name, 'column "example", rows 0 to 3'))


def test_verify_checks_every_run_of_a_folder(several: Path, command: Callable) -> None:
    assert command("verify", several).out.count("no problems") == 2
