"""One measure on one subject, or on a pair: what a sweep computes and keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from lamina.errors import LaminaError, SchemaError
from lamina.measures import Estimate
from lamina.sweeps.subjects import Subject


@dataclass(frozen=True, eq=False)
class Cell:
    """What is measured.

    Attributes:
        subjects: One subject, or the two that are compared.
        key: 16 bytes that follow from the measure's code, its options, and the contents.
    """

    subjects: tuple[Subject, ...]
    key: bytes

    @staticmethod
    def of(subjects: Sequence[Subject], beside: bytes) -> Cell:
        """Return the cell of subjects, where everything else that a value depends on has the hash `beside`."""
        together = beside + b"".join(subject.identity for subject in subjects)
        return Cell(tuple(subjects), blake2b(together, digest_size=16).digest())

    def __str__(self) -> str:
        return named(self.subjects)


def named(subjects: Sequence[Subject]) -> str:
    """Return what messages call the cell of some subjects."""
    return " and ".join(map(str, subjects))


def measured(function: Callable[..., Any], subjects: Sequence[Subject], options: dict[str, Any]) -> Estimate:
    """Return the estimate of one cell.

    Raises:
        LaminaError: As the measure does; the message then names the cell.
        SchemaError: The measure returns no `Estimate`.
    """
    cell = named(subjects)
    try:
        found = function(*(subject.value() for subject in subjects), **options)
    except LaminaError as error:
        raise type(error)(f"{cell}: {error.message}", error.file, error.offset, error.hint) from error
    except Exception as error:
        error.add_note(f"measured was {cell}")
        raise
    if not isinstance(found, Estimate):
        raise SchemaError(
            f"{function.__name__} returns a {type(found).__name__}", hint="a measure returns a lamina.measures.Estimate"
        )
    return found
