"""The cards of features: on what they fire most, in context."""

from __future__ import annotations

import polars as pl

from lamina.report.feature_measures import Coded, strongly
from lamina.report.section import Card, Passage, Word
from lamina.report.spelling import spelled
from lamina.text import number

_PASSAGES = 6
"""Rows shown of a feature, each of another example."""
_CONTEXT = 12
"""Positions shown before and behind."""
_TOKENS = 4
"""Most tokens that the facts name."""


def cards(codes: Coded, chosen: pl.DataFrame) -> list[Card]:
    """Return a card a feature.

    Args:
        codes: Sparse codes.
        chosen: Columns feature, density, max, and selectivity where it is known; a row a feature, in order.
    """
    wanted = chosen["feature"].implode()
    units = codes.units().filter(pl.col("feature").is_in(wanted)).select("row", "feature", "value").collect()
    units = units.with_columns(pl.col("value").cast(pl.Float64)).filter(pl.col("value").is_finite())
    rows = codes.at_step()
    units = units.join(rows, on="row")
    by_feature = {feature: frame for (feature,), frame in units.group_by("feature")}
    return [_card(by_feature[row["feature"]], rows, row, codes.label) for row in chosen.iter_rows(named=True)]


def _card(units: pl.DataFrame, rows: pl.DataFrame, row: dict[str, float], label: str | None) -> Card:
    strong = strongly(units)
    title, facts = f"Feature {row['feature']:,}", [f"fires in {_percent(row['density'])} of the rows"]
    if row.get("selectivity") is not None:
        facts.insert(0, f"selectivity {row['selectivity']:.2f}")
    if label is not None:
        shares = _shares(strong, label)
        title += f": {', '.join(name for name, _ in shares)}"
        named = ", ".join(f"“{name}” {_percent(share)}" for name, share in shares)
        facts.append(f"strongly in {strong.height:,} of them: {named}")
    facts.append(f"largest value {number(row['max'])}")
    passages = [_passage(hit, units, rows, row["max"], label) for hit in _shown(strong, label)]
    return Card(title, " · ".join(facts), passages)


def _shown(strong: pl.DataFrame, label: str | None) -> list[dict[str, object]]:
    """Return the rows with the largest value of each label, then the second largest; each of another example."""
    ranked = strong.sort("value", "row", descending=[True, False])
    if "example" in ranked.columns:
        # a text that says the same again and again would fill the card
        ranked = ranked.unique(["example", *([label] if label else [])], keep="first", maintain_order=True)
    if label is not None:
        ranked = ranked.sort(pl.col("value").rank("ordinal", descending=True).over(label), maintain_order=True)
    if "example" in ranked.columns:
        ranked = ranked.unique("example", keep="first", maintain_order=True)
    return ranked.head(_PASSAGES).sort("value", descending=True, maintain_order=True).to_dicts()


def _passage(
    hit: dict[str, object], units: pl.DataFrame, rows: pl.DataFrame, most: float, label: str | None
) -> Passage:
    near = rows.filter(pl.col("row") == hit["row"])
    if hit.get("example") is not None and hit.get("position") is not None:
        away = pl.col("position") - pl.lit(hit["position"])
        near = rows.filter(pl.col("example") == hit["example"], away.abs() <= _CONTEXT).sort("position")
    values = near.join(units.select("row", "value"), on="row", how="left", maintain_order="left")["value"].fill_null(
        0.0
    )
    place = near["row"].to_list().index(hit["row"])
    texts = _texts(near, label)
    words = [
        Word(text, value, max(value, 0.0) / most if most > 0 else 0.0)
        for text, value in zip(texts, values, strict=True)
    ]
    example = "" if hit.get("example") is None else f"example {hit['example']}"
    return Passage(words[:place], words[place], words[place + 1 :], example)


def _texts(near: pl.DataFrame, label: str | None) -> list[str]:
    """Return what rows are called: their labels, or else their positions or names."""
    if label is not None:
        return spelled([text or "?" for text in near[label].cast(pl.String)])
    name = "position" if "position" in near.columns else "row"
    return [f" {value}" for value in near[name]]


def _shares(strong: pl.DataFrame, label: str) -> list[tuple[str, float]]:
    """Return the labels of most rows, and the share of each."""
    shares = strong.group_by(pl.col(label).cast(pl.String)).agg(share=pl.len() / strong.height).drop_nulls()
    return shares.sort("share", label, descending=[True, False]).head(_TOKENS).rows()


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
