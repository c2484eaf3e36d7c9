"""The commands that keep a run."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lamina


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


def test_delete_rewind_and_compact_say_what_they_did(recorded: Path, command: Callable) -> None:
    assert command("delete", recorded, "--yes", "--steps", "10", "--site", "loss").out == "one: 4 values deleted\n"
    assert command("delete", recorded, "--yes", "--rows", "4:5", "--rows", "7").out == "one: 6 values deleted\n"
    done = command("rewind", recorded, 20, "--yes")
    behind, went = done.out.splitlines()
    assert behind == "one: behind step 20: rows of 1 of 3 steps, 0 of 3 checkpoints"
    assert went == "one: went back to step 20; hidden: 8 values, 2 of metrics, 0 checkpoints"
    done = command("compact", recorded)
    assert done.code == 0
    assert "7 hidden rows are gone" in done.out
    run = lamina.open(recorded)
    assert run.steps() == [0, 10]
    assert run.activations("loss").collect()["row"].to_list() == [6]
    assert command("compact", recorded).out == "one: nothing to compact\n"


def test_nothing_is_hidden_before_somebody_says_so(
    recorded: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (("rewind", recorded, "--", -1), ("delete", recorded, "--steps", "0:20")):
        monkeypatch.setattr("sys.stdin", io.StringIO())
        done = command(*arguments)
        assert (done.code, "nobody is there" in done.err, "--yes" in done.err) == (1, True, True)
        for answer, hides in (("n", False), ("y", True)):
            terminal = io.StringIO(f"{answer}\n")
            monkeypatch.setattr(terminal, "isatty", lambda: True)
            monkeypatch.setattr("sys.stdin", terminal)
            run = lamina.open(recorded)
            steps = run.steps()
            done = command(*arguments)
            assert done.code == 0
            assert run.refresh().steps() == ([] if hides else steps)
        run.refresh()
        if arguments[0] == "rewind":
            assert "there is no checkpoint of step -1" in done.out
            with run.writer() as writer:
                writer.append({"loss": np.ones(4, np.float32)}, step=0, example=np.arange(4))


def test_gc_says_what_was_condemned_removed_and_left(recorded: Path, command: Callable) -> None:
    assert command("gc", recorded).out == "one: nothing to collect\n"
    assert command("delete", recorded, "--yes", "--steps", "0:1000").code == 0
    assert command("compact", recorded).code == 0
    done = command("gc", recorded)
    assert done.code == 0
    # the pack was condemned by the compaction, when its chunks stood coded in another
    assert all(text in done.out for text in ("1 file condemned", "left: 2 files", "its grace ends in"))
    assert "2 files removed (" in command("gc", recorded, "--grace", 0).out
    assert [path.name for path in (recorded / "segments").iterdir()] == ["000001-000000.safetensors"]
    assert command("gc", recorded, "--grace", -1).code == 1


def test_index_builds_and_lists(recorded: Path, command: Callable) -> None:
    assert command("index", recorded).out == "one: no sparse codes\n"
    run = lamina.open(recorded)
    for _ in range(2):
        with run.writer() as writer:
            writer.features("sae", np.eye(4, dtype=np.float32), threshold=0, step=40)
    assert "indexes" not in command("info", recorded).out
    done = command("index", recorded, "--site", "s*")
    assert done.code == 0
    assert "one: 2 segments indexed (" in done.out
    assert done.out.count("missing") == 2
    assert "one: 2 segments ready before\n" in command("index", recorded).out
    assert "indexes" in command("info", recorded).out
    done = command("index", recorded, "--site", "loss")
    assert done.code == 1
    assert "no sparse codes" in done.err


def test_copy_and_merge_say_what_the_new_run_holds(
    recorded: Path, several: Path, tmp_path: Path, command: Callable
) -> None:
    done = command("copy", recorded, tmp_path / "deep" / "copy")
    assert (done.code, done.err) == (0, "")
    assert "copy: " in done.out
    assert lamina.open(tmp_path / "deep" / "copy").steps() == lamina.open(recorded).steps()
    again = command("copy", recorded, tmp_path / "deep" / "copy")
    assert again.code == 1
    assert "already exists" in again.err
    done = command("merge", tmp_path / "same", several)
    assert (done.code, lamina.open(tmp_path / "same").config["lr"]) == (0, 0.1)
    done = command("merge", tmp_path / "all", several, "--config", '{"nodes": 2}')
    assert (done.code, done.err) == (0, "")
    assert "row_shift" in done.out
    assert lamina.open(tmp_path / "all").config == {"nodes": 2}
    assert lamina.open(tmp_path / "all").sources().height == 2
    assert "no JSON" in command("merge", tmp_path / "b", several, "--config", "{").err
    assert command("copy", several, tmp_path / "c").code == 1


def test_a_span_that_is_none_is_refused(recorded: Path, command: Callable) -> None:
    for options, message in {
        ("--steps", "1:2:3"): "FIRST:LAST",
        ("--steps", "20:10"): "--steps 20:10 ends before it begins",
        ("--rows", "5:4"): "--rows 5:4 ends before it begins",
        ("--steps", "11"): "no rows at step 11",
        (): "nothing says what to delete",
    }.items():
        done = command("delete", recorded, "--yes", *options)
        assert (done.code, message in done.err) == (1, True), done.err
    assert lamina.open(recorded).sites()["rows"].to_list() == [12, 12]


def test_all_that_a_writer_could_write_is_one_span(recorded: Path, command: Callable) -> None:
    """A list of its names would be of 2^40."""
    assert command("delete", recorded, "--yes", "--rows", f"0:{(1 << 40) - 1}").out == "one: 24 values deleted\n"
    assert lamina.open(recorded).steps() == []
