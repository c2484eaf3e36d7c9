from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lamina


def test_checkpoints_are_listed(command: Callable, recorded: Path) -> None:
    done = command("checkpoints", recorded)
    lines = done.out.splitlines()
    assert (done.code, len(lines)) == (0, 5)
    assert lines[0].split() == ["step", "part", "tensors", "bytes", "stored"]
    assert lines[-1].split()[:3] == ["20", "model", "1"]
    done = command("checkpoints", recorded, "--step", "10")
    assert done.out.splitlines()[-1].split()[:6] == ["model", "weight", "2", "x", "2", "f32"]
    done = command("checkpoints", recorded, "--step", "11")
    assert (done.code, "no checkpoint at step 11" in done.err) == (1, True)


def test_several_runs_are_listed_one_after_the_other(command: Callable, several: Path) -> None:
    assert [line for line in command("checkpoints", several).out.splitlines() if "seed" in line] == ["seed-0", "seed-1"]


def test_what_would_be_hidden_is_shown_first(command: Callable, recorded: Path) -> None:
    rules = ["--last", "1", "--highest", "train/loss:1"]
    done = command("retain", recorded, *rules)
    assert done.code == 0
    assert "of 3 checkpoints (model) 2 stay; 16 bytes can be reclaimed" in done.out
    assert "goes, of model: 10" in done.out
    assert "Nothing was hidden; with --yes it is." in done.out
    assert lamina.open(recorded)._saved.steps() == [0, 10, 20]
    assert command("retain", recorded, *rules, "--yes").code == 0
    assert lamina.open(recorded)._saved.steps() == [0, 20]
    assert "all 2 checkpoints stay" in command("retain", recorded, *rules).out
    for arguments, message in {
        ("--last", "0"): "last=0",
        ("--lowest", "a:b"): "ends in no number",
        (): "no rule",
    }.items():
        done = command("retain", recorded, *arguments)
        assert (done.code, message in done.err) == (1, True), done.err
