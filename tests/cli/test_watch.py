"""`lamina info --watch` follows a run that grows, and ends with it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import lamina
from lamina.cli import watch


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> lamina.Run:
    """A run that gets four rows while the first pause lasts and is closed in the second."""
    run = lamina.Run.create(tmp_path / "grown")
    writer = run.writer()
    turns = iter(
        [
            lambda: writer.append({"mlp.output": np.ones((4, 2), np.float32)}, step=7).wait(),
            lambda: (writer.log({"loss": 0.25}, step=8), writer.close()),
        ]
    )
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(turns)())
    return run.refresh()


def test_a_pipe_gets_a_line_a_change_until_the_run_is_finished(growing: lamina.Run) -> None:
    text = io.StringIO()
    watch.watch_run(growing, Console(file=text, width=200))
    first, second, last = text.getvalue().splitlines()
    assert "running, 1 of 1 writers at work, 0 rows" in first
    assert "4 rows in 1 site," in second
    assert "step 7" in second
    assert "finished, 0 of 1 writers at work, 4 rows" in last


def test_a_terminal_sees_sites_and_last_metrics(growing: lamina.Run) -> None:
    text = io.StringIO()
    watch.watch_run(growing, Console(file=text, width=200, force_terminal=True))
    for shown in ("mlp.output", "loss", "0.25", "finished"):
        assert shown in text.getvalue()


def test_ctrl_c_ends_it_quietly(recorded: Path, command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    with lamina.open(recorded).writer():
        done = command("info", recorded, "--watch")
    assert (done.code, done.err) == (0, "")
    assert "running" in done.out


def test_several_runs_are_refused(several: Path, command: Callable) -> None:
    done = command("info", several, "--watch")
    assert done.code == 1
    assert "name one of them" in done.err
