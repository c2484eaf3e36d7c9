"""A run of a newer format, or with features that this Lamina does not know, is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lamina
from lamina import _core
from lamina.errors import FormatError, LaminaError, NotARunError
from tests.store import forge, small
from tests.store.small import SEALED_LOG, examine

OPENERS: list[Callable[[Path], object]] = [
    lamina.open,
    lambda path: lamina.open(path, strict=True),
    lambda path: lamina.open_runs([path]),
    lambda path: _core.Writer(str(path)),
]


@pytest.fixture(params=OPENERS, ids=["open", "strict", "open_runs", "writer"])
def opener(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return request.param


def add_need(number: int, *needs: str) -> Callable[[int, dict[int, Any]], None]:
    def change(found: int, body: dict[int, Any]) -> None:
        if found == number:
            body[5] = list(needs)

    return change


@pytest.mark.parametrize("version", [2, 7, 2**63])
def test_a_newer_version_is_refused(small_run: Path, opener: Callable, version: int) -> None:
    forge.rewrite_run(small_run, version=version)
    with pytest.raises(FormatError, match=rf"\b{version}\b") as caught:
        opener(small_run)
    assert caught.value.file == "run.json"


def test_a_newer_version_may_hold_what_this_one_does_not_understand(small_run: Path) -> None:
    forge.rewrite_run(small_run, version=2, config="no object any more", shards=[1, 2])
    with pytest.raises(FormatError, match=r"\b2\b"):
        lamina.open(small_run)


def test_needs_of_the_run_are_refused_by_name(small_run: Path, opener: Callable) -> None:
    forge.rewrite_run(small_run, needs=["planes"])
    with pytest.raises(FormatError, match="planes") as caught:
        opener(small_run)
    assert caught.value.file == "run.json"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_needs_of_a_commit_are_refused_by_name(small_run: Path, opener: Callable, number: int) -> None:
    forge.rewrite_commits(small_run, add_need(number, "rewind"))
    with pytest.raises(FormatError, match="rewind") as caught:
        opener(small_run)
    assert caught.value.file == f"commits/{forge.commit_path(small_run, number).name}"


def test_needs_are_refused_though_the_commit_holds_unknown_operations(small_run: Path) -> None:
    def change(number: int, body: dict[int, Any]) -> None:
        if number == 2:
            body[5], body[6] = ["something-new"], [[42, {0: {"any": ["thing"]}}]]

    forge.rewrite_commits(small_run, change)
    with pytest.raises(FormatError, match="something-new"):
        lamina.open(small_run)


def test_an_unknown_operation_names_the_newer_lamina(small_run: Path) -> None:
    forge.rewrite_log(small_run, lambda frames: frames[1].append([42, {0: "x"}]))
    with pytest.raises(FormatError, match="newer Lamina") as caught:
        lamina.open(small_run)
    assert caught.value.file == SEALED_LOG
    assert "42" in str(caught.value)


def test_unknown_keys_are_skipped(small_run: Path, expected: small.Examined) -> None:
    def extend(value: Any) -> None:
        for _, record in value:
            if record and set(record) != {0}:
                record[77] = {"new": [1, 2.5, None, b"bytes", {"deep": [True]}]}
                for item in (item for field in record.values() if isinstance(field, list) for item in field):
                    if isinstance(item, dict):
                        item[88] = [[["nested"]]]

    for name in ("000000.0000", "000001.0000"):
        forge.rewrite_log(small_run, lambda frames: extend([one for frame in frames for one in frame]), name=name)

    def change(number: int, body: dict[int, Any]) -> None:
        extend(body[6])
        body[77] = "new"

    forge.rewrite_commits(small_run, change)
    found = examine(small_run)
    assert not found.noticed
    assert found.answers == expected.answers


def test_unknown_members_of_run_json_are_skipped(small_run: Path, expected: small.Examined) -> None:
    forge.rewrite_run(small_run, comment={"anything": [1, None]})
    found = examine(small_run)
    assert not found.noticed
    assert found.answers == expected.answers


@pytest.mark.parametrize("content", [None, {}, {"notes.txt": b"hello"}, {"run.json": b"{}\n"}, {"run.json": b""}])
def test_what_is_no_run_says_so(tmp_path: Path, content: dict[str, bytes] | None) -> None:
    path = tmp_path / "folder"
    if content is not None:
        path.mkdir()
        for name, data in content.items():
            (path / name).write_bytes(data)
    with pytest.raises(NotARunError):
        lamina.open(path)


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    with pytest.raises(LaminaError):
        lamina.open(tmp_path / "file")
    with pytest.raises(NotARunError):
        lamina.Run.create(tmp_path / "file")
