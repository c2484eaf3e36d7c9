"""Indexes of sparse codes: building what is missing or damaged, at once or by a process in the background."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina import _core
from lamina.errors import LaminaError
from lamina.progress import track
from lamina.runs.threads import available_threads
from lamina.text import size

if TYPE_CHECKING:
    from lamina._core import Snapshot

UNASKED = 1 << 22
"""Units from which on a segment is indexed unasked: to scan fewer takes some hundredths of a second."""
_BYTES = 1 << 30
"""Bytes of codes after which a segment is taken to be full."""
_ABSENT = ("missing", "stale")

_BEGUN: set[tuple[Path, str, str]] = set()
"""Indexes that this process has had built because somebody asked: run, site, segment."""

_SCHEMA = {"site": pl.String, "file": pl.String, "rows": pl.Int64, "units": pl.Int64, "state": pl.String}


@dataclass(frozen=True)
class Indexing:
    """What indexing a run did.

    Attributes:
        segments: One row a segment and site: site, file, rows, units, state ("ready", "missing", "damaged", "newer" or
            "stale" as it was found; "open" where it is still written to), bytes (of an index that was built now).
    """

    segments: pl.DataFrame

    def __str__(self) -> str:
        """What was done, in a sentence."""
        built, was = self.segments.filter(pl.col("bytes") > 0), self.segments["state"].to_list()
        parts = [f"{_segments(built.height)} indexed ({size(int(built['bytes'].sum()))})"] if built.height else []
        parts += [f"{was.count(state)} had a {state} index" for state in ("damaged", "newer", "stale") if state in was]
        parts += [f"{_segments(was.count('ready'))} ready before"] if "ready" in was else []
        parts += [f"{_segments(was.count('open'))} still written to"] if "open" in was else []
        return "; ".join(parts) or "no sparse codes"

    __repr__ = __str__


def _segments(count: int) -> str:
    return f"{count:,} segment" + "s" * (count != 1)


def states(snapshot: Snapshot, sites: Sequence[str]) -> pl.DataFrame:
    """One row a segment and site: site, file, rows, units, and the state of its index."""
    rows = [(site, *found) for site in sites for found in _core.feature_indexes(snapshot, site)]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def index(snapshot: Snapshot, sites: Sequence[str], *, progress: bool = True) -> Indexing:
    """Builds the indexes of sites that are not ready, one after the other; see `Run.index`."""
    for site in sites:
        _core.check_feature_indexes(snapshot, site, available_threads())
    found = states(snapshot, sites)
    wanted = found.with_row_index("at").filter(~pl.col("state").is_in(["ready", "open"]))
    built = [0] * found.height
    for at, site, file in track(wanted.select("at", "site", "file").rows(), "indexing", wanted.height, progress):
        built[at] = _core.build_feature_index(snapshot, site, file, available_threads())
    return Indexing(found.with_columns(bytes=pl.Series(built, dtype=pl.Int64)))


class Background:
    """Has the segments of one writer indexed as they fill up, and when it is closed.

    By a process of its own: a thread would end with the program, which mostly ends right behind its writers, and share
    an interpreter with it until then. It has low priority, nothing waits for it, and whenever it is killed the next one
    goes on.
    """

    def __init__(self, path: Path, ordinal: int) -> None:
        self._path, self._ordinal = path, ordinal
        self._units, self._bytes = 0, 0

    def wrote(self, units: int, size: int) -> None:
        """Tells of codes that were staged, and how many bytes they are."""
        self._units += units
        self._bytes += size
        if self._bytes >= _BYTES:
            self.start()

    def start(self) -> None:
        """Starts the process, if enough was written for it."""
        if self._units < UNASKED:
            return
        self._units, self._bytes = 0, 0
        _leave(self._path, ordinal=self._ordinal)


def behind(path: Path, snapshot: Snapshot, sites: Sequence[str]) -> None:
    """Has all segments of a run that want an index indexed in the background."""
    found = (segment for site in sites for segment in _core.feature_indexes(snapshot, site))
    if any(is_wanted(units, state) for _, _, units, state in found):
        _leave(path)


def on_demand(path: Path, site: str, states: Mapping[str, str]) -> dict[str, str]:
    """Has indexes that are missing or damaged built in the background; returns of each file how it comes to its index.

    That is begun once in a process for each, so that one which cannot be built is not tried again at every `refresh`;
    for none in a folder that may not be written, and for none of a newer Lamina.
    """
    path = path.resolve()
    may = os.access(path / "index" if (path / "index").exists() else path, os.W_OK | os.X_OK)
    before = [file for file in states if (path, site, file) in _BEGUN]
    asked = [file for file, state in states.items() if may and state != "newer" and file not in before]
    damaged = [file for file in asked if states[file] == "damaged"]
    begun = asked if asked and _leave(path, site=site, files=asked, damaged=damaged) else []
    _BEGUN.update((path, site, file) for file in begun)
    return (
        dict.fromkeys(states, "`lamina index` builds it")
        | dict.fromkeys(before, "building it was begun in the background, and `lamina index` tells what is in the way")
        | dict.fromkeys(begun, "it is built in the background, and `run.refresh()` finds it then")
    )


def _leave(path: Path, **which: Any) -> bool:
    """Starts a process that does the work of `main`, and leaves it alone; whether it could be started."""
    # Python warns that the package has imported the module already, which must not be an error
    command = [sys.executable, "-W", "ignore", "-m", "lamina.runs.indexing", str(path.resolve()), json.dumps(which)]
    # a shell leaves it behind: no child of this program that somebody would have to wait for
    left = ["sh", "-c", 'exec nice -n 10 "$@" &', "sh", *command]
    nothing = subprocess.DEVNULL
    try:
        subprocess.run(left, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, check=False)
    except OSError:
        return False  # `lamina index` builds them
    return True


def is_wanted(units: int, state: str) -> bool:
    """Whether the index of a segment of so many units, that was found in this state, is to be built unasked."""
    return state == "damaged" or (units >= UNASKED and state in _ABSENT)


def main(
    path: str,
    *,
    ordinal: int | None = None,
    site: str | None = None,
    files: Sequence[str] = (),
    damaged: Sequence[str] = (),
) -> None:
    """Index the segments of one writer, or of all, that want it, with one thread; or those `files` of a site.

    Damaged ones are named, since damage within an index shows only where it is read: from here it looks good.
    """

    def is_meant(name: str, file: str, units: int, state: str) -> bool:
        if site is None:
            is_of_writer = ordinal is None or Path(file).name.startswith(f"{ordinal:06d}-")
            return is_of_writer and is_wanted(units, state)
        if name != site or file not in files:
            return False
        return state in _ABSENT or (file in damaged and state not in ("open", "newer"))

    with turn(path):
        snapshot = _core.Snapshot(path)
        for name in [name for name, *_, sparse in snapshot.sites() if sparse]:
            for file, _, units, state in _core.feature_indexes(snapshot, name):
                if is_meant(name, file, units, state):
                    # damaged codes of one segment do not keep the others from theirs
                    with suppress(LaminaError):
                        _core.build_feature_index(snapshot, name, file, 1)


@contextmanager
def turn(path: str) -> Iterator[None]:
    """Waits until no other process indexes the run in the background: it may be building what is asked for here."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:
        yield  # what is wrong with it is told by what opens it
        return
    try:
        with suppress(ImportError, OSError):  # where nothing can be locked both build, and the last one's counts
            import fcntl

            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
