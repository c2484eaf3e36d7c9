from __future__ import annotations

from pathlib import Path

import pytest

from lamina.report import layers
from lamina.report.layers import layers_section
from lamina.report.section import Picture
from tests.faults import broken
from tests.report.planted import reading, training
from tests.report.test_similarity import cell, data, title


def drawn(path: Path, **options: int) -> tuple[Picture, Picture]:
    section = layers_section([reading(path, **options)])
    assert section is not None
    matrix, chain = section.parts
    assert isinstance(matrix, Picture)
    assert isinstance(chain, Picture)
    return matrix, chain


def test_what_topics_have_in_common_is_not_taken_for_similarity(tmp_path: Path) -> None:
    matrix, chain = drawn(tmp_path / "run")
    frame = data(matrix)
    assert cell(frame, "b.output", "c.output") == pytest.approx(1, abs=1e-4)
    apart = frame.filter(row="a.output", column="b.output")
    assert abs(apart["value"].item()) < 2 * apart["error"].item()
    assert 0.02 < apart["error"].item() < 0.3
    assert "one topic" in matrix.reading
    assert "240 rows in 12 groups" in title(matrix, "subtitle")
    steps = data(chain)
    assert steps["name"].to_list() == ["b.output", "c.output"]
    assert steps["value"].to_list() == [cell(frame, "a.output", "b.output"), cell(frame, "b.output", "c.output")]


def test_rows_that_are_taken_for_independent_are_noticed(tmp_path: Path) -> None:
    with broken("layers_take_rows_for_independent"), pytest.raises(AssertionError):
        test_what_topics_have_in_common_is_not_taken_for_similarity(tmp_path)


def test_many_rows_are_sampled_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_ROWS", 100)
    monkeypatch.setattr(layers, "_WORK", 0)
    for picture in drawn(tmp_path / "run"):
        assert "96 rows in 12 groups" in title(picture, "subtitle")
    assert "Of 240 rows, 96 were compared." in drawn(tmp_path / "again")[0].reading


def test_a_training_run_has_no_section_of_a_single_pass(tmp_path: Path) -> None:
    assert layers_section([training(tmp_path / "run", seed=0)]) is None


def test_too_few_groups_have_no_section(tmp_path: Path) -> None:
    assert layers_section([reading(tmp_path / "run", groups=3)]) is None
