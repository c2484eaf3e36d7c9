"""The errors that Lamina raises: each says what is wrong, where, and what to do about it."""

from __future__ import annotations


class LaminaError(Exception):
    """Something that Lamina could not do.

    Attributes:
        message: What is wrong, in a sentence.
        file: The file that it is about, relative to the run's folder, or None.
        offset: The byte in that file where the trouble starts, or None.
        hint: What to do about it, or None.
    """

    def __init__(
        self,
        message: str,
        file: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, file, offset, hint)
        self.message = message
        self.file = file
        self.offset = offset
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, the place and the hint on one line."""
        text = self.message
        if self.file is not None:
            text += f" [{self.file}" + (f", byte {self.offset}]" if self.offset is not None else "]")
        if self.hint is not None:
            text += f" ({self.hint})"
        return text


class NotARunError(LaminaError):
    """A path that holds no run, or already holds something else."""


class FormatError(LaminaError):
    """A run written by a newer Lamina, or with a feature that this one does not know."""


class DamagedError(LaminaError):
    """Bytes that do not match their checksum, or a file that is shorter than what was acknowledged."""


class SchemaError(LaminaError, ValueError):
    """Data that contradicts what was declared: a dtype, a width, a column's type, a reserved name."""


class NotFoundError(LaminaError, LookupError):
    """A site, step, part or column that the run does not hold; the hint lists the nearest ones."""


class StorageError(LaminaError):
    """The file system refused: a full disk, an input/output error, a permission."""


class WriterError(LaminaError):
    """A writer that is closed, poisoned by an earlier failure, or used after a fork."""


class QueueFullError(WriterError):
    """Rows that did not fit into a writer's queue: dropped, or not taken; see `full=` of `Run.writer`."""


class ExpiredError(LaminaError):
    """Rows whose file was reclaimed since the run was opened: `run.refresh()` sees where they are now."""


class RecordingError(LaminaError):
    """A recorder that cannot record what it was asked to, or that captured nothing."""


class WorkerError(LaminaError):
    """A task that no worker computed: each died, none came to life, or what travels cannot be pickled."""


class MissingExtraError(LaminaError, ImportError):
    """A feature whose optional dependency is not installed; the hint names the extra."""


class LaminaWarning(UserWarning):
    """Something that Lamina passed over or left out, such as a damaged record or rows for which there was no room."""
