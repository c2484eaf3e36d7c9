"""A writer that may fail without taking the training with it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lamina.errors import DamagedError, LaminaWarning, SchemaError, StorageError, WriterError
from lamina.recording.kept import row_count

if TYPE_CHECKING:
    from lamina.runs import Writer

OnFailure = Literal["raise", "warn"]

_KEEPS = "a site keeps its dtype"
"""What the store says where a site comes in another dtype or width."""
_CONVERTS = (
    "a site keeps its dtype and width: lamina.Site(dtype=torch.float32) stores all of it in one dtype, also where "
    "autocast gives another in some calls; a pool or layout makes one width"
)


class GuardedWriter:
    """Hands on what is written; with `"warn"`, the first failure of the store is a warning and ends the writing.

    What was acknowledged before stays. A writer that failed never writes again, so nothing after the failure is
    recorded, and the run's status tells it.

    Attributes:
        failure: What failed.
        rows: How many rows of each site were handed on.
    """

    def __init__(self, writer: Writer, on_failure: OnFailure) -> None:
        self._writer = writer
        self._warns = on_failure == "warn"
        self.failure: BaseException | None = None
        self.rows: Counter[str] = Counter()

    def append(self, sites: Mapping[str, Any], **columns: Any) -> None:
        """See `Writer.append`."""
        try:
            self._try(lambda: self._writer.append(sites, **columns))
        except SchemaError as error:
            if _KEEPS not in (error.hint or ""):
                raise
            raise SchemaError(error.message, hint=_CONVERTS) from None
        if self.failure is None and sites:
            # Sites of one append share their rows: a mask is looked at once.
            rows = row_count(next(iter(sites.values())), columns.get("mask"))
            for site in sites:
                self.rows[site] += rows

    def log(self, values: Mapping[str, Any], *, step: int, site: Sequence[str] | None = None) -> None:
        """See `Writer.log`."""
        self._try(lambda: self._writer.log(values, step=step, site=site))

    def save(self, parts: Mapping[str, Any], *, step: int) -> None:
        """See `Writer.save`."""
        self._try(lambda: self._writer.save(parts, step=step))

    def close(self, error: str | None) -> None:
        """See `Writer.close`; a writer that failed before is closed with that."""
        if self.failure is not None:
            error = repr(self.failure)
        self._try(lambda: self._writer.close(error=error), last=True)

    def _try(self, act: Callable[[], object], *, last: bool = False) -> None:
        if self.failure is not None and not last:
            return
        try:
            act()
        except (StorageError, WriterError, DamagedError, OSError) as failure:
            if not self._warns:
                raise
            if self.failure is None:
                warnings.warn(f"recording has ended, and the training goes on: {failure}", LaminaWarning, stacklevel=4)
            self.failure = failure
