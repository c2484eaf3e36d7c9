from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_info_shows_what_a_run_holds(command: Callable, recorded: Path) -> None:
    done = command("info", recorded)
    assert done.code == 0
    for text in ("finished", "config lr", "config optimizer.name", "0, 10, 20", "mlp.output", "f32", "train/loss",
                 "model", "label", "on disk"):  # fmt: skip
        assert text in done.out, text


def test_info_shows_the_last_value_of_each_metric(command: Callable, recorded: Path) -> None:
    (line,) = [line for line in command("info", recorded).out.splitlines() if line.startswith("train/loss")]
    assert line.split()[-2:] == ["20", "0.04762"]


def test_info_of_a_folder_of_runs_is_a_line_a_run(command: Callable, several: Path) -> None:
    lines = command("info", several).out.splitlines()
    assert [line.split()[0] for line in lines if "finished" in line] == ["seed-0", "seed-1"]


@pytest.mark.parametrize("arguments", [("info",), ("query",), ("report",)])
def test_what_is_no_run_is_one_line_on_standard_error(command: Callable, tmp_path: Path, arguments: tuple[str]) -> None:
    sql = ["select 1"] if arguments == ("query",) else []
    for target in (tmp_path, tmp_path / "missing", tmp_path / "none*"):
        done = command(*arguments, target, *sql)
        assert done.code == 1
        assert done.out == ""
        assert done.err.startswith("error: ")
        assert "Traceback" not in done.err


def test_damage_is_told_once(command: Callable, recorded: Path) -> None:
    (log,) = (recorded / "logs").iterdir()
    data = bytearray(log.read_bytes())
    data[200] ^= 1
    log.write_bytes(data)
    done = command("info", recorded)
    assert done.code == 0
    assert done.out.count("problem: ") == 1
    assert log.name in done.out
    assert done.err == ""
    done = command("query", recorded, "select count(*) as n from metrics")
    assert done.code == 0
    assert done.err.startswith("warning: one: ")
