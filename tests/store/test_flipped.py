"""Every byte of every file of a run that was kept, flipped in turn: somebody is told, or all answers are the same.

Here some bytes of each file; all of them with `make test-slow`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lamina
from tests.faults import broken
from tests.store import kept, small
from tests.store.kept import KILLED_LOG, Truth

ACCESS = [{}, {"io": "pread"}, {"verify": "always"}]
STRIDE = 29
"""Of how many bytes one is flipped, a prime, so that fields of every length are met at each of their bytes."""
SPACES = 65_537
"""The same for what only fills a file up: the spaces of a header, what lies between groups."""


class Kept:
    """The run, what it answers, and what `verify` must know of each file."""

    def __init__(self, path: Path, truth: Truth) -> None:
        self.path, self.truth = path, truth
        self.expected = small.examine(path, kept.QUESTIONS)
        assert not self.expected.noticed
        assert kept.verified(path)
        self.needed = kept.needed(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("kept") / "run"
    return path, kept.make(path)


@pytest.fixture
def run(made: tuple[Path, Truth]) -> Kept:
    return Kept(*made)


@pytest.fixture
def copied(made: tuple[Path, Truth], tmp_path: Path) -> Kept:
    """A copy: a run with `sources`, and with groups in commits that replace nothing."""
    path, truth = made
    lamina.open(path).copy(tmp_path / "copy", progress=False)
    return Kept(tmp_path / "copy", truth)


def places(run: Kept, file: str, stride: int) -> Iterator[tuple[int, bool]]:
    """Offsets of a file that are flipped, and whether `verify` must know them."""
    spans = sorted(run.needed[file])
    header = (0, len((run.path / file).read_bytes()[: 1 << 20].rstrip(b" \0")))
    dense = [header if span == (0, 1 << 20) else span for span in spans]
    chosen = {at for first, stop in dense for at in range(first + first % stride, stop, stride)}
    chosen.update(range(7, (run.path / file).stat().st_size, SPACES))
    for at in sorted(chosen):
        yield at, any(first <= at < stop for first, stop in spans)


def flip(path: Path, at: int) -> None:
    """Flips a bit; the second time, back."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << at % 8]))


def told_or_harmless(run: Kept, files: list[str], stride: int) -> int:
    """Flips and asks; returns how many bytes were told of."""
    told = 0
    for file in files:
        for at, known in places(run, file, stride):
            where = (file, at)
            flip(run.path / file, at)
            found = small.examine(run.path, kept.QUESTIONS, **ACCESS[at // stride % 3])
            verified = kept.verified(run.path)
            flip(run.path / file, at)
            if found.noticed:
                told += 1
                assert file in {place for place, _ in found.places()}, where
                kept.assert_nothing_wrong(found, run.expected, run.truth, where)
                assert known, where
            else:
                assert found.answers == run.expected.answers, where
            assert verified != known, where
    return told


def some(run: Kept, *folders: str) -> list[str]:
    return [file for file in run.needed if file.startswith(folders) and (run.path / file).stat().st_size]


FILES = {"records": ("run.json", "commits/", "logs/", "fences/"), "rows": ("segments/",), "chunks": ("chunks/",)}


@pytest.mark.parametrize("kind", FILES)
def test_a_flipped_byte_is_told_or_harmless(run: Kept, kind: str) -> None:
    files = some(run, *FILES[kind])
    assert files
    assert told_or_harmless(run, files, STRIDE if kind != "chunks" else 1) > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FILES)
def test_every_flipped_byte_is_told_or_harmless(run: Kept, kind: str) -> None:
    assert told_or_harmless(run, some(run, *FILES[kind]), 1) > 20


def test_a_flipped_byte_of_a_copy_is_told_or_harmless(copied: Kept) -> None:
    assert b'"sources"' in (copied.path / "run.json").read_bytes()
    assert told_or_harmless(copied, ["run.json", *some(copied, "commits/")], STRIDE) > 20


def test_the_run_has_files_of_every_kind(run: Kept) -> None:
    files = set(run.needed)
    assert any(not spans for file, spans in run.needed.items() if file.startswith("segments/")), "replaced, and there"
    assert {"fences/000006", "fences/000006.end", "run.json"} <= files
    assert any(file.startswith("chunks/") for file in files)
    log = (run.path / KILLED_LOG).stat().st_size
    assert run.needed[KILLED_LOG][0][1] < log, "a record stands behind the fence"
    # with all that a run holds when its fence is not seen, there is more to answer
    shutil.rmtree(run.path.with_name("bare"), ignore_errors=True)
    bare = Path(shutil.copytree(run.path, run.path.with_name("bare")))
    (bare / "fences/000006.end").unlink()
    assert small.examine(bare, kept.QUESTIONS).answers != run.expected.answers


def test_a_checksum_that_is_not_looked_at_would_be_noticed(run: Kept) -> None:
    with broken("blocks_are_never_verified"), pytest.raises(AssertionError):
        told_or_harmless(run, some(run, "segments/"), STRIDE)
