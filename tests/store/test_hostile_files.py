"""Something else in the place of a file of a run: a pipe, a link, a folder. It is refused by name, and nobody waits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lamina
from tests.store.small import OPEN_LOG, PACK, SEALED, SEALED_LOG, examine

FILES = ["run.json", f"commits/{2**64 - 1:020}", f"commits/{2**64 - 3:020}", SEALED_LOG, OPEN_LOG, SEALED, PACK]


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    outside = path.parents[1].with_name("outside") / path.name
    outside.parent.mkdir(exist_ok=True)
    shutil.move(path, outside)
    path.symlink_to(outside)


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("put", [pipe, link, circle, folder, device])
def test_what_is_no_file_of_the_run_is_refused_by_name(small_run: Path, put: Callable[[Path], None], file: str) -> None:
    put(small_run / file)
    found = examine(small_run)
    assert found.noticed
    assert file in {name for name, _ in found.places()}


@pytest.mark.parametrize("name", ["commits", "logs"])
def test_a_folder_that_is_a_link_is_refused(small_run: Path, name: str) -> None:
    outside = small_run.with_name("outside")
    shutil.move(small_run / name, outside)
    (small_run / name).symlink_to(outside)
    before = sorted(outside.iterdir())
    with pytest.raises(lamina.LaminaError, match="link"):
        lamina.open(small_run)
    assert sorted(outside.iterdir()) == before


def test_a_run_that_a_link_leads_to_opens(small_run: Path) -> None:
    small_run.with_name("elsewhere").symlink_to(small_run)
    assert not examine(small_run.with_name("elsewhere")).noticed
