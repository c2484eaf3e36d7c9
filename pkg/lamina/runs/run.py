"""A run: one folder that holds what a training, or one pass over data, recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl

from lamina import _core
from lamina.errors import NotARunError, SchemaError
from lamina.paths import path_of
from lamina.progress import watch
from lamina.runs import attachments, garbage, indexing, keeping, preshuffled, retention
from lamina.runs.config import to_json
from lamina.runs.featured import Featured
from lamina.runs.nearest import nearest_runs
from lamina.runs.recorded import Recorded
from lamina.runs.spans import spans_of_rows, spans_of_steps
from lamina.runs.steps import Steps, plain_step, recorded_step
from lamina.runs.writer import Writer


class Run(Recorded, Featured):
    """A run as it was when it was opened; `refresh()` sees what was written since.

    Made by `Run.create(path)` or `lamina.open(path)`. Pickles by its path; unpickling opens it again.

    Attributes:
        path: The folder.

    Example:
        >>> import lamina, tempfile
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/digits-0", config={"lr": 1e-3})
        >>> with run.writer() as writer:
        ...     writer.log({"train/loss": 0.7}, step=0)
        >>> run.refresh().metrics().select("step", "name", "value").collect().rows()
        [(0, 'train/loss', 0.7)]
    """

    @staticmethod
    def create(path: str | Path, *, config: Mapping[str, Any] | None = None) -> Run:
        """Creates a run, and the folders above it.

        Args:
            path: A path where there is nothing yet.
            config: What was configured: anything that JSON holds.

        Raises:
            NotARunError: The path exists, or lies inside of a run.
            SchemaError: The config holds something that JSON does not.
            StorageError: The file system refused.
        """
        path = path_of(path)
        text = to_json(config or {})
        _core.create(str(path), text)
        return Run(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path.resolve()), self._options)

    def writer(
        self,
        *,
        rank: int | None = None,
        full: Literal["block", "drop", "raise"] = "block",
        durable_rows: int | None = None,
        durable_bytes: int | None = None,
        durable_seconds: float | None = 1.0,
        index: bool = True,
    ) -> Writer:
        """A new writer. Writers of one process with the same options share a log, and its syncs.

        Args:
            rank: The rank in a distributed job: a column of the writer's rows and metrics.
            full: What `append` does while what waits for the disk fills the queue: `block` waits; `drop` leaves the
                append's rows out, counts them (`Run.status`) and warns when the writer is closed; `raise` raises
                QueueFullError, and nothing of the append is staged. Examples, metrics and checkpoints always wait.
            durable_rows: Rows after which what is staged becomes durable unasked; None for no such limit.
            durable_bytes: Bytes after which it does.
            durable_seconds: Seconds after which it does. Whichever of the three comes first counts; with none of them
                only `flush()`, a ticket that is waited for, and `close()` make anything durable.
            index: Whether segments of 4 million active units and more are indexed unasked (see `index`), by a process
                in the background, as they fill up and when the writer is closed; otherwise when a question misses it.

        Raises:
            SchemaError: A limit is no number above zero, or there is no such policy.
            StorageError: The run's folder cannot be written.
        """
        return Writer(
            self.path,
            rank=rank,
            full=full,
            durable_rows=durable_rows,
            durable_bytes=durable_bytes,
            durable_seconds=durable_seconds,
            index=index,
        )

    # keeping it

    def verify(self, *, progress: bool = True) -> keeping.Verification:
        """Computes every hash of the run again: see `lamina.runs.keeping.verify`."""
        return keeping.verify(self.path, progress=progress)

    def compact(
        self, *, cold: str | Sequence[str] = (), index: bool = True, progress: bool = True
    ) -> keeping.Compaction:
        """Merges small row groups, leaves hidden rows behind, codes checkpoints: see `lamina.runs.keeping.compact`.

        Rows of the sites that match `cold` (globs or names) become smaller on disk and dearer to read one by one. New
        segments of 4 million active units and more are indexed by a process in the background, or if `index` is false
        once a question misses that.
        """
        names = sorted(self._select(cold)) if cold else ()
        done = keeping.compact(self.path, cold=names, progress=progress)
        self.refresh()
        if index:
            indexing.behind(self.path, self._snapshot, sorted(self._wide.sparse))
        return done

    def gc(self, *, grace: float | None = None, progress: bool = True) -> garbage.Collection:
        """Removes files that nothing has needed for `grace` seconds, then refreshes: see `lamina.runs.garbage.gc`."""
        done = garbage.gc(self.path, grace=grace, progress=progress)
        self.refresh()
        return done

    def copy(self, path: str | Path, *, progress: bool = True) -> Run:
        """Writes what this run shows into a new run, verifying every byte.

        The copy has the same rows under the same names, the same examples, metrics, checkpoints and config, and an id
        of its own; `copy.sources()` names this run. It is of one moment, that of opening (or of `refresh()`), however
        the run grows meanwhile; a writer that had not ended then is `failed` in the copy, and says so. What was rewound
        or deleted is left out, and files that nothing refers to any more. Nothing is visible at `path` before the copy
        is whole and durable, and nothing is if it fails or is killed; a hidden folder beside it may then remain.

        Costs one reading and one writing, and memory for one row group (up to 64 MiB).

        Args:
            path: A path where there is nothing yet, on any file system.
            progress: Whether to show a bar on a terminal.

        Raises:
            NotARunError: The path exists, or lies inside of a run.
            DamagedError: A block or chunk is not what was written. `verify()` lists what is affected; what is deleted
                is left out.
            ExpiredError: The run was compacted since it was opened, and the files are gone: `refresh()` it.
            StorageError: The file system refused.

        Example:
            >>> import lamina, numpy as np, tempfile
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     ticket = writer.append({"mlp.output": np.ones((2, 3), np.float32)}, step=0)
            >>> copy = run.refresh().copy(tempfile.mkdtemp() + "/copy")
            >>> copy.rows("mlp.output").shape, copy.sources()["id"][0] == run.id
            ((2, 3), True)
        """
        path = path_of(path)
        pairs = [(self.name, self._snapshot)]
        watch(lambda state: _core.merge(pairs, str(path), self._snapshot.config, state), "copying", progress)
        return Run(path)

    # what is said of it

    def note(self, text: str, *, step: int | None = None) -> Self:
        """Notes something about the run, for whoever opens it later, and refreshes; `notes()` lists what was noted.

        A note is durable when this returns, also while writers are at work, and any number of processes may note at
        once. `rewind` and `delete` hide none; copies and merged runs have them.

        Args:
            text: What is to be said, at most 1 MiB.
            step: Of which step, if of one.

        Raises:
            SchemaError: The text is empty or too long, or the step is no number of updates.
            StorageError: The file system refused; nothing is noted.

        Example:
            >>> import lamina, tempfile
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> run.note("the loss jumped: batch 17 is corrupt", step=17).notes().select("step", "text").rows()
            [(17, 'the loss jumped: batch 17 is corrupt')]
        """
        if not isinstance(text, str) or not text.strip():
            raise SchemaError(f"a note of {text!r}", hint="give a text; run.attach(name, value) keeps anything else")
        _core.note(str(self.path), text, None if step is None else recorded_step(step))
        return self.refresh()

    def attach(self, name: str, value: Any) -> Self:
        """Attaches a value to the run, of no step, such as a tokenizer or a direction, and refreshes.

        It is durable when this returns; `attachment(name)` loads it. Attached again, a name means the later value. What
        is attached is verified, copied, merged and collected as checkpoints are; `rewind`, `delete` and `retain` leave
        it alone, and `detach(name)` takes it out.

        Args:
            name: What it is called, such as a file's name.
            value: Whatever a checkpoint's part can be (see `Writer.save`): bytes, tensors, arrays, numbers and texts
                (of these at most 1 MiB), and mappings and lists of them; or a `pathlib.Path`, whose bytes are stored.

        Raises:
            SchemaError: The name is no text of 1 to 512 printable bytes, or the value holds something else.
            StorageError: The file system refused; nothing is attached.

        Example:
            >>> import lamina, tempfile
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> run.attach("vocabulary.json", b'{"a": 0}').attachment("vocabulary.json")
            b'{"a": 0}'
        """
        attachments.attach(self.path, name, value)
        return self.refresh()

    def detach(self, name: str) -> Self:
        """Hides what is attached under a name, and refreshes; `gc` reclaims its bytes.

        Raises:
            NotFoundError: Nothing is attached under this name; the hint lists the nearest.
            StorageError: The file system refused.
        """
        attachments.detach(self.path, self._saved, name)
        return self.refresh()

    # going back

    def rewind(self, step: int) -> Self:
        """Goes back to the checkpoint of a step: hides what was recorded behind it, and refreshes.

        Hidden are rows and metrics of `step` and later steps (a training that resumes there records them again, after
        the checkpoint was taken), and checkpoints of later steps. What is recorded afterwards is not hidden, whatever
        its step. Nothing is erased: `lamina.open(path, hidden=True)` shows it until the run is compacted.

        Args:
            step: The step of the checkpoint that the training resumes from.

        Raises:
            SchemaError: The step is no integer.
            StorageError: The file system refused; then nothing is hidden.
        """
        _core.rewind(str(self.path), plain_step(step))
        return self.refresh()

    def delete(self, sites: str | Sequence[str] | None = None, *, steps: Steps = None, rows: Any = None) -> Self:
        """Deletes what satisfies all of what is given, and refreshes.

        Nobody who opens the run from now on sees it; what is recorded afterwards is not deleted, whatever its step. The
        bytes are reclaimed when the run is compacted; until then `lamina.open(path, hidden=True)` shows them. Metrics,
        examples and checkpoints stay.

        Args:
            sites: Globs or names of sites; by default whole rows are deleted.
            steps: A step, several, or a slice of steps.
            rows: Names of rows, as the column `row` gives them: an array, list or range of integers, or a
                list of ranges.

        Raises:
            NotFoundError: No site matches, or nothing was recorded at the step.
            SchemaError: Nothing is given, or the names of rows are no integers.
            StorageError: The file system refused; then nothing is deleted.

        Example:
            >>> import lamina, numpy as np, tempfile
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     for step in range(3):
            ...         ticket = writer.append({"mlp.output": np.ones((2, 3), np.float32)}, step=step)
            >>> run.refresh().delete(steps=1).steps()
            [0, 2]
        """
        names = [] if sites is None else sorted(self._select(sites))
        _core.delete(str(self.path), names, spans_of_steps(steps, self.steps()), spans_of_rows(rows))
        return self.refresh()

    def retain(
        self,
        *,
        every: int | None = None,
        per_decade: int | None = None,
        last: int | None = None,
        lowest: str | Mapping[str, int] | None = None,
        highest: str | Mapping[str, int] | None = None,
        steps: Steps = None,
        parts: str | Sequence[str] | None = None,
    ) -> retention.Retention:
        """Says which checkpoints stay by some rules, and which go; its `apply()` hides the latter.

        A checkpoint stays if any of the rules keeps it. Applied again, the same rules keep the same, and what came
        since. Every part has the rules for itself, so that a part that not every checkpoint has is thinned out apart.

        Args:
            every: Keeps the steps that are multiples of this.
            per_decade: Keeps so many between 1 and 10, 10 and 100, and so on: the first of each stretch of equal ratio,
                and step 0.
            last: Keeps the last so many.
            lowest: Keeps the checkpoint at whose step this metric is lowest; or so many of them: `{"loss": 3}`.
            highest: The same for the highest.
            steps: Keeps these: a step, several, or a slice.
            parts: Globs of the parts that are thinned out, such as "optimizer"; all by default.

        Returns:
            What would be kept and why, and how many bytes can be reclaimed. Nothing is hidden yet.

        Raises:
            NotFoundError: There is no checkpoint, or no such part, metric or step; the hint lists the nearest.
            SchemaError: No rule is given, or the rules keep nothing.

        Example:
            >>> import lamina, numpy as np, tempfile
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     for step in range(0, 60, 10):
            ...         ticket = writer.save({"model": {"w": np.full(1000, step)}}, step=step)
            >>> plan = run.retain(every=30, last=1)
            >>> str(plan)
            'of 6 checkpoints (model) 3 stay; 24,000 bytes can be reclaimed'
            >>> plan.apply().checkpoints().collect()["step"].to_list()
            [0, 30, 50]
        """
        return retention.retain(
            self,
            every=every,
            per_decade=per_decade,
            last=last,
            lowest=lowest,
            highest=highest,
            steps=steps,
            parts=parts,
        )

    def preshuffle(
        self,
        path: str | Path,
        site: str,
        *,
        seed: int,
        step: Steps = None,
        source: str | None = None,
        where: pl.Expr | None = None,
    ) -> Run:
        """Writes rows of a site into a new run in shuffled order, for batches in "preshuffled" order.

        The new run has the site and the metadata alone; what the rows were called in this run is its column
        `original_row`. Vectors are copied 64 MiB at a time, so memory holds
        their metadata and not more. They are read in shuffled order: that is fast
        as long as they fit the page cache, and one seek a row otherwise.

        Args:
            path: A path where there is nothing yet.
            site: The site's name.
            seed: What the order follows from.
            step: As in `rows`.
            source: As in `rows`.
            where: As in `rows`.

        Raises:
            NotARunError: The path exists, or lies inside of a run.
            NotFoundError: As in `rows`.
            SchemaError: As in `rows`.
        """
        return preshuffled.write(self, path, site, self.rows(site, step=step, source=source, where=where), seed)


def open(  # noqa: A001 - the face's name
    path: str | Path,
    *,
    strict: bool = False,
    io: Literal["auto", "mmap", "pread"] = "auto",
    verify: Literal["first", "always", "never"] = "first",
    hidden: bool = False,
) -> Run:
    """Opens a run.

    Args:
        path: The run's folder.
        strict: Raise on damage. Otherwise what is damaged is passed over, warned of (`LaminaWarning`) and listed in
            `Run.problems`; what was acknowledged and is whole is there.
        io: How vectors are read: "mmap" maps segments into memory, which is fastest, but a segment that somebody cuts
            short then kills the process; "pread" asks for them bit by bit and raises an error there. "auto" is "mmap",
            and "pread" where the run lies on a network file system or cannot be mapped.
        verify: When vectors are compared with their checksums, in pieces of 128 KiB: when they are first touched,
            always, or never.
        hidden: Show what was rewound or deleted too, as far as it is still there.

    Raises:
        NotARunError: There is no run at the path; the hint names runs in it or beside it.
        FormatError: A newer Lamina wrote it.
        DamagedError: With `strict`, something is damaged.
        SchemaError: An unknown `io` or `verify`.
    """
    try:
        return Run(path, strict=strict, io=io, verify=verify, hidden=hidden)
    except NotARunError as error:
        raise NotARunError(error.message, error.file, error.offset, nearest_runs(path_of(path)) or error.hint) from None


def _reopen(path: str, options: dict[str, Any]) -> Run:
    return Run(path, **options)
