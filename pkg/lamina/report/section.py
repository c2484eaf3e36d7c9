"""What a report is made of: chapters, in them sections, in these pictures with a sentence, tables, galleries, cards."""

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
class Word:
    """A piece of text as it is written, with the space before it, and how strongly it is marked.

    Attributes:
        text: The piece.
        value: What it is marked with; 0 for no mark.
        strength: How strong that is, from 0 to 1.
    """

    text: str
    value: float = 0.0
    strength: float = 0.0


@dataclass(frozen=True)
class Passage:
    """A piece of text in its context, and a few letters on where it stands."""

    before: list[Word]
    hit: Word
    behind: list[Word]
    place: str


@dataclass(frozen=True)
class Card:
    """A heading, a line of facts, and passages one below the other."""

    title: str
    facts: str
    passages: list[Passage]


@dataclass(frozen=True)
class Cards:
    """Cards one below the other, and the sentence that tells how to read them."""

    cards: list[Card]
    reading: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    parts: list[Picture | Table | Gallery | Cards] = field(default_factory=list)


@dataclass(frozen=True)
class Chapter:
    """The sections about runs of one kind, and a sentence on these; a page of one chapter shows no title of it."""

    title: str
    lead: str
    sections: list[Section]
