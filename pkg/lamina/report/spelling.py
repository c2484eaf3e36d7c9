"""Tokens as a person reads them: with spaces where their words begin."""

from __future__ import annotations

from collections.abc import Sequence

_NEWLINES = {"Ċ": "⏎", "\n": "⏎"}


def spelled(tokens: Sequence[str]) -> list[str]:
    """Return tokens as they follow each other in a text, each with the space before it.

    What marks a space depends on the tokenizer: in front of a word `Ġ` (byte-level pairs) or `▁` (SentencePiece) where
    one of the tokens has it, else `##` in front of what goes on with a word (WordPiece).

    Example:
        >>> spelled(["a", "tu", "##ple", "."]), spelled(["ĠA", "Ġtu", "ple", "Ċ"])
        ([' a', ' tu', 'ple', ' .'], [' A', ' tu', 'ple', '⏎'])
    """
    marks = next((mark for mark in "Ġ▁" if any(token.startswith(mark) for token in tokens)), None)
    if marks is None:
        parts = [token[2:] if token.startswith("##") and len(token) > 2 else f" {token}" for token in tokens]
    else:
        parts = [f" {token[1:]}" if token.startswith(marks) else token for token in tokens]
    for letter, shown in _NEWLINES.items():
        parts = [part.replace(letter, shown) for part in parts]
    return [
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in part) for part in parts
    ]
