"""Notes, attachments, the version: what is said of a run, and of Lamina."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lamina


def test_a_note_is_shown_and_asked_for(recorded: Path, command: Callable) -> None:
    assert "notes" not in command("info", recorded).out
    assert command("note", recorded, "the [bold]labels[/bold] were shuffled", "--step", "10") == (0, "", "")
    shown = command("info", recorded).out
    assert "notes" in shown
    assert "the [bold]labels[/bold] were shuffled" in shown
    assert "shuffled" in command("query", recorded, "SELECT text FROM notes WHERE step = 10").out
    done = command("note", recorded, "")
    assert (done.code, done.out) == (1, "")
    assert "a note of ''" in done.err


def test_a_file_is_attached_and_written_again(recorded: Path, command: Callable, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"{}\xff")
    assert command("attach", recorded, tmp_path / "tokenizer.json") == (0, "", "")
    assert command("attach", recorded, tmp_path / "tokenizer.json", "--name", "other").code == 0
    assert "tokenizer.json" in command("info", recorded).out
    assert command("attachment", recorded, "tokenizer.json", "-o", tmp_path / "again").code == 0
    assert (tmp_path / "again").read_bytes() == b"{}\xff"
    assert "cannot be written" in command("attachment", recorded, "other", "-o", tmp_path / "again").err
    assert "tokenizer.json" in command("attachment", recorded, "tokenizer", "-o", tmp_path / "new").err
    assert "is no file" in command("attach", recorded, tmp_path / "missing").err
    lamina.open(recorded).attach("direction", np.ones(3))
    assert "run.attachment(name)" in command("attachment", recorded, "direction", "-o", tmp_path / "new").err
    assert not (tmp_path / "new").exists()


def test_a_folder_of_runs_is_not_one(several: Path, command: Callable) -> None:
    assert "name one of them" in command("note", several, "x").err


def test_version(command: Callable) -> None:
    assert command("--version") == (0, f"lamina {lamina.__version__}\n", "")


def test_retain_speaks_of_its_own_options(recorded: Path, command: Callable) -> None:
    done = command("retain", recorded)
    assert done.code == 1
    assert "--every" in done.err
    assert "every=" not in done.err


def test_the_home_folder(recorded: Path, command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(recorded.parent))
    assert "status" in command("info", "~/one").out
    assert command("copy", "~/one", "~/two").code == 0
    assert lamina.Run.create("~/three").path == recorded.parent / "three"
    assert sorted(name for name, _ in lamina.open_runs("~/*").items()) == ["one", "three", "two"]
    assert lamina.merge(["~/one", "~/three"], "~/all", config={}).path.parent == recorded.parent
    assert (recorded.parent / "all").is_dir()


def test_why_a_run_failed_is_listed(tmp_path: Path, command: Callable) -> None:
    run = lamina.Run.create(tmp_path / "runs" / "broken")
    with run.writer() as writer:
        writer.log({"loss": 1.0}, step=0)
        writer.close(RuntimeError("CUDA out of\nmemory"))
    said = "failed (RuntimeError('CUDA out of\\nmemory'))"
    assert str(run.refresh()) == f"Run({str(run.path)!r}, {said}, 0 sites)"
    assert "CUDA out of" in command("info", tmp_path / "runs").out
