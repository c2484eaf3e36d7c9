"""One flipped byte in each kind of file: it is named, and everything else still reads bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import lamina
from lamina.errors import DamagedError
from tests.store import forge, reader, small
from tests.store.small import OPEN, OPEN_LOG, PACK, SEALED, SEALED_LOG, Examined, examine

Copy = Callable[[], Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "run"
    small.make(path)
    return path


@pytest.fixture(scope="module")
def expected(whole: Path) -> Examined:
    found = examine(whole)
    assert not found.noticed
    return found


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole run, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def frame_start(run: Path, file: str, index: int) -> int:
    frames = forge.split((run / file).read_bytes())
    return sum(map(len, frames[:index] if index >= 0 else frames[: len(frames) + index]))


def assert_all_but(found: Examined, expected: Examined, lost: Iterable[tuple[Any, ...]] = ()) -> None:
    """Everything but these questions is answered as before; these are answered not at all."""
    wrong = {question for question, answer in expected.answers.items() if found.answers.get(question) != answer}
    assert wrong == set(lost)


def of_steps(*steps: int) -> set[tuple[Any, ...]]:
    return {question for question in small.QUESTIONS if question[0] in ("bits", "cells") and question[1] in steps}


def assert_strict_raises(run: Path, file: str) -> None:
    with pytest.raises(DamagedError) as caught:
        lamina.open(run, strict=True)
    assert caught.value.file == file


def test_opening_warns_of_damage_and_names_the_file(run: Path) -> None:
    flip(run / "run.json", 30)
    with pytest.warns(lamina.LaminaWarning, match=r"run\.json"):
        opened = lamina.open(run)
    assert [problem.file for problem in opened.problems] == ["run.json"]


def test_a_damaged_run_json_is_replaced_by_its_copy(run: Path, expected: Examined) -> None:
    flip(run / "run.json", 100)
    found = examine(run)
    assert_all_but(found, expected)
    assert {file for file, _ in found.places()} == {"run.json"}
    assert_strict_raises(run, "run.json")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_damaged_commit_loses_nothing(run: Path, expected: Examined, number: int) -> None:
    path = forge.commit_path(run, number)
    flip(path, 60)
    found = examine(run)
    assert_all_but(found, expected)
    assert {file for file, _ in found.places()} == {f"commits/{path.name}"}
    assert_strict_raises(run, f"commits/{path.name}")


def test_a_run_with_a_damaged_head_takes_new_columns(run: Path, expected: Examined) -> None:
    flip(forge.commit_path(run, 2), 60)
    with pytest.warns(lamina.LaminaWarning):
        opened = lamina.open(run)
    with opened.writer() as writer:
        writer.append({"new": small.np.ones((2, 2))}, step=9, fresh=1)
    found = examine(run)
    assert {file for file, _ in found.places()} == {f"commits/{forge.commit_path(run, 2).name}"}
    assert_all_but(found, expected, {("status",)} if found.answers["status",] != "abandoned" else ())
    with pytest.warns(lamina.LaminaWarning):
        assert lamina.open(run).activations("new").select("fresh").collect()["fresh"].to_list() == [1, 1]
    body = reader.cbor2.loads(forge.commit_path(run, 3).read_bytes()[12:-32])
    assert (body[1][0], body[2]) == (1, [2])


@pytest.mark.parametrize(
    ("index", "lost"),
    [
        (0, {("status",)}),  # `open`
        (1, of_steps(0)),
        (2, of_steps(1)),
        (3, {("metrics",)}),
        (5, {("examples",)}),
        (6, {("load", 0), ("load", 1)}),  # the later one names a layout that stood there
        (-1, {("status",)}),  # `seal` and `close`
    ],
)
def test_a_damaged_frame_loses_what_it_held(run: Path, expected: Examined, index: int, lost: set) -> None:
    start = frame_start(run, SEALED_LOG, index)
    flip(run / SEALED_LOG, start + 70)
    found = examine(run)
    assert (SEALED_LOG, start) in found.places()
    assert {
        question for question in small.QUESTIONS if found.answers.get(question) != expected.answers[question]
    } <= lost
    assert_strict_raises(run, SEALED_LOG)


def test_a_damaged_tail_of_a_log_loses_what_it_held(run: Path, expected: Examined) -> None:
    start = frame_start(run, OPEN_LOG, -1)
    flip(run / OPEN_LOG, start + 70)
    found = examine(run)
    assert (OPEN_LOG, start) in found.places()
    assert_all_but(found, expected, of_steps(3))
    assert_strict_raises(run, OPEN_LOG)


@pytest.mark.parametrize(("file", "step"), [(SEALED, 0), (SEALED, 1), (OPEN, 2), (OPEN, 3)])
def test_a_damaged_block_fails_when_it_is_read_and_no_other(
    run: Path, expected: Examined, file: str, step: int
) -> None:
    group = next(group for group in reader.read(run).groups if group.columns.get("step") == [step] * 4)
    for part in group.record[7]:
        flip(run / file, part[2] + part[3] // 2)
        lost = {("bits", step, small.SITES[part[1]])} if part[0] == 0 else {("cells", step)}
        found = examine(run)
        assert not found.problems
        assert_all_but(found, expected, lost)
        assert {type(error) for error in found.errors.values()} == {DamagedError}
        assert {file for file, _ in found.places()} == {file}
        assert all(part[2] <= (offset or 0) < part[2] + part[3] for _, offset in found.places())
        flip(run / file, part[2] + part[3] // 2)
    assert not examine(run).noticed


def test_a_damaged_chunk_fails_when_it_is_loaded_and_no_other(run: Path, expected: Examined) -> None:
    flip(run / PACK, 30)
    found = examine(run)
    assert_all_but(found, expected, {("load", 1)})
    error = found.errors["load", 1]
    assert isinstance(error, DamagedError)
    assert (error.file, error.offset) == (PACK, 24)


def test_a_damaged_header_of_a_segment_changes_no_answer(run: Path, expected: Examined) -> None:
    for at in (0, 9, 200, 1 << 19, -1):
        flip(run / SEALED, at)
        assert_all_but(examine(run), expected)


@pytest.mark.parametrize("file", ["run.json", *(f"commit {number}" for number in range(3)), SEALED_LOG, OPEN_LOG])
def test_every_flipped_byte_is_noticed_and_no_answer_is_wrong(run: Path, expected: Examined, file: str) -> None:
    path = forge.commit_path(run, int(file[-1])) if file.startswith("commit ") else run / file
    name = path.relative_to(run).as_posix()
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        assert_strict_raises(run, name)
        if at % 11 == 0:  # asking everything takes a hundred times as long as opening
            found = examine(run)
            assert name in {file for file, _ in found.places()}, at
            assert_nothing_wrong(found, expected)


def assert_nothing_wrong(found: Examined, expected: Examined) -> None:
    """Answers may be missing, and lists of metrics shorter; what is there is as it was."""
    for question, answer in found.answers.items():
        if question == ("metrics",):
            assert [row for row in expected.answers[question] if row in answer] == answer
        elif question[0] not in ("status", "examples"):
            assert answer == expected.answers[question], question
