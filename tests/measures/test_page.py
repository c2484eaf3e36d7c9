"""The page of measures is written from the register."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

from tests.measures.test_registered import NAMES

ROOT = Path(__file__).parents[2]


def test_every_measure_has_a_row_and_a_section() -> None:
    spec = importlib.util.spec_from_file_location("hooks_measures", ROOT / "docs/hooks/measures.py")
    assert spec
    assert spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    source = (ROOT / "docs/measures.md").read_text()
    page = SimpleNamespace(file=SimpleNamespace(src_uri="measures.md"))
    written = hook.on_page_markdown(source, page=page, config=None, files=None)
    for name in NAMES:
        assert f"| `{name}` |" in written
        assert f"::: lamina.{name}" in written
