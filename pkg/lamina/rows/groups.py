"""Groups: which rows are not independent of each other, and the at most 32 buckets that are left out in turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina._core import hash_buckets
from lamina.errors import SchemaError

if TYPE_CHECKING:
    from lamina.rows.rows import Rows

BUCKETS = 32
"""Groups up to this number are themselves when they are left out in turn; more are hashed into as many buckets."""
_COPRIME = (255, 254, 253, 251, 247, 241, 239)
"""Their residues together say as much as the number modulo their product, 5.8e16."""


@dataclass(frozen=True)
class Groups:
    """The groups of n rows.

    Attributes:
        codes: int64 [n], the number of each row's group.
        labels: What the groups are called, in ascending order: a group's number is its place here.
        sizes: int64 [groups], rows of each group.
    """

    codes: np.ndarray
    labels: pl.Series
    sizes: np.ndarray

    @staticmethod
    def of(values: pl.Series) -> Groups:
        """Number the values of a column.

        Raises:
            SchemaError: A value is missing.
        """
        if missing := values.null_count():
            raise SchemaError(
                f"{missing} of {len(values)} rows have no {values.name or 'group'}",
                hint="leave them out with where=, or choose other groups=",
            )
        labels = values.unique().sort()
        if len(labels) == len(values):
            codes = np.empty(len(values), np.int64)
            codes[values.arg_sort().to_numpy()] = np.arange(len(values))
        else:
            codes = values.rank("dense").to_numpy().astype(np.int64) - 1
        return Groups(codes, labels, np.bincount(codes, minlength=len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Groups:
        """Return the groups of some of the rows, as a mask or as positions."""
        codes = self.codes[rows]
        left, codes = np.unique(codes, return_inverse=True)
        return Groups(codes, self.labels.gather(left), np.bincount(codes, minlength=left.size))

    def hashes(self) -> np.ndarray:
        """Return a number for each group, uint64 [groups], that follows from its label alone.

        It is made of the first eight bytes of the label's BLAKE3 (as in `buckets`): of what they leave modulo 255, 254,
        253, 251, 247, 241 and 239, as the digits of one number.
        """
        data, offsets = _canonical(self.labels)
        hashes = np.zeros(len(self), np.uint64)
        for modulus in _COPRIME:
            residues = np.frombuffer(hash_buckets(data, offsets, modulus), np.uint8)
            hashes = hashes * np.uint64(modulus) + residues.astype(np.uint64)
        return hashes

    def buckets(self) -> tuple[np.ndarray, list[Any]]:
        """Return the bucket of each group, int64 [groups], and the buckets' keys.

        Groups up to 32 are buckets of their own, and their labels are the keys. More are hashed: BLAKE3 of the label
        (integers as `i` and eight bytes, little-endian; texts as `s` and UTF-8; other numbers as `f` and a float64;
        booleans as `b` and one byte), its first eight bytes modulo 32; so a group falls into the same bucket in every
        run. The keys are then the numbers of the buckets that are not empty.
        """
        if len(self) <= BUCKETS:
            return np.arange(len(self)), self.labels.to_list()
        data, offsets = _canonical(self.labels)
        hashed = np.frombuffer(hash_buckets(data, offsets, BUCKETS), np.uint8)
        keys, buckets = np.unique(hashed, return_inverse=True)
        return buckets.astype(np.int64), keys.tolist()


def groups_of(rows: Rows, groups: Any) -> Groups:
    """Return the groups of some rows.

    Args:
        rows: The rows.
        groups: The name of a metadata column; an array, list or series with a label a row; or None for the column
            `example` where there is one, else each row by itself.

    Raises:
        NotFoundError: There is no such column.
        SchemaError: Not one label a row, or a label is missing.
    """
    if groups is None and "example" in rows.columns:
        examples = rows.metadata(["example"])["example"]
        if examples.null_count() < len(examples):
            return Groups.of(examples)
    if groups is None:
        return Groups.of(pl.Series("row", np.arange(len(rows))))
    if isinstance(groups, str):
        return Groups.of(rows.metadata([groups])[groups])
    return Groups.of(labels_of(groups, len(rows)))


def labels_of(groups: Any, n: int | None = None, option: str = "groups") -> pl.Series:
    """Return labels given for `option` as an array, list, series or tensor as a series of length `n`."""
    if hasattr(groups, "detach"):
        groups = groups.detach().cpu().numpy()
    if not isinstance(groups, Iterable):
        raise SchemaError(f"{option}={groups!r}", hint="give the name of a column, or a label for each row")
    try:
        series = groups if isinstance(groups, pl.Series) else pl.Series("group", groups)
    except TypeError as error:
        raise SchemaError(f"{option}: {error}", hint="give numbers or texts, one a row") from None
    if series.dtype.is_nested() or (n is not None and len(series) != n):
        wanted = "" if n is None else f", there are {n} rows"
        raise SchemaError(f"{option} has {len(series)} labels of {series.dtype}{wanted}", hint="give one label a row")
    return series


def _canonical(labels: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels' bytes one after another, and as bytes of int64 where each begins and the last ends."""
    if labels.dtype == pl.String:
        texts = [b"s" + text.encode() for text in labels]
        offsets = np.cumsum([0, *map(len, texts)], dtype="<i8")
        return np.frombuffer(b"".join(texts), np.uint8), offsets.view(np.uint8)
    if labels.dtype == pl.Boolean:
        tag, values = b"b", labels.to_numpy().astype(np.uint8)
    elif labels.dtype.is_integer():
        tag, values = b"i", labels.cast(pl.Int64).to_numpy().astype("<i8")
    else:
        tag, values = b"f", labels.cast(pl.Float64).to_numpy().astype("<f8")
    records = np.empty(len(values), dtype=[("tag", "S1"), ("value", values.dtype)])
    records["tag"], records["value"] = tag, values
    size = records.dtype.itemsize
    return np.frombuffer(records.tobytes(), np.uint8), (np.arange(len(values) + 1, dtype="<i8") * size).view(np.uint8)
