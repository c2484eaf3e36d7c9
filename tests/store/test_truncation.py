"""Files that are cut short, emptied or gone: it is named, and what is left reads bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import lamina
from lamina.errors import DamagedError
from tests.store import forge, small
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


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def files(found: Examined) -> set[str | None]:
    return {file for file, _ in found.places()}


@pytest.mark.parametrize("file", [SEALED_LOG, OPEN_LOG])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_log_cut_beside_a_boundary_keeps_the_frames_before(
    small_run: Path, expected: Examined, file: str, beside: int
) -> None:
    data = (small_run / file).read_bytes()
    ends, start = [0], 0
    for one in forge.split(data):
        start += len(one)
        ends.append(start)
    kept = set()
    for end in (end for end in ends if 0 < end + beside < len(data)):
        (small_run / file).write_bytes(data[: end + beside])
        found = examine(small_run)
        assert_nothing_wrong(found, expected)
        last = max(other for other in ends if other <= end + beside)
        assert [(problem.file, problem.offset) for problem in found.problems] == [(file, last)] * (beside != 0)
        assert kept <= found.answers.keys(), "a longer log answers less"
        kept = set(found.answers)


def test_a_log_cut_anywhere_opens(small_run: Path, expected: Examined) -> None:
    data = (small_run / OPEN_LOG).read_bytes()
    for length in range(1, len(data), 41):
        cut(small_run / OPEN_LOG, length)
        found = examine(small_run)
        assert_nothing_wrong(found, expected)
        assert files(found) >= {OPEN_LOG}
        (small_run / OPEN_LOG).write_bytes(data)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("length", [0, 8, 12, 60, -1])
def test_a_commit_cut_short_loses_nothing(small_run: Path, expected: Examined, number: int, length: int) -> None:
    path = forge.commit_path(small_run, number)
    cut(path, length)
    found = examine(small_run)
    assert_all_but(found, expected)
    assert files(found) == {f"commits/{path.name}"}
    with pytest.raises(DamagedError):
        lamina.open(small_run, strict=True)


@pytest.mark.parametrize("length", [0, 1, 20, 200, -1])
def test_a_run_json_cut_short_is_replaced_by_its_copy(small_run: Path, expected: Examined, length: int) -> None:
    cut(small_run / "run.json", length)
    found = examine(small_run)
    assert_all_but(found, expected)
    assert files(found) == {"run.json"}
    with pytest.raises(DamagedError):
        lamina.open(small_run, strict=True)


def test_a_segment_cut_in_its_last_group_answers_the_others(small_run: Path, expected: Examined) -> None:
    cut(small_run / OPEN, (1 << 20) + 4096 + 10)
    found = examine(small_run)
    assert_all_but(found, expected, of_steps(3))
    assert {type(error) for error in found.errors.values()} == {DamagedError}
    assert files(found) == {OPEN}


def test_a_segment_cut_to_nothing_is_named(small_run: Path, expected: Examined) -> None:
    cut(small_run / SEALED, 0)
    found = examine(small_run)
    assert_all_but(found, expected, {*of_steps(0, 1), ("examples",)})
    assert {type(error) for error in found.errors.values()} == {DamagedError}
    assert files(found) == {SEALED}


def test_a_pack_cut_in_its_last_chunk_loads_the_others(small_run: Path, expected: Examined) -> None:
    cut(small_run / PACK, -1)
    found = examine(small_run)
    assert_all_but(found, expected, {("load", 1)})
    assert found.places() == {(PACK, 24)}
    assert isinstance(found.errors["load", 1], DamagedError)


@pytest.mark.parametrize(
    ("file", "lost"),
    [
        ("run.json", set()),
        (SEALED, {*of_steps(0, 1), ("examples",)}),
        (OPEN, of_steps(2, 3)),
        (PACK, {("load", 0), ("load", 1)}),
    ],
)
def test_a_missing_file_is_named(small_run: Path, expected: Examined, file: str, lost: set) -> None:
    (small_run / file).unlink()
    found = examine(small_run)
    assert_all_but(found, expected, lost)
    assert files(found) == {file}


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_commit_is_named_and_loses_nothing(small_run: Path, expected: Examined, number: int) -> None:
    path = forge.commit_path(small_run, number)
    path.unlink()
    found = examine(small_run)
    assert_all_but(found, expected)
    assert files(found) == {f"commits/{path.name}"}


def test_a_missing_head_loses_nothing(small_run: Path, expected: Examined) -> None:
    forge.commit_path(small_run, 2).unlink()
    assert_all_but(examine(small_run), expected)


@pytest.mark.parametrize("length", [None, 0])
def test_a_missing_or_empty_log_whose_writer_has_published_commits_is_named(
    small_run: Path, expected: Examined, length: int | None
) -> None:
    if length is None:
        (small_run / SEALED_LOG).unlink()
    else:
        cut(small_run / SEALED_LOG, length)
    found = examine(small_run)
    assert_nothing_wrong(found, expected)
    assert SEALED_LOG in {problem.file for problem in found.problems}
    assert of_steps(2, 3) <= found.answers.keys()
    with pytest.raises(DamagedError):
        lamina.open(small_run, strict=True)


@pytest.mark.parametrize("folder", ["commits", "logs", "segments", "chunks"])
def test_a_missing_folder_is_an_error_of_laminas_own(small_run: Path, expected: Examined, folder: str) -> None:
    shutil.rmtree(small_run / folder)
    found = examine(small_run)
    assert found.noticed
    assert_nothing_wrong(found, expected)
    assert all((file or "").startswith(folder) for file in files(found))


def test_a_log_that_is_a_folder_does_not_take_the_others_with_it(small_run: Path, expected: Examined) -> None:
    (small_run / OPEN_LOG).unlink()
    (small_run / OPEN_LOG).mkdir()
    found = examine(small_run)
    assert OPEN_LOG in files(found)
    assert_all_but(found, expected, {*of_steps(2, 3), ("status",)})


def test_files_that_are_none_of_the_runs_are_passed_over(small_run: Path, expected: Examined) -> None:
    for name in ("commits/notes.txt", "commits/.draft", "logs/README", "logs/.draft", "segments/x", ".x", "notes"):
        (small_run / name).write_bytes(b"hello")
    found = examine(small_run)
    assert not found.noticed
    assert_all_but(found, expected)


def test_small_has_every_kind_of_file(whole_small_run: Path) -> None:
    names = {path.relative_to(whole_small_run).as_posix() for path in whole_small_run.rglob("*") if path.is_file()}
    commits = {f"commits/{forge.commit_path(small.Path(), number).name}" for number in range(3)}
    assert names == {"run.json", *commits, SEALED, OPEN, SEALED_LOG, OPEN_LOG, PACK}
