from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_commands_of_the_readme_answer(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert block is not None
    exec(compile(block.group(1), "README.md", "exec"), {})
    commands = re.findall(r"^lamina (.+)$", README, re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["info", "query", "report"]
    for line in commands:
        done = command(*shlex.split(line))
        assert done.code == 0, done.err
        assert done.out.strip()


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert any(link.endswith(".png") for link in links)
    missing = [link for link in links if not (Path(__file__).parents[2] / link).exists()]
    assert not missing
