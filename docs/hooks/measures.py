"""Writes the table of measures, and a section for each, into measures.md when the pages are built."""

from __future__ import annotations

from typing import Any

PLACE = "<!-- measures: written when the pages are built -->"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put the table where the page has a place for it."""
    if page.file.src_uri != "measures.md":
        return markdown
    assert PLACE in markdown, f"measures.md has no {PLACE}"
    return markdown.replace(PLACE, written())


def written() -> str:
    """Return the table, and what makes a section of each docstring."""
    from lamina.measures.registry import measures

    lines = ["| measure | takes | invariant to | larger is more similar | streams | cost | source |", "|" + "---|" * 7]
    own = {name: each for name, each in measures().items() if each.function.__module__.startswith("lamina.")}
    for name, each in own.items():
        maps = ", ".join(each.invariant) or "nothing"
        if each.invariant_y is not None and each.invariant_y != each.invariant:
            maps = f"x: {maps}; y: {', '.join(each.invariant_y) or 'nothing'}"
        larger = {True: "yes", False: "no", None: ""}[each.larger_is_more_similar]
        streams = "yes" if each.streams else ""
        cells = f"`{name}`", each.takes, maps, larger, streams, each.cost, each.source
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"::: lamina.{name}\n" for name in own)])
