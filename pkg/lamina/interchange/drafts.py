"""Files and folders that appear under their name only when they are whole and safe on the disk."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.errors import StorageError


def draft_of(path: Path) -> Path:
    """Where something is made before it gets its name: beside it, hidden."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def check_free(path: Path) -> None:
    """Raise StorageError if the name is taken."""
    if os.path.lexists(path):
        raise StorageError(
            f"{path} exists", str(path), hint="nothing is overwritten: choose another name, or remove it"
        )


def publish(draft: Path, path: Path) -> None:
    """Sync the draft and give it its name, for good.

    Raises:
        StorageError: The name was taken meanwhile, or the file system refuses.
    """
    try:
        _sync_all(draft)
        if draft.is_dir():
            check_free(path)  # and a folder with anything in it is not replaced anyway
            draft.rename(path)
        else:
            os.link(draft, path)  # fails if the name is taken
            draft.unlink()
        _sync(path.parent)
    except FileExistsError:
        check_free(path)
        raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", str(path)) from error


@contextmanager
def drafted(path: Path, *, folder: bool) -> Iterator[Path]:
    """A draft to be filled: an empty folder, or the name of a file. Published on exit, removed on an exception."""
    check_free(path)
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            draft.mkdir()
        yield draft
    except BaseException as error:
        _remove(draft)
        if isinstance(error, OSError):
            raise StorageError(f"cannot write {path}: {error.strerror or error}", str(path)) from error
        raise
    try:
        publish(draft, path)
    except BaseException:
        _remove(draft)
        raise


def _remove(draft: Path) -> None:
    # what keeps it from going, such as a file system that is read-only, must not hide why it has to
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        with suppress(OSError):
            draft.unlink()


def _sync_all(path: Path) -> None:
    """Files first, then the folders that hold their names."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync_all(inner)
    _sync(path)


def _sync(path: Path) -> None:
    place = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(place)
    finally:
        os.close(place)
