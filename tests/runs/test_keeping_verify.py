"""`Run.verify()` finds every byte that is not what was written, says where it is, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lamina
from tests.faults import broken
from tests.store import forge, small

PIECE = 1 << 17


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    made = lamina.Run.create(tmp_path / "run")
    with made.writer() as writer:
        for step in (0, 1):
            rows = np.full((1000, 64), step, np.float32)
            writer.append({"x": rows}, step=step, name=[f"row {k}" for k in range(1000)]).wait()
        writer.log({"loss": 1.0}, step=1)
        writer.save({"model": {"w": torch.arange(500_000.0)}}, step=1).wait()
    return made.refresh()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def test_a_whole_run_has_no_problems_and_every_byte_counts(run: lamina.Run) -> None:
    found = run.verify()
    assert found.ok
    assert found.files == 2
    assert found.bytes > 2 * 1000 * 64 * 4 + 500_000 * 4
    assert "no problems" in str(found)


def test_a_flipped_byte_of_a_site_names_the_rows_and_the_step(run: lamina.Run) -> None:
    (segment,) = (run.path / "segments").iterdir()
    flip(segment, (1 << 20) + PIECE + 5)
    (problem,) = run.verify().problems.rows()
    affected = f"site 'x', rows {PIECE // 256} to 999, step 0".replace("'", '"')
    assert problem == (
        f"segments/{segment.name}",
        (1 << 20) + PIECE,
        "the bytes do not match their checksum",
        affected,
    )


def test_rows_that_were_read_before_are_read_again(run: lamina.Run) -> None:
    rows = run.rows("x", step=0)
    rows.gather(range(1000))
    (segment,) = (run.path / "segments").iterdir()
    flip(segment, 1 << 20)
    assert not run.verify().ok


@pytest.mark.parametrize("at", [0, 9, 5000, (1 << 20) - 1, -1, -300])
def test_a_flipped_byte_of_a_header_or_table_is_found(run: lamina.Run, at: int) -> None:
    (segment,) = (run.path / "segments").iterdir()
    flip(segment, at % segment.stat().st_size)
    (problem,) = run.verify().problems.rows()
    assert problem[0] == f"segments/{segment.name}"
    assert at < 0 or problem[1] == at


def test_a_segment_of_another_length_is_found(run: lamina.Run) -> None:
    (segment,) = (run.path / "segments").iterdir()
    segment.write_bytes(segment.read_bytes() + b"\0")
    (problem,) = run.verify().problems.rows()
    assert problem[:2] == (f"segments/{segment.name}", segment.stat().st_size - 1)


@pytest.mark.parametrize("at", [0, 1 << 20, 1_999_999])
def test_a_flipped_byte_of_a_chunk_is_found(run: lamina.Run, at: int) -> None:
    (pack,) = (run.path / "chunks").iterdir()
    flip(pack, at)
    (problem,) = run.verify().problems.rows()
    assert problem[:2] == (f"chunks/{pack.name}", at // PIECE * PIECE)


def test_a_chunk_that_is_not_what_its_key_says_is_found_behind_its_checksum(run: lamina.Run) -> None:
    def swap(frames: list[list]) -> None:
        for operations in frames:
            for number, body in operations:
                if number == 8:
                    first, second = body[1][:2]
                    first[0], second[0] = second[0], first[0]

    forge.rewrite_log(run.path, swap, name="000000.0000")
    assert {problem[2] for problem in run.verify().problems.rows()} == {"a chunk's bytes do not match its key"}


@pytest.mark.parametrize("name", ["run.json", "logs/000000.0000", f"commits/{2**64 - 1:020}"])
def test_what_a_snapshot_reports_is_among_the_problems(run: lamina.Run, name: str) -> None:
    flip(run.path / name, 20)
    assert run.verify().problems["file"].to_list() == [name]


def test_missing_files_are_problems(run: lamina.Run) -> None:
    for folder in ("segments", "chunks"):
        for path in (run.path / folder).iterdir():
            path.unlink()
    files = set(run.verify().problems["file"])
    assert {Path(file).parent.name for file in files} == {"segments", "chunks"}


def test_a_run_whose_writer_was_killed_is_well(tmp_path: Path) -> None:
    small.make(tmp_path / "run")
    assert lamina.open(tmp_path / "run").verify().ok


def test_bytes_that_were_already_found_good_would_be_missed(run: lamina.Run) -> None:
    with broken("verify_believes_the_length"), pytest.raises(AssertionError):
        test_rows_that_were_read_before_are_read_again(run)
