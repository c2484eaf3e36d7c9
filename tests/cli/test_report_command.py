from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("altair", reason="needs lamina[report]")


def test_a_report_stands_beside_its_run(command: Callable, recorded: Path) -> None:
    done = command("report", recorded)
    assert done.code == 0
    assert done.out.strip() == str(recorded.with_name("one.html"))
    assert recorded.with_name("one.html").read_text().startswith("<!DOCTYPE html>")


def test_a_report_on_several_runs_stands_in_their_folder(command: Callable, several: Path) -> None:
    assert command("report", several).code == 0
    assert "2 runs in runs" in (several / "report.html").read_text()
    # The page is no run, and does not hinder the next question.
    assert command("info", several / "*").code == 0


def test_a_report_goes_where_it_is_told(command: Callable, recorded: Path, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "page.html"
    assert command("report", recorded, "-o", target).code == 0
    assert target.exists()
