from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

import lamina
from lamina.report import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
]


def browse(page: Path, profile: Path, *switches: str) -> subprocess.CompletedProcess[str]:
    browser = next(found for name in BROWSERS if (found := shutil.which(name)))
    command = [browser, *SWITCHES, f"--user-data-dir={profile}", *switches, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)


def lines(picture: Path) -> bytes:
    """The pixels of a PNG as they were packed: differences to their neighbors, so that plain areas are zeros."""
    data, place, packed = picture.read_bytes(), 8, b""
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            packed += data[place + 8 : place + 8 + length]
        place += 12 + length
    return zlib.decompress(packed)


@pytest.mark.chromium
def test_the_page_draws_every_chart_and_logs_no_error(runs: list[lamina.Run], tmp_path: Path) -> None:
    page = report(runs, tmp_path / "report.html", progress=False)
    drawn = browse(page, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in drawn.stderr, drawn.stderr
    charts = re.findall(r'<div class="chart[^>]* id="(chart-\d+)".*?</figure>', drawn.stdout, re.DOTALL)
    svgs = re.findall(r"<svg .*?</svg>", drawn.stdout, re.DOTALL)
    assert len(charts) == 11
    assert sum("mark-" in svg for svg in svgs) == 11


@pytest.mark.chromium
def test_a_screenshot_is_not_blank(runs: list[lamina.Run], tmp_path: Path) -> None:
    page = report(runs, tmp_path / "report.html", progress=False)
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><title>nothing</title>")
    ink = {}
    for path in (page, blank):
        picture = path.with_suffix(".png")
        browse(path, tmp_path / "profile", "--window-size=900,2000", f"--screenshot={picture}")
        ink[path.name] = sum(byte != 0 for byte in lines(picture))
    assert ink["blank.html"] < 10_000 < 50_000 < ink["report.html"]
