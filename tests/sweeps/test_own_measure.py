"""The measure of docs/measures.md, in a file of its own outside of the package, works in a sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lamina
from tests.sweeps.conftest import make

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file that the page asks for: its example up to where it is tried out."""
    (block,) = [each for each in (ROOT / "docs/measures.md").read_text().split("```") if "@measure(\n" in each]
    code = block.removeprefix("python\n").partition("\n\n\nx = ")[0]
    assert len(code.splitlines()) < 40
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "cosines.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "own")
    import cosines  # type: ignore[import-not-found]

    yield cosines
    from lamina.measures import registry

    registry._registered.pop("example.mean_cosine")
    sys.modules.pop("cosines")


def test_it_is_swept_like_any_other(own: ModuleType, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    frame = lamina.sweep(own.mean_cosine, run, options={"groups": "topic"})
    assert frame.height == 6, "declared symmetric: each pair once"
    row = frame.row(0, named=True)
    expected = own.mean_cosine(*(run.rows(row[f"site_{side}"], step=0) for side in "ab"), groups="topic")
    assert (row["value"], row["stderr"], row["n_groups"]) == (expected.value, expected.stderr, 8)
    assert row["measure"] == "mean_cosine"
    assert list(run.path.glob("cache/example.mean_cosine-*/*.jsonl"))
    assert "example.mean_cosine" in lamina.list_measures()["name"].to_list()
