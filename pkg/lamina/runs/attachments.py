"""What is attached to a run: named values of no step, such as a tokenizer, a direction, or the code that ran.

An attachment is stored as a part of a checkpoint is, by chunks that are verified, shared and kept, under a step that no
training has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from lamina import _core
from lamina.errors import NotFoundError, SchemaError
from lamina.paths import path_of
from lamina.runs import loading
from lamina.runs.checkpoints import streamed
from lamina.runs.divided import Divided
from lamina.runs.nearest import nearest_names
from lamina.runs.saved import Saved, SavedPart
from lamina.runs.tree import take_apart

_SCHEMA = {"name": pl.String, "time": pl.Datetime("us", "UTC"), "bytes": pl.Int64, "stored": pl.Int64}
_LONGEST_NAME = 512
_LONGEST_TEXT = 1 << 20
"""Bytes of numbers and texts, which stand in the log, where everybody who opens the run reads them."""


def attach(path: Path, name: str, value: Any) -> None:
    """Stores a value; see `Run.attach`."""
    if not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
        raise SchemaError(f"an attachment is named {name!r}", hint="give a text such as tokenizer.json")
    pieces = take_apart(path_of(value).read_bytes() if isinstance(value, Path) else value)
    if len(pieces.scalars.encode()) > _LONGEST_TEXT:
        raise SchemaError(
            f"{name!r} holds more than 1 MiB of texts and numbers", hint="attach text.encode(), or arrays"
        )
    tensors, keys = [], []
    with streamed(path, "attach") as stream:
        for tensor, flat in zip(pieces.names, pieces.tensors, strict=True):
            assert not isinstance(flat, Divided)  # `take_apart` refuses what processes share
            keys.append(stream.put(flat.dtype, flat.bytes))
            tensors.append((tensor, flat.dtype, flat.shape))
        stream.save(_core.ATTACHED, [(name, pieces.tree, pieces.scalars, tensors, b"".join(keys))])


def detach(path: Path, saved: Saved, name: str) -> None:
    """Hides an attachment; see `Run.detach`."""
    _find(saved, name)
    _core.discard(str(path), [([name], [(_core.ATTACHED, _core.ATTACHED)])], _core.positions(str(path)))


def load(saved: Saved, name: str) -> Any:
    """Return an attachment as it was attached."""
    return loading.load_part(saved, _find(saved, name))


def table(saved: Saved) -> pl.DataFrame:
    """One row an attachment, in order of their names."""
    rows: list[tuple[str, int, int, int]] = []
    for name, part in sorted(saved.attached.items()):
        tensors = sum(tensor.bytes for tensor in saved.tensors(part))
        rows.append((name, part.time, tensors, sum(size for _, size in part.stored)))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _find(saved: Saved, name: str) -> SavedPart:
    if name not in saved.attached:
        raise NotFoundError(f"nothing is attached as {name!r}", hint=nearest_names(str(name), saved.attached))
    return saved.attached[name]
