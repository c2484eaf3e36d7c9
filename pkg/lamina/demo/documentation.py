"""The text that the demo's encoder reads: the topics of Python's own documentation, in windows of tokens."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

WINDOW = 256
"""Most tokens of a window, `[CLS]` and `[SEP]` among them: the length that the encoder is published for."""
_BATCH = 8
"""Most windows that go through the encoder at once."""


@dataclass(frozen=True)
class Window:
    """A stretch of one topic, between `[CLS]` and `[SEP]`.

    Attributes:
        topic: The topic that it is of.
        first: How many tokens of the topic come before it.
        ids: The tokens' numbers in the vocabulary.
        tokens: The tokens as text; one that goes on with a word begins with `##`.
    """

    topic: str
    first: int
    ids: list[int]
    tokens: list[str]


def windows(texts: Mapping[str, str], tokenizer: Any) -> list[Window]:
    """Cut every text into windows of as many tokens as fit, the last one shorter; sorted by topic, then in order.

    Args:
        texts: The texts by topic.
        tokenizer: A `tokenizers.Tokenizer` whose vocabulary holds `[CLS]` and `[SEP]`.
    """
    begin, end = "[CLS]", "[SEP]"
    found = []
    for topic, text in sorted(texts.items()):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        for first in range(0, len(encoded.ids), WINDOW - 2):
            part = slice(first, first + WINDOW - 2)
            ids = [tokenizer.token_to_id(begin), *encoded.ids[part], tokenizer.token_to_id(end)]
            found.append(Window(topic, first, ids, [begin, *encoded.tokens[part], end]))
    return found


def batches(parts: Sequence[Window], *, every: int = 1) -> list[dict[str, Any]]:
    """Return the windows, or every so manieth of them, in order as batches of one length each: none needs padding.

    Returns:
        Mappings of `input_ids` (Tensor [windows, tokens], i64) and `example` (the windows' numbers).
    """
    found, chosen = [], itertools.islice(enumerate(parts), 0, None, every)
    for _, alike in itertools.groupby(chosen, key=lambda numbered: len(numbered[1].ids)):
        while some := list(itertools.islice(alike, _BATCH)):
            ids = torch.tensor([window.ids for _, window in some])
            found.append({"input_ids": ids, "example": [number for number, _ in some]})
    return found


def columns(parts: Sequence[Window]) -> pl.DataFrame:
    """Return the examples table: a row a token, keyed by `example` (the window's number) and `position` in the window.

    Further columns: `topic`, `token` (its text), and `topic_position`, the tokens of the topic that come before it,
    null for `[CLS]` and `[SEP]`.
    """
    lengths = [len(window.ids) for window in parts]
    whole = pl.DataFrame(
        {
            "example": range(len(parts)),
            "topic": [window.topic for window in parts],
            "first": [window.first for window in parts],
            "position": [list(range(length)) for length in lengths],
            "token": [window.tokens for window in parts],
        },
        schema_overrides={"position": pl.List(pl.Int64), "token": pl.List(pl.String)},
    )
    special = (pl.col("position") == 0) | (pl.col("position") == pl.col("position").max().over("example"))
    place = pl.when(~special).then(pl.col("first") + pl.col("position") - 1)
    return whole.explode("position", "token").select("example", "position", "topic", "token", topic_position=place)
