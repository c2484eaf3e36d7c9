"""What a report is made of: chapters, in them sections, in these pictures with a sentence, tables and galleries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Picture:
    """A chart, and the sentence that tells how to read it."""

    chart: Any
    reading: str


@dataclass(frozen=True)
class Table:
    """A small frame of ready text and numbers, and the sentence that tells how to read it."""

    frame: pl.DataFrame
    reading: str


@dataclass(frozen=True)
class Item:
    """One example of a gallery: its picture (a data URI) or text, and a line under it."""

    image: str | None
    text: str | None
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Examples side by side, and the sentence that tells how to read them."""

    items: list[Item]
    reading: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    parts: list[Picture | Table | Gallery] = field(default_factory=list)


@dataclass(frozen=True)
class Chapter:
    """The sections about runs of one kind, and a sentence on these; a page of one chapter shows no title of it."""

    title: str
    lead: str
    sections: list[Section]
