from __future__ import annotations

import json

from bench import harness


def test_cases_take_turns_and_keep_their_phases():
    order: list[str] = []

    def case(name: str) -> dict[str, float]:
        order.append(name)
        return {"work": float(len(order)), "close": 0.5}

    seconds = harness.interleave({name: lambda name=name: case(name) for name in "ab"}, 2, "turns")
    assert order == ["a", "b", "a", "b"]
    assert seconds == {
        "a": {"work": [1.0, 3.0], "close": [0.5, 0.5]},
        "b": {"work": [2.0, 4.0], "close": [0.5, 0.5]},
    }


def test_the_spread_is_median_least_and_greatest():
    assert harness.spread([5.0, 1.0, 2.0]) == (2.0, 1.0, 5.0)


def test_a_table_says_what_was_measured_where_and_with_what(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "SCRATCH", tmp_path / "scratch")
    table = harness.Table(
        question="How fast?",
        columns=["case", "s", "note"],
        rows=[{"case": "a", "s": 0.123456}],
        notes=["nothing is left out"],
        packages=["numpy", "no-such-package"],
        samples={"a": [0.1]},
    )
    text = table.write("speed").read_text()
    assert (
        "# How fast?\n\n| case | s | note |\n| --- | --- | --- |\n| a | 0.123 |  |\n\n- nothing is left out\n" in text
    )
    assert "no-such-package from the source tree" in text
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert stored["rows"] == [{"case": "a", "s": 0.123456}]
    assert stored["samples"] == {"a": [0.1]}
    assert set(stored["setting"]) == {"date", "processor", "memory", "file system", "kernel", "versions"}
