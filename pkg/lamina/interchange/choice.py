"""Which tensors or columns of a source become sites, which become metadata columns, and what they are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lamina.errors import NotFoundError
from lamina.runs import globs
from lamina.runs.columns import RESERVED_ORDER
from lamina.runs.nearest import nearest_names

Names = str | Sequence[str] | Mapping[str, str] | None
"""Names or globs; or a mapping from names in the source to names in the run; None leaves it to the format."""

NEVER = ("row",)
"""Left out unless it is asked for: rows get names of their own where they arrive."""


@dataclass(frozen=True)
class Choice:
    """What the user asked for.

    Attributes:
        sites: What become sites; None leaves it to the format.
        columns: What become columns.
        example: What becomes the column `example`.
        position: What becomes the column `position`.
    """

    sites: Names = None
    columns: Names = None
    example: str | None = None
    position: str | None = None

    def sites_among(self, names: Collection[str]) -> dict[str, str] | None:
        """The sites by their names in the source; None if it is left to the format."""
        return None if self.sites is None else _chosen(self.sites, names)

    def columns_among(self, names: Collection[str]) -> dict[str, str] | None:
        """The columns that were named, by their names in the source; None if it is left to the format."""
        return None if self.columns is None else _chosen(self.columns, names) | self.keys_among(names)

    def keys_among(self, names: Collection[str]) -> dict[str, str]:
        """What becomes a reserved column: by its own name, or because the user says so."""
        given = {
            name: key for name, key in ((self.example, "example"), (self.position, "position")) if name is not None
        }
        _check(given, names)
        taken = set(given.values())
        return {name: name for name in names if name in RESERVED_ORDER and name not in taken} | given


def _chosen(wanted: str | Sequence[str] | Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    if isinstance(wanted, Mapping):
        _check(wanted, names)
        return dict(wanted)
    return {name: name for name in globs.select(wanted, names, what="tensor or column")}


def _check(wanted: Collection[str], names: Collection[str]) -> None:
    for name in wanted:
        if name not in names:
            raise NotFoundError(f"the source has no tensor or column {name!r}", hint=nearest_names(name, names))
