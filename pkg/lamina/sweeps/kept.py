"""Where the estimates of a sweep are kept: in the run of the cell's first subject, in one folder, or nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lamina.errors import SchemaError
from lamina.measures import Estimate
from lamina.paths import path_of
from lamina.runs import Run
from lamina.sweeps.cache import Cache
from lamina.sweeps.cells import Cell

FOLDER = "cache"
"""The folder in a run. Nothing but sweeps looks into it, and it may be removed at any time."""


class Kept:
    """What was computed of one measure.

    Args:
        cache: True keeps estimates in the runs, a path in that folder, False nowhere.
        name: The measure's name.
        code: The hash of its code.
        runs: The runs by name.

    Raises:
        SchemaError: `cache` is none of these.
        StorageError: What is kept cannot be read.
    """

    def __init__(self, cache: bool | str | Path, name: str, code: bytes, runs: dict[str, Run]) -> None:
        if not isinstance(cache, bool | str | Path):
            raise SchemaError(f"cache={cache!r}", hint="it is True (in the run), a folder, or False")
        self._runs = runs
        self._root = None if isinstance(cache, bool) else path_of(cache)
        self._folder = f"{name}-{code.hex()[:12]}"
        self._caches: dict[Path, Cache] = {}
        self._off = cache is False

    def _of(self, cell: Cell) -> Cache | None:
        if self._off:
            return None
        root = self._root or self._runs[cell.subjects[0].run].path / FOLDER
        if root not in self._caches:
            self._caches[root] = Cache(root / self._folder, parents=self._root is not None)
        return self._caches[root]

    def get(self, cell: Cell) -> Estimate | None:
        """Return what was computed of a cell, or None."""
        cache = self._of(cell)
        return None if cache is None else cache.get(cell.key)

    def open(self, cells: Iterable[Cell]) -> None:
        """Make sure, before anything is computed, that the estimates of cells can be kept.

        Raises:
            StorageError: They cannot.
        """
        for cache in {self._of(cell) for cell in cells}:
            if cache is not None:
                cache.open()

    def put(self, cell: Cell, estimate: Estimate) -> None:
        """Keep the estimate of a cell.

        Raises:
            StorageError: The file system refused.
        """
        if (cache := self._of(cell)) is not None:
            cache.put(cell.key, estimate)

    def close(self) -> None:
        """Make what was kept durable."""
        for cache in self._caches.values():
            cache.close()
