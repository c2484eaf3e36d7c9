from __future__ import annotations

from pathlib import Path

import numpy as np

import lamina
from lamina.report.kinds import kinds_of


def write(path: Path, *sites: str) -> lamina.Run:
    run = lamina.Run.create(path)
    with run.writer() as writer:
        if sites:
            writer.append({site: np.ones((2, 3), np.float32) for site in sites}, step=0)
    return lamina.open(path)


def names(kinds: list[list[lamina.Run]]) -> list[list[str]]:
    return [[run.name for run in kind] for kind in kinds]


def test_runs_are_of_one_kind_if_they_hold_the_same_sites(tmp_path: Path) -> None:
    runs = [write(tmp_path / "b", "x.output"), write(tmp_path / "a", "y.output"), write(tmp_path / "c", "x.output")]
    assert names(kinds_of(runs)) == [["b", "c"], ["a"]]


def test_a_run_that_was_interrupted_stands_with_the_others(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / "begun", "x.output"),
        write(tmp_path / "whole", "x.output", "loss"),
        write(tmp_path / "empty"),
        write(tmp_path / "other", "x.output", "y.output"),
    ]
    assert names(kinds_of(runs)) == [["begun", "whole", "empty"], ["other"]]


def test_sites_in_common_alone_make_no_kind(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", "output", "x.output"), write(tmp_path / "b", "output", "y.output")]
    assert names(kinds_of(runs)) == [["a"], ["b"]]


def test_runs_without_sites_are_of_one_kind(tmp_path: Path) -> None:
    assert names(kinds_of([write(tmp_path / "a"), write(tmp_path / "b")])) == [["a", "b"]]
