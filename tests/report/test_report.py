from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamina
from lamina.errors import MissingExtraError, NotFoundError
from lamina.report import report
from tests.report.planted import reading

SECTIONS = [
    "The runs",
    "Metrics over steps",
    "What the last hidden layer sees",
    "How alike the layers are",
    "Size of the activations",
    "Change of the weights",
    "Checkpoints",
    "Which examples were learnt last",
    "What was stored",
]


def specs(text: str) -> dict[str, Any]:
    found = re.search(r"^const specs = (.*);$", text, re.MULTILINE)
    assert found is not None
    return json.loads(found.group(1))


def numbers(spec: dict[str, Any]) -> list[float]:
    """All numbers that a chart draws, in order of size."""
    cells = (cell for rows in spec["datasets"].values() for row in rows for cell in row.values())
    return sorted(cell for cell in cells if isinstance(cell, int | float))


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text.split("<script")[0])


def axes(spec: Any) -> list[dict[str, Any]]:
    """The x and y encodings of a chart, in all its layers and pictures; those of a band's edge stand for the line's."""
    if isinstance(spec, dict):
        own = [axis for name, axis in spec.get("encoding", {}).items() if name in ("x", "y")]
        return own + [axis for part in spec.values() for axis in axes(part)]
    return [axis for part in spec for axis in axes(part)] if isinstance(spec, list) else []


def test_several_runs_show_every_section(runs: list[lamina.Run], tmp_path: Path) -> None:
    text = report(runs, tmp_path / "report.html", progress=False).read_text()
    assert headings(text) == SECTIONS
    assert "Three groups drift apart." in text
    assert "mean of 2 runs" in text
    assert len(re.findall('<img src="data:image/png;base64,', text)) == 24


def test_one_run_and_runs_opened_together_are_taken_too(runs: list[lamina.Run], tmp_path: Path) -> None:
    one = report(runs[0], tmp_path / "one.html", progress=False).read_text()
    assert headings(one) == ["The run", *SECTIONS[1:]]
    assert "mean of" not in one
    both = report(lamina.open_runs(str(tmp_path / "runs" / "*")), tmp_path / "both.html", progress=False)
    assert headings(both.read_text()) == SECTIONS


def test_runs_with_other_sites_have_a_chapter_of_their_own(runs: list[lamina.Run], tmp_path: Path) -> None:
    alone = report(runs, tmp_path / "alone.html", progress=False).read_text()
    texts = reading(tmp_path / "texts")
    text = report([texts, *runs], tmp_path / "both.html", progress=False).read_text()
    assert re.findall('<h2 class="chapter" id=".*?">(.*?)</h2>', text) == ["texts", "seed-0, seed-1"]
    sections = re.findall("<h3>(.*?)</h3>", text.split("<script")[0])
    assert sections == ["The run", "How alike the layers are", "What was stored", *SECTIONS]
    # The other run changes nothing in what is shown of these.
    for mine, expected in zip(list(specs(text).values())[-11:], specs(alone).values(), strict=True):
        assert mine["title"] == expected["title"]
        np.testing.assert_allclose(numbers(mine), numbers(expected), rtol=1e-6, atol=1e-9)


def test_every_chart_has_a_title_and_axes_with_a_unit(runs: list[lamina.Run], tmp_path: Path) -> None:
    charts = specs(report(runs, tmp_path / "report.html", progress=False).read_text())
    assert len(charts) == 11
    for name, spec in charts.items():
        assert spec["title"]["text"], name
        titled = [axis["title"] for axis in axes(spec) if "title" in axis]
        assert titled, name
        assert all(re.search(r"\(.+\)$", title) for title in titled), (name, titled)


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "empty")
    text = report(run, tmp_path / "empty.html", progress=False).read_text()
    assert headings(text) == ["The run", "What was stored"]
    assert specs(text) == {}


@pytest.mark.filterwarnings("error")
def test_odd_runs_have_a_report(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "odd", config={"nested": {"a": {}}})
    with run.writer() as writer:
        for step in (3, 5):
            writer.append({"wide.output": np.full((1, 2, 3), np.nan, dtype=np.float32)}, step=step)
            writer.append({"loss": np.array([np.nan])}, step=step, example=[0])
            writer.log({"lonely": float("inf"), "lonely ü</script>": -1.0}, step=step)
        writer.save({"weights": {"w": np.zeros((2, 2))}}, step=3)
        writer.save({"weights": {"w": np.zeros((2, 2))}}, step=5)
    text = report(lamina.open(tmp_path / "odd"), tmp_path / "odd.html", progress=False).read_text()
    assert "Metrics over steps" in headings(text)


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no run"):
        report([], tmp_path / "report.html", progress=False)


@pytest.mark.parametrize("missing", ["altair", "vl_convert"])
def test_a_missing_extra_is_named(
    runs: list[lamina.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"lamina\[report\]"):
        report(runs, tmp_path / "report.html", progress=False)
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_block_costs_its_section_and_is_named(runs: list[lamina.Run], tmp_path: Path) -> None:
    (segment,) = (runs[0].path / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    rows = runs[0].activations("blocks.0.output", step=8).collect()["blocks.0.output"].to_numpy()
    data[data.index(rows.tobytes()) + 2] ^= 0x40
    segment.write_bytes(data)
    text = report(lamina.open(runs[0].path), tmp_path / "report.html", progress=False).read_text()
    assert "left out" in text
    assert segment.name in text
    assert headings(text) == ["The run", *(name for name in SECTIONS[1:] if name not in SECTIONS[2:5])]
