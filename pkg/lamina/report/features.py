"""The section on sparse codes: what features fire on, how often, and how many are dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina.report.choice import names_of
from lamina.report.feature_cards import cards
from lamina.report.feature_charts import density_chart, training_chart
from lamina.report.feature_measures import Coded, coded, firing, selective
from lamina.report.section import Cards, Picture, Section, Table

if TYPE_CHECKING:
    from lamina.runs import Run

_SITES = 4
"""Most sites shown, those with the most features first; the others are named."""
_RUNS = 6
"""Most runs whose dead features are drawn."""
_SHOWN = 10
"""Features that have a card."""
_UNITED = 3
"""Labels that a feature unites, at least, to be preferred: what fires on a single token repeats the vocabulary."""
_LEAST = 20
"""Rows in which a feature fires strongly, at least, to have a card."""


def features_section(runs: list[Run]) -> Section | None:
    """Return what the features of sparse codes do, or None if no run holds codes.

    The features with cards are those whose strong activity the token (or label) says most of, among those that unite
    several (`selective`); where the examples have neither, those with the largest values. Shown are up to four sites,
    each at the last step of the first run that holds it; dead features are counted over the steps of up to six runs.
    """
    section = Section("What the features fire on")
    sites = _sites(runs)
    for site in sites["site"][:_SITES]:
        held = [(run, name) for run, name in zip(runs, names_of(runs), strict=True) if _holds(run, site)][:_RUNS]
        found = [(name, codes) for run, name in held if (codes := coded(run, site)) is not None]
        if found:
            section.parts.extend(_parts(site, found, several=len(runs) > 1))
    if sites.height > _SITES:
        section.parts.append(Table(sites[_SITES:], f"Further sites of sparse codes: the {_SITES} widest are drawn."))
    return section if section.parts else None


def _parts(site: str, found: list[tuple[str, Coded]], *, several: bool) -> list[Cards | Picture]:
    name, codes = found[0]
    fired = firing(codes)
    where = f"{site}, {codes.width:,} features" + (f", run {name}" if several else "")
    parts: list[Cards | Picture] = []
    chosen, reading = (_largest if codes.label is None else _selective)(codes, fired)
    if chosen.height:
        parts.append(Cards(cards(codes, chosen), reading.format(where=where, label=codes.label)))
    rows, dead = codes.at_step().height, int((fired["count"] == 0).sum())
    subtitle = f"{where}; step {codes.step:,}; {rows:,} rows; {dead:,} features are dead"
    parts.append(
        Picture(
            density_chart(fired, subtitle),
            "Each bar counts the features whose density lies there. Features far to the left fire in so few rows that "
            "little can be said of them, those to the right in so many that they rarely mean one thing. A dead feature "
            f"fires in none of these {rows:,} rows.",
        )
    )
    if (chart := training_chart(found)) is not None:
        parts.append(
            Picture(
                chart,
                "At each recorded step, the share of the features that fire in none of that step's rows, and the share "
                "of the variance that the codes explain, where it was logged: what is dead explains nothing.",
            )
        )
    return parts


def _selective(codes: Coded, fired: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return the features that tokens say most of, and how to read their cards."""
    found, order = selective(codes, fired), [True, True, True, False]
    ranked = (
        found.filter(pl.col("strong") >= _LEAST, pl.col("selectivity") > 0)
        .join(fired, on="feature")
        # ties are many at 1, which sums in another order miss by their rounding
        .sort(pl.col("united") >= _UNITED, pl.col("selectivity").round(6), "strong", "feature", descending=order)
    )
    return ranked.head(_SHOWN), (
        "Features that look as if they meant something, of {where}: the ten whose strong activity the {label} "
        f"says most of, among those that unite at least {_UNITED} of these. A feature fires strongly where its value "
        "is at least half of the 99 % quantile of its values. With a for whether it does and t for the {label}, its "
        "selectivity is (I(a; t) - I₀) / (H(a) - I₀), of the mutual information I, the same after the {label}s "
        "were shuffled over the rows, I₀, and the entropy H: 1 if the {label} decides whether it fires strongly, "
        "0 if it says no more of it than chance (Theil's uncertainty coefficient, adjusted for chance as by Vinh,"
        " Epps and Bailey, 2010). It unites exp(H(t | a)) of them. Left out is what fires strongly in fewer than "
        f"{_LEAST} rows. The lines are the rows where the value, on the left, is the largest, first of each {{label}}, "
        "and each of another example. The darker a mark, the larger the value there; the pointer shows it."
    )


def _largest(codes: Coded, fired: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return the features with the largest values, and how to read their cards."""
    del codes
    ranked = fired.filter(pl.col("count") > 0, pl.col("max").is_finite()).sort(
        "max", "feature", descending=[True, False]
    )
    return ranked.head(_SHOWN), (
        "Of {where}, the ten with the largest values; the run's examples name no tokens that would say what they mean. "
        "The lines are the rows where the value, on the left, is the largest, each of another example, by position, "
        "with the rows around. The darker a mark, the larger the value there; the pointer shows it."
    )


def _sites(runs: list[Run]) -> pl.DataFrame:
    """Return the sites of sparse codes and how many features they have, those with the most first."""
    sparse = [
        run.sites().filter(pl.col("kind") == "sparse").select("site", features=pl.col("shape").list.first())
        for run in runs
    ]
    found = pl.concat(sparse).unique("site", maintain_order=True)
    return found.sort("features", descending=True, maintain_order=True)


def _holds(run: Run, site: str) -> bool:
    return site in run.sites()["site"]
