"""Sparse codes that lie under valid checksums: an error names the segment and where in it; other rows are readable."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import scipy.sparse

import lamina
from lamina.errors import DamagedError, FormatError
from tests.store import forge, reader

SEGMENT = "segments/000000-000000.safetensors"
VALUES, INDPTR, IDS = 0, 6, 7
DENSE = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [4, 3, 0, 5]], np.float32)

Group = dict[int, Any]


def part(group: Group, role: int) -> Group:
    return next(block for block in group[7] if block[0] == role)


def overwrite(run: Path, block: Group, data: bytes) -> None:
    """Replaces the first bytes of a block, with the block's checksum."""
    path = run / SEGMENT
    whole = bytearray(path.read_bytes())
    whole[block[2] : block[2] + len(data)] = data
    path.write_bytes(whole)
    block[4] = forge.crcs(bytes(whole[block[2] : block[2] + block[3]]))


def pointers(*ends: int) -> Callable[[Path, Group], None]:
    return lambda run, group: overwrite(run, part(group, INDPTR), np.array(ends, "<u4").tobytes())


def ids(*numbers: int) -> Callable[[Path, Group], None]:
    return lambda run, group: overwrite(run, part(group, IDS), np.array(numbers, "<u2").tobytes())


LIES: dict[str, tuple[Callable[[Path, Group], None], int, int]] = {
    "pointers_begin_later": (pointers(1), INDPTR, 0),
    "pointers_fall": (pointers(0, 2, 1), INDPTR, 8),
    "pointers_lead_beyond": (pointers(0, 2, 2, 2**32 - 1), INDPTR, 12),
    "pointers_fall_from_far": (pointers(0, 2**32 - 1, 2), INDPTR, 8),
    "pointers_end_early": (pointers(0, 2, 2, 4), INDPTR, 12),
    "an_id_beyond_the_width": (ids(1, 4), IDS, 0),
    "an_id_beyond_everything": (ids(1, 3, 0, 1, 65535), IDS, 4),
    "ids_that_fall": (ids(3, 1), IDS, 0),
    "an_id_twice": (ids(1, 3, 0, 3, 3), IDS, 4),
}
"""What is changed, and the block and byte that an error names."""
OF_SOME = {"pointers_fall": (IDS, 2), "pointers_fall_from_far": (INDPTR, 4)}
"""Where rows 2 and 0 meet it, if elsewhere: pointers of other rows are not read."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = lamina.Run.create(tmp_path_factory.mktemp("codes") / "run")
    with run.writer() as writer:
        writer.features("sae", scipy.sparse.csr_array(DENSE), step=0).wait()
        writer.features("sae", scipy.sparse.csr_array(DENSE), step=1).wait()
    return run.path


def attacked(healthy: Path, folder: Path, change: Callable[[Path, Group], None]) -> tuple[Path, Group]:
    path = folder / "run"
    shutil.copytree(healthy, path)
    changed = []

    def apply(frames: list[list[Any]]) -> None:
        group = next(record for frame in frames for number, record in frame if number == reader.GROUP)
        change(path, group)
        changed.append(group)

    forge.rewrite_log(path, apply)
    return path, changed[0]


@pytest.mark.parametrize("lie", LIES)
def test_bytes_that_lie_are_an_error_that_names_the_place(healthy: Path, tmp_path: Path, lie: str) -> None:
    change, role, at = LIES[lie]
    path, group = attacked(healthy, tmp_path, change)
    run = lamina.open(path)
    for ask, (block, byte) in (
        (lambda: run.features("sae").collect(), (role, at)),
        (lambda: run.rows("sae", step=0, features=[1]).gather([2, 0]), OF_SOME.get(lie, (role, at))),
    ):
        with pytest.raises(DamagedError) as raised:
            ask()
        assert (raised.value.file, raised.value.offset) == (SEGMENT, part(group, block)[2] + byte)
    assert (run.rows("sae", step=1).gather(range(3)).numpy() == DENSE).all()
    with pytest.raises(DamagedError):
        run.copy(tmp_path / "copy", progress=False).features("sae").collect()
    assert run.compact(progress=False).problems["file"].to_list() == [SEGMENT]


def setting(role: int, key: int, value: Any) -> Callable[[Path, Group], None]:
    def change(run: Path, group: Group) -> None:
        part(group, role)[key] = value

    return change


def without(role: int) -> Callable[[Path, Group], None]:
    return lambda run, group: group[7].remove(part(group, role))


RECORDS = {
    **{f"active_{value}": setting(IDS, 7, value) for value in (0, 4, 2**32, 2**64 - 1)},
    "values_active_other": setting(VALUES, 7, 4),
    "no_active": lambda run, group: part(group, VALUES).pop(7),
    "pointers_with_active": setting(INDPTR, 7, 5),
    "pointers_longer": setting(INDPTR, 3, 2**40),
    "pointers_coded": setting(INDPTR, 6, (16).to_bytes(4, "little")),
    "ids_of_nobody": setting(IDS, 1, 7),
    "no_pointers": without(INDPTR),
    "no_ids": without(IDS),
    "no_values": without(VALUES),
    "ids_twice": lambda run, group: group[7].append(dict(part(group, IDS))),
}


@pytest.mark.parametrize("lie", RECORDS)
def test_records_that_lie_are_left_out_and_reported(healthy: Path, tmp_path: Path, lie: str) -> None:
    path, _ = attacked(healthy, tmp_path, RECORDS[lie])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        run = lamina.open(path)
    assert any(problem.file == SEGMENT for problem in run.problems)
    assert (run.rows("sae").gather(range(3)).numpy() == DENSE).all()


def test_a_file_that_is_cut_short_is_an_error(healthy: Path, tmp_path: Path) -> None:
    path, group = attacked(healthy, tmp_path, lambda run, group: None)
    with (path / SEGMENT).open("r+b") as file:
        file.truncate(part(group, IDS)[2] + 2)
    with pytest.raises(DamagedError) as raised:
        lamina.open(path).features("sae").collect()
    assert raised.value.file == SEGMENT


@pytest.mark.parametrize("change", [{2: "f64"}, {2: "i8"}, {3: [2, 2]}, {3: []}, {3: [0]}, {3: [2**31]}, {4: "yes"}])
def test_a_declaration_that_cannot_be_is_refused(healthy: Path, tmp_path: Path, change: dict[int, Any]) -> None:
    path = tmp_path / "run"
    shutil.copytree(healthy, path)

    def declare(frames: list[list[Any]]) -> None:
        for number, record in (op for ops in frames for op in ops):
            if number == reader.SITE:
                record |= change

    forge.rewrite_commits(path, lambda number, body: declare([body[6]]))
    forge.rewrite_log(path, declare)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        try:
            run = lamina.open(path)
        except lamina.LaminaError:
            return
        assert run.problems
        with pytest.raises(lamina.LaminaError):
            run.features("sae")


def test_who_does_not_know_sparse_codes_is_told(healthy: Path, tmp_path: Path) -> None:
    needs = [cbor2.loads(path.read_bytes()[12:-32])[5] for path in sorted((healthy / "commits").iterdir())]
    assert ["sparse"] in needs
    path = tmp_path / "run"
    shutil.copytree(healthy, path)

    def rename(number: int, body: dict[int, Any]) -> None:
        body[5] = ["sparser" if need == "sparse" else need for need in body[5]]

    forge.rewrite_commits(path, rename)
    with pytest.raises(FormatError, match="sparser"):
        lamina.open(path)
