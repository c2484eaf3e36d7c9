"""One flipped byte in each kind of file: it is named, and everything else still reads bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina.errors import DamagedError, SchemaError
from tests.store import forge, reader, small
from tests.store.small import (
    OPEN,
    OPEN_LOG,
    PACK,
    SEALED,
    SEALED_LOG,
    Examined,
    assert_all_but,
    assert_nothing_wrong,
    examine,
    of_steps,
)


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def frame_start(small_run: Path, file: str, index: int) -> int:
    frames = forge.split((small_run / file).read_bytes())
    return sum(map(len, frames[:index] if index >= 0 else frames[: len(frames) + index]))


def assert_strict_raises(small_run: Path, file: str) -> None:
    with pytest.raises(DamagedError) as caught:
        lamina.open(small_run, strict=True)
    assert caught.value.file == file


def test_opening_warns_of_damage_and_names_the_file(small_run: Path) -> None:
    flip(small_run / "run.json", 30)
    with pytest.warns(lamina.LaminaWarning, match=r"run\.json"):
        opened = lamina.open(small_run)
    assert [problem.file for problem in opened.problems] == ["run.json"]


def test_a_damaged_run_json_is_replaced_by_its_copy(small_run: Path, expected: Examined) -> None:
    flip(small_run / "run.json", 100)
    found = examine(small_run)
    assert_all_but(found, expected)
    assert {file for file, _ in found.places()} == {"run.json"}
    assert_strict_raises(small_run, "run.json")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_damaged_commit_loses_nothing(small_run: Path, expected: Examined, number: int) -> None:
    path = forge.commit_path(small_run, number)
    flip(path, 60)
    found = examine(small_run)
    assert_all_but(found, expected)
    assert {file for file, _ in found.places()} == {f"commits/{path.name}"}
    assert_strict_raises(small_run, f"commits/{path.name}")


def test_a_run_with_a_damaged_head_takes_new_columns(small_run: Path, expected: Examined) -> None:
    flip(forge.commit_path(small_run, 2), 60)
    with pytest.warns(lamina.LaminaWarning):
        opened = lamina.open(small_run)
    with opened.writer() as writer:
        writer.append({"new": np.ones((2, 2))}, step=9, fresh=1)
    found = examine(small_run)
    assert {file for file, _ in found.places()} == {f"commits/{forge.commit_path(small_run, 2).name}"}
    assert_all_but(found, expected, small.SUMMARIES)
    with pytest.warns(lamina.LaminaWarning):
        assert lamina.open(small_run).activations("new").select("fresh").collect()["fresh"].to_list() == [1, 1]
    body = reader.cbor2.loads(forge.commit_path(small_run, 3).read_bytes()[12:-32])
    assert (body[1][0], body[2]) == (1, [2])


@pytest.mark.parametrize("damaged", [(2,), (1, 2), (0, 1, 2)])
def test_a_writer_behind_damaged_commits_knows_what_the_logs_declare(small_run: Path, damaged: tuple[int]) -> None:
    for number in damaged:
        flip(forge.commit_path(small_run, number), 60)
    with pytest.warns(lamina.LaminaWarning):
        opened = lamina.open(small_run)
    with opened.writer() as writer:
        with pytest.raises(SchemaError, match="wide"):
            writer.append({"wide": np.ones((2, 3))}, step=9)
        with pytest.raises(SchemaError, match="label"):
            writer.append({"loss": np.ones(2)}, step=9, label=7)
        writer.append({"wide": np.full((1, 3), 7, np.float32)}, step=9, label="new").wait()
    with pytest.warns(lamina.LaminaWarning):
        frame = lamina.open(small_run).activations("wide", step=9).select("label", "wide").collect()
    assert frame.rows() == [("new", [7.0, 7.0, 7.0])]


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
def test_a_damaged_frame_loses_what_it_held(small_run: Path, expected: Examined, index: int, lost: set) -> None:
    start = frame_start(small_run, SEALED_LOG, index)
    flip(small_run / SEALED_LOG, start + 70)
    found = examine(small_run)
    assert (SEALED_LOG, start) in found.places()
    differing = {question for question in small.QUESTIONS if found.answers.get(question) != expected.answers[question]}
    assert differing <= lost | small.SUMMARIES
    assert_strict_raises(small_run, SEALED_LOG)


def test_a_damaged_tail_of_a_log_loses_what_it_held(small_run: Path, expected: Examined) -> None:
    start = frame_start(small_run, OPEN_LOG, -1)
    flip(small_run / OPEN_LOG, start + 70)
    found = examine(small_run)
    assert (OPEN_LOG, start) in found.places()
    assert_all_but(found, expected, of_steps(3))
    assert_strict_raises(small_run, OPEN_LOG)


@pytest.mark.parametrize(("file", "step"), [(SEALED, 0), (SEALED, 1), (OPEN, 2), (OPEN, 3)])
def test_a_damaged_block_fails_when_it_is_read_and_no_other(
    small_run: Path, expected: Examined, file: str, step: int
) -> None:
    group = next(group for group in reader.read(small_run).groups if group.columns.get("step") == [step] * 4)
    for part in group.record[7]:
        flip(small_run / file, part[2] + part[3] // 2)
        lost = {("bits", step, small.SITES[part[1]])} if part[0] == 0 else {("cells", step)}
        found = examine(small_run)
        assert not found.problems
        assert_all_but(found, expected, lost)
        assert {type(error) for error in found.errors.values()} == {DamagedError}
        assert {file for file, _ in found.places()} == {file}
        assert all(part[2] <= (offset or 0) < part[2] + part[3] for _, offset in found.places())
        flip(small_run / file, part[2] + part[3] // 2)
    assert not examine(small_run).noticed


def test_a_damaged_chunk_fails_when_it_is_loaded_and_no_other(small_run: Path, expected: Examined) -> None:
    flip(small_run / PACK, 30)
    found = examine(small_run)
    assert_all_but(found, expected, {("load", 1)})
    error = found.errors["load", 1]
    assert isinstance(error, DamagedError)
    assert (error.file, error.offset) == (PACK, 24)


def test_a_damaged_header_of_a_segment_changes_no_answer(small_run: Path, expected: Examined) -> None:
    for at in (0, 9, 200, 1 << 19, -1):
        flip(small_run / SEALED, at)
        assert_all_but(examine(small_run), expected)


@pytest.mark.parametrize("file", ["run.json", *(f"commit {number}" for number in range(3)), SEALED_LOG, OPEN_LOG])
def test_every_flipped_byte_is_noticed_and_no_answer_is_wrong(small_run: Path, expected: Examined, file: str) -> None:
    path = forge.commit_path(small_run, int(file[-1])) if file.startswith("commit ") else small_run / file
    name = path.relative_to(small_run).as_posix()
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        assert_strict_raises(small_run, name)
        if at % 11 == 0:  # asking everything takes a hundred times as long as opening
            found = examine(small_run)
            assert name in {file for file, _ in found.places()}, at
            assert_nothing_wrong(found, expected)
