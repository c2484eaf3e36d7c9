"""Writing a run by hand: a writer for each process, thread or rank; no locks between processes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from lamina import _core
from lamina.errors import LaminaError, LaminaWarning, SchemaError
from lamina.runs import checkpoints
from lamina.runs.codes import entries, row_set
from lamina.runs.columns import as_values, columns
from lamina.runs.device_log import DeviceLog
from lamina.runs.indexing import Background
from lamina.runs.layout import attached, row_sets
from lamina.runs.staging import Staging
from lamina.runs.steps import recorded_step

if TYPE_CHECKING:
    from lamina._core import Ticket


class Writer:
    """Appends to a run. Use it as a context manager; an exception inside closes it as failed.

    Whatever is staged becomes durable within about a second (see `Run.writer`), or on `flush()`, or when a ticket is
    waited for. A failure of the disk ends the writer: what was acknowledged stays, and every later call says why.

    Writers of one process that were opened with the same options share one log and its thread, so that what several
    threads wait for becomes durable together. `close()` makes a writer's rows durable; the last one ends the log. Every
    method can be called from several threads.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     ticket = writer.append({"mlp.output": np.ones((2, 3), np.float32)}, step=0, example=[7, 8])
        ...     ticket.wait()
        True
        >>> run.refresh().activations().select("step", "example", "mlp.output").collect().rows()
        [(0, 7, [1.0, 1.0, 1.0]), (0, 8, [1.0, 1.0, 1.0])]
    """

    def __init__(
        self,
        path: Path,
        *,
        rank: int | None = None,
        full: Literal["block", "drop", "raise"] = "block",
        durable_rows: int | None = None,
        durable_bytes: int | None = None,
        durable_seconds: float | None = 1.0,
        index: bool = True,
    ) -> None:
        self._core = _core.Writer(
            str(path),
            rank=rank,
            full=full,
            durable_rows=durable_rows,
            durable_bytes=durable_bytes,
            durable_seconds=durable_seconds,
        )
        self._path = path
        self._rank = rank
        self._device_log = DeviceLog()
        self._staging = Staging()
        self._background = Background(path, self._core.ordinal) if index else None

    def __repr__(self) -> str:
        state = "closed" if self._core.closed else "open"
        return f"Writer({str(self._path)!r}, ordinal={self._core.ordinal}, {state})"

    @property
    def ordinal(self) -> int:
        """Which writer of the run it is: its rows are named `ordinal << 40` and up."""
        return self._core.ordinal

    def append(
        self,
        sites: Mapping[str, Any],
        /,
        *,
        step: int | None = None,
        row: Any = None,
        mask: Any = None,
        **metadata: Any,
    ) -> Ticket:
        """Appends rows of one or more sites that share their metadata, or attaches further sites to rows that exist.

        Args:
            sites: Torch tensors or NumPy arrays by site: [B] (B scalars), [B, d], [B, T, d] (B * T rows, with
                `position` filled) or [B, ...] (B rows with an item shape). Sites with other leading shapes become
                row sets of their own.
            step: The number of optimizer updates before these weights; always given but with `row`.
            row: Names of rows that the run holds (such as `run.rows(…).ids`), one for each row of the sites: the sites
                are attached to them, and share their step and metadata. Rows have names once they are durable.
            mask: [B] or [B, T]; rows where it is false are dropped.
            **metadata: Columns, declared by first use: a scalar, [B] or [B, T]; integers, floats, booleans, texts or
                times (datetimes with a zone, NumPy's datetime64 in UTC; to the microsecond); None where there is no
                value. `example` names the unit of independence.

        Returns:
            A ticket. Its `wait()` returns when these rows, and all before them, survive a power cut; so does `await`
            under asyncio. `ticket.state` tells `staged`, `written`, `durable`, `failed` and `dropped` apart,
            `ticket.error` says why it failed.

        Raises:
            SchemaError: A dtype, width or column type other than declared, a ragged column, or a reserved name; with
                `row`, a name that is no row of the run, or a second value of a site from this writer for a row.
            WriterError: The writer is closed, has failed, or comes from before a fork.
            QueueFullError: The queue is full, and the writer was opened with `full="raise"`; nothing was staged.

        Cost:
            One copy of the bytes on the caller's thread, from any strides, and from a GPU into pinned memory. Where a
            mask chooses rows of a tensor that is not contiguous on the CPU, these rows are copied twice.
        """
        self._core.check()
        if not isinstance(sites, Mapping):
            raise SchemaError(
                f"the sites are a {type(sites).__name__}", hint='give each by its name: {"mlp.output": x}'
            )
        if row is not None:
            _check_alone(step, mask, metadata)
            if not sites:
                raise SchemaError("an append needs at least one site")
            return self._core.append(attached(sites, row, staging=self._staging))
        metadata = {"step": recorded_step(step)} | metadata | ({} if self._rank is None else {"rank": self._rank})
        if not sites:
            raise SchemaError("an append needs at least one site")
        return self._core.append(row_sets(sites, metadata, mask, staging=self._staging))

    def features(
        self,
        name: str,
        codes: Any,
        /,
        *,
        step: int | None = None,
        row: Any = None,
        width: int | None = None,
        threshold: float | None = None,
        duplicates: Literal["raise", "sum"] = "raise",
        **metadata: Any,
    ) -> Ticket:
        """Appends sparse codes: of each row the features that are active, and their values.

        A value of zero, of either sign, is no activity and is left out; NaN is stored. Ids may come in any order.

        Args:
            name: The site. It keeps its number of features and the dtype of its values.
            codes: A SciPy sparse matrix [n, width], a torch sparse tensor (CSR or COO), codes of `lamina_kernels`, or
                `(values, indices)` as `torch.topk` returns them, [n, k] or [B, T, k], where an index below 0 stands for
                nothing; with `threshold` a dense tensor [n, width] or [B, T, width]. Values are f16, bf16 or f32.
            step: As in `append`.
            row: Names of rows that the run holds: the codes are attached to them, as in `append`. They may be those of
                activations that were recorded months ago.
            width: The number of features, where `codes` does not tell.
            threshold: Units of a dense tensor are active whose absolute value is above it.
            duplicates: Whether a feature that stands twice in a row is an error, or its values are added (in f32).
            **metadata: Columns, as in `append`.

        Returns:
            A ticket, as of `append`.

        Raises:
            SchemaError: Features beyond the width, a feature twice in a row, another width or dtype than declared, or
                as `append` does.
            WriterError: The writer is closed, has failed, or comes from before a fork.
            QueueFullError: As of `append`.

        Cost:
            One pass over the entries on the caller's thread, which sorts those of each row unless they ascend. Stored
            are 2 bytes an id up to 65,536 features (else 4), the value, and 4 bytes a row.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     top = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 5.0]]).topk(2)
            ...     ticket = writer.features("mlp.output/sae", top, width=3, step=0, example=[7, 8])
            >>> run.refresh().features("mlp.output/sae").select("example", "feature", "value").collect().rows()
            [(7, 1, 3.0), (7, 2, 1.0), (8, 0, 2.0), (8, 2, 5.0)]
        """
        self._core.check()
        if not isinstance(name, str):
            raise SchemaError(f"the site {name!r} is a {type(name).__name__}", hint="the names of sites are texts")
        if duplicates not in ("raise", "sum"):
            raise SchemaError(f"duplicates is {duplicates!r}", hint='choose "raise" or "sum"')
        if row is None:
            metadata = {"step": recorded_step(step)} | metadata | ({} if self._rank is None else {"rank": self._rank})
        else:
            _check_alone(step, None, metadata)
        found = entries(name, codes, width, threshold, self._staging)
        rows = row_set(found.lead, row, metadata)
        taken = (found.bounds, found.ids, found.values)
        ticket = self._core.features(
            name, found.width, rows.rows, taken, rows.columns, rows.names, summed=duplicates == "sum"
        )
        if self._background is not None:
            self._background.wrote(*found.size())
        return ticket

    def examples(self, frame: pl.DataFrame | Mapping[str, Any]) -> Ticket:
        """Records what is known of the examples: labels, texts, topics, keyed by `example` (and `position`).

        Args:
            frame: A Polars frame or a mapping of columns of one length. Written again, an example's row is replaced.

        Raises:
            SchemaError: There is no `example` column, or the columns do not fit.
        """
        self._core.check()
        given = frame.to_dict() if isinstance(frame, pl.DataFrame) else frame
        if not isinstance(given, Mapping):
            hint = "collect() it" if isinstance(frame, pl.LazyFrame) else "give a DataFrame, or a mapping of columns"
            raise SchemaError(f"the examples are a {type(frame).__name__}", hint=hint)
        table = {name: as_values(name, values) for name, values in given.items()}
        key = table.get("example")
        if not isinstance(key, np.ndarray) or any(value is None for value in key.reshape(-1)):
            raise SchemaError("the examples need a column `example` without nulls", hint="it is what rows refer to")
        return self._core.examples(len(key), columns(table, len(key)))

    def log(
        self,
        values: Mapping[str, Any],
        *,
        step: int,
        source: str | None = None,
        site: str | Sequence[str] | None = None,
    ) -> None:
        """Logs metrics: numbers or 0-d tensors by name; for several sites vectors. Never synchronises a GPU.

        Raises:
            SchemaError: A value is no single number, or of several sites no vector with one for each.
        """
        self._core.check()
        step = recorded_step(step)
        now = time.time_ns() // 1000
        one, several = (site, None) if site is None or isinstance(site, str) else (None, list(site))

        def write(names: list[str], numbers: list[Any]) -> None:
            if several is None:
                self._core.log(step, now, names, numbers, site=one, source=source)
                return
            for place, its in zip(several, zip(*numbers, strict=True), strict=True):
                self._core.log(step, now, names, its, site=place, source=source)

        self._device_log.put(values, write, length=None if several is None else len(several))

    def save(self, parts: Mapping[str, Any], *, step: int) -> Ticket:
        """Saves a checkpoint of named parts, such as `{"model": model.state_dict()}`.

        Returns when the bytes are copied; the old values are stored even if the tensors change right after.

        Args:
            parts: A state a part: tensors, arrays, numbers, texts, bytes, None, and mappings, lists, tuples and sets of
                them, as the states of modules, optimizers, schedules and random generators are. They come back as they
                were (dtypes, shapes, order in memory, every bit), tied tensors tied and overlapping ones overlapping.
                Any other mapping than torch's and Python's own comes back as a dict.
            step: The number of optimizer updates before this state.

        Returns:
            A ticket, as of `append`. Readers see the checkpoint when it is durable.

        Raises:
            SchemaError: A part holds something else; it is named, and nothing was staged.
            WriterError: The writer is closed, has failed, comes from before a fork, or there is no memory to copy into.

        Cost:
            One copy by up to four threads, into memory that later saves use again: the writer keeps as much as was
            on its way to the disk at once. A save waits while more than 256 MiB of earlier ones are on their way.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> weight = torch.ones(2)
            >>> with run.writer() as writer:
            ...     ticket = writer.save({"model": {"weight": weight}}, step=10)
            ...     _ = weight.zero_()
            >>> run.refresh().load(10, part="model")["weight"]
            tensor([1., 1.])
        """
        self._core.check()
        return checkpoints.save(self._core, parts, recorded_step(step), self._staging)

    def flush(self) -> None:
        """Returns when everything appended, logged and saved so far is durable."""
        self._core.check()
        self._device_log.write_known(wait=True)
        self._core.flush()

    def close(self, error: BaseException | str | None = None) -> None:
        """Makes everything durable; `error` tells why it ends, if not as planned.

        The last of the writers that share a log ends it. Can be called again; in a fork it does nothing.
        """
        if self._core.closed:
            return
        try:
            self._device_log.write_known(wait=True)
        finally:
            self._core.close(error if error is None or isinstance(error, str) else repr(error))
            rows, sites = self._core.dropped()
            if rows:
                lost = ", ".join(f"{site} {count}" for site, count in sites.items())
                text = f"{self._path}: {rows} rows were dropped while the queue was full: {lost}"
                warnings.warn(text, LaminaWarning, stacklevel=2)
        if self._background is not None:
            self._background.start()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(error)
        except LaminaError as failure:
            # the exception that is under way tells more; the failure goes with it
            error.add_note(f"the writer could not be closed either: {failure}")


def _check_alone(step: Any, mask: Any, metadata: Mapping[str, Any]) -> None:
    if step is not None or mask is not None or metadata:
        given = "step" if step is not None else "mask" if mask is not None else next(iter(metadata))
        raise SchemaError(f"{given!r} is given beside row=", hint="rows that exist have their metadata")
