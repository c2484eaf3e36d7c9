"""The questions of docs/queries.md; `python -m tests.demo.asked runs/demo-001` writes the answers into the page."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import Any

import polars as pl

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"
_FOLDER = "runs/demo-001"
_QUESTION = re.compile(
    r"^## (?P<text>.*?)\n\n```python notest\n(?P<code>.*?)```\n(?P<answer>.*?)(?=^## |\Z)", re.M | re.S
)
_SETUP = re.compile(r"^```python notest\n(.*?)```\n", re.M | re.S)


def answers(folder: Path) -> dict[str, Any]:
    """Return what the page's questions answer on the runs in a folder, question by question."""
    page = PAGE.read_text()
    setup = _SETUP.search(page)
    assert setup is not None
    space: dict[str, Any] = {}
    exec(setup[1].replace(_FOLDER, str(folder)), space)
    found = {}
    for question in _QUESTION.finditer(page):
        exec(question["code"], space)
        found[question["text"]] = space.pop("answer")
    return found


def written(answer: Any) -> str:
    """Return an answer as Markdown: a frame as a table."""
    if not isinstance(answer, pl.DataFrame):
        return f"`{answer:.3g}`" if isinstance(answer, float) else f"`{answer}`"
    names = answer.columns
    rows = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell).replace("|", "\\|") for cell in row]
            for row in answer.rows()]  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])


def main() -> None:
    """Write the answers of the demo's runs in the folder that is named into the page."""
    found = answers(Path(sys.argv[1]))
    python = ".".join(platform.python_version_tuple()[:2])
    page = re.sub(r"(?<=Python\n)\S+(?=\. The tests)", python, PAGE.read_text())

    def asked(question: re.Match[str]) -> str:
        answer = written(found[question["text"]])
        return f"## {question['text']}\n\n```python notest\n{question['code']}```\n\n{answer}\n\n"

    PAGE.write_text(_QUESTION.sub(asked, page).rstrip() + "\n")


if __name__ == "__main__":
    main()
