from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import torch

from bench import paths, table
from bench.table import Table, slug, spread


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "SCRATCH", tmp_path / "scratch")
    return tmp_path / "results"


def small_table() -> Table:
    return Table(
        question="How fast?",
        columns=["case", "s", "note"],
        rows=[{"case": "a", "s": 0.123456}, {"case": "b", "s": 12345.6}],
        notes=["nothing is left out"],
        packages=["numpy", "no-such-package"],
        versions={"a-peer": "1.2"},
        samples={"a": [0.1]},
    )


def test_the_spread_is_median_least_quartiles_and_greatest():
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 1.0, 2.0, 4.0, 5.0)
    assert spread([5.0, 1.0]) == (3.0, 1.0, 2.0, 4.0, 5.0)
    assert spread([2.0]) == (2.0, 2.0, 2.0, 2.0, 2.0)


def test_a_table_says_what_was_measured_where_when_and_with_what(results, capsys):
    page = small_table().publish("speed")
    assert (results / "speed.md").read_text() == page == capsys.readouterr().out.removesuffix("\n")
    assert (
        "# How fast?\n\n| case | s | note |\n| --- | --- | --- |\n| a | 0.123 |  |\n| b | 12,346 |  |\n"
        "\n- nothing is left out\n"
    ) in page
    assert f"- date: {datetime.now(UTC).date().isoformat()}" in page
    assert "no-such-package from the source tree, a-peer 1.2" in page
    stored = json.loads((results / "speed.json").read_text())
    assert stored["rows"] == [{"case": "a", "s": 0.123456}, {"case": "b", "s": 12345.6}]
    assert stored["samples"] == {"a": [0.1]}
    assert set(stored["setting"]) == {"date", "processor", "memory", "file system", "kernel", "versions"}


def test_a_quick_run_prints_and_writes_nothing(results, capsys):
    small_table().publish("speed", quick=True)
    assert "| a | 0.123 |" in capsys.readouterr().out
    assert not results.exists()


def test_results_of_a_gpu_carry_its_name(results, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200 (SXM)")
    small_table().publish("speed", device="cuda")
    assert {path.name for path in results.iterdir()} == {"speed.nvidia-h200-sxm.md", "speed.nvidia-h200-sxm.json"}
    stored = json.loads((results / "speed.nvidia-h200-sxm.json").read_text())
    assert stored["setting"]["device"] == "NVIDIA H200 (SXM)"
    assert slug("A  b/c") == "a-b-c"
    assert "CUDA" in table.machine("cuda")
