from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import DamagedError


def test_help_names_the_commands(command: Callable) -> None:
    done = command("--help")
    assert done.code == 0
    assert all(name in done.out for name in ("demo", "info", "query", "report"))


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["info"], ["query", "x"], ["demo", "--seeds", "0"], ["info", "x", "--no"]]
)
def test_wrong_usage_exits_with_2(command: Callable, arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_an_error_shows_message_place_and_hint(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: str) -> None:
        raise DamagedError("a checksum differs", "segments/0-1.safetensors", 4096, "restore it from a copy")

    monkeypatch.setattr("lamina.cli.target.open_target", fail)
    done = command("info", "x")
    assert done.code == 1
    assert done.err == "error: a checksum differs [segments/0-1.safetensors, byte 4096]\nhint: restore it from a copy\n"


def test_ctrl_c_ends_calmly_with_130(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lamina.demo.demo", interrupted)
    done = command("demo")
    assert done.code == 130
    assert "opens" in done.err
    assert "Traceback" not in done.err


def test_questions_do_not_import_torch_or_altair(recorded: Path) -> None:
    code = (
        "import sys; from lamina.cli.app import app\n"
        "app(standalone_mode=False)\n"
        "heavy = {'torch', 'altair', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for arguments in (["info", str(recorded)], ["query", str(recorded), "select * from activations"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_reader_that_closes_the_pipe_is_no_error(recorded: Path) -> None:
    sql = "select * from metrics cross join activations"
    command = f'"{sys.executable}" -m lamina.cli query "{recorded}" "{sql}" --json | head -n 1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
