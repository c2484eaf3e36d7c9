"""Passages of text with marks in them, as HTML: what is marked stands in one column, so that the eye compares it."""

from __future__ import annotations

import html

from lamina.report.section import Card, Cards, Passage, Word
from lamina.text import number

_LEAST = 0.05
"""Strength below which a word is not marked: the mark could not be seen."""

MARKED_STYLE = """
.card { margin: 16px 0 22px; }
.card h4 { font-size: 16px; margin: 0; }
.card p { margin: 0 0 6px; color: #444; font-size: 14px; max-width: none; }
.passages { display: grid; grid-template-columns: max-content minmax(0, 9fr) minmax(0, 10fr) max-content;
  font-size: 13.5px; line-height: 1.75; white-space: pre; }
.passage { display: contents; }
.passage > * { overflow: hidden; border-bottom: 1px solid #f0f0ee; }
.passage .value { color: #777; text-align: right; padding-right: 10px; font-variant-numeric: tabular-nums; }
.passage .before { display: flex; justify-content: flex-end; }
.passage .place { color: #777; padding-left: 12px; max-width: 150px; text-overflow: ellipsis; }
.passage mark { color: inherit; border-radius: 3px; padding: 1px 0; background: rgba(240, 160, 0, var(--strength)); }
.passage b { font-weight: 600; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
""".strip()


def marked_cards(cards: Cards) -> str:
    """Return cards as HTML; the value of a mark is its title, and read aloud behind its word."""
    return "\n".join(_card(card) for card in cards.cards)


def _card(card: Card) -> str:
    passages = "\n".join(_passage(passage) for passage in card.passages)
    head = f"<h4>{html.escape(card.title)}</h4>\n<p>{html.escape(card.facts)}</p>"
    return f'<div class="card">\n{head}\n<div class="passages">\n{passages}\n</div>\n</div>'


def _passage(passage: Passage) -> str:
    before, behind = ("".join(map(_word, words)) for words in (passage.before, passage.behind))
    cells = {
        "value": number(passage.hit.value),
        # one piece: the pieces of a flex box would lose the spaces between them
        "before": f"<span>{before}</span>",
        "behind": f"<b>{_word(passage.hit)}</b>{behind}",
        "place": html.escape(passage.place),
    }
    return '<div class="passage">' + "".join(f'<div class="{k}">{v}</div>' for k, v in cells.items()) + "</div>"


def _word(word: Word) -> str:
    text = html.escape(word.text)
    if word.strength < _LEAST:
        return text
    value = number(word.value)
    spaces = text[: len(text) - len(text.lstrip(" "))]
    unseen = f'<span class="unseen"> ({value})</span>'
    mark = f'<mark title="{value}" style="--strength: {min(word.strength, 1):.2f}">{text[len(spaces) :]}{unseen}</mark>'
    return spaces + mark
