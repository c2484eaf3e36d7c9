"""Frames and messages on a terminal, or on a pipe, where nothing is cut to fit."""

from __future__ import annotations

import sys
import unicodedata
from datetime import datetime

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lamina.errors import LaminaError
from lamina.text import number

_LONGEST = 60
"""Most characters of a text shown in a cell."""
_UNCUT = 100_000
"""Width taken where standard output is no terminal."""


def out() -> Console:
    """Return the console for answers."""
    return Console(width=None if sys.stdout.isatty() else _UNCUT, highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Return the console for messages."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    err().print(Text.assemble(("warning: ", "yellow"), plain(message)))


def fail(error: LaminaError) -> None:
    """Print an error to standard error: what is wrong, where, and what to do."""
    place = "" if error.file is None else f" [{error.file}"
    if place:
        place += "]" if error.offset is None else f", byte {error.offset}]"
    err().print(Text.assemble(("error: ", "bold red"), plain(error.message + place)))
    if error.hint is not None:
        err().print(Text.assemble(("hint: ", "cyan"), plain(error.hint)))


def table(frame: pl.DataFrame) -> Table:
    """Return a Rich table of a frame: numbers to the right, null as nothing, vectors as their shape."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, dtype in frame.schema.items():
        shown.add_column(Text(plain(name)), justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.with_columns(placeholders(frame.schema)).iter_rows():
        shown.add_row(*(Text(_cell(value)) for value in row))
    return shown


def placeholders(schema: pl.Schema) -> list[pl.Expr]:
    """Return expressions that put `[64 x f32]` in the place of vectors, so that these need not be read."""
    return [pl.lit(_vector(dtype)).alias(name) for name, dtype in schema.items() if isinstance(dtype, pl.Array)]


def plain(text: str) -> str:
    """Return text from a run without the control characters that would steer the terminal."""
    return "".join(mark if unicodedata.category(mark) != "Cc" else "\N{REPLACEMENT CHARACTER}" for mark in text)


def _vector(dtype: pl.Array) -> str:
    inner = str(dtype.inner).replace("Float", "f").replace("UInt", "u").replace("Int", "i").replace("Boolean", "bool")
    return f"[{' x '.join(str(length) for length in dtype.shape)} x {inner}]"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, list):
        return " x ".join(str(item) for item in value)
    text = plain(str(value).replace("\n", " "))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
