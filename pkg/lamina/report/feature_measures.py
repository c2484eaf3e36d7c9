"""What the section on features measures: of which rows codes are, how often features fire, and on which tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import SchemaError

if TYPE_CHECKING:
    from lamina.rows import Rows
    from lamina.runs import Run

_UNITS = 8_000_000
"""About the most active units read to say what features fire on; of more rows some are taken, spread over all."""
_STRONG = 0.5
"""Part of the 99 % quantile of its values from which on a feature counts as firing strongly."""
_KEYS = ("step", "source", "example", "position")
_LABELS = ("token", "label")
"""Columns of the examples that say what a row is, the best first."""


@dataclass(frozen=True)
class Coded:
    """Sparse codes of a run.

    Attributes:
        run: The run.
        site: Their site.
        width: How many features there are.
        rows: One row a row that has codes: `row`, and what is known of `step`, `example`, `position` and the label.
        step: The last step, which is shown.
        label: The column of `rows` that says what a row is; None if the examples tell none.
    """

    run: Run
    site: str
    width: int
    rows: pl.DataFrame
    step: int
    label: str | None

    def at_step(self) -> pl.DataFrame:
        """Return the rows of the last step."""
        return self.rows.filter(pl.col("step") == self.step)

    def units(self) -> pl.LazyFrame:
        """Return the active units of the last step's rows."""
        return self.units_at([self.step])

    def units_at(self, steps: list[int]) -> pl.LazyFrame:
        """Return the active units of the rows of some steps."""
        units = self.run.features(self.site).filter(pl.col("step").is_in(steps))
        if "source" not in self.rows.columns:
            return units
        return units.filter(pl.col("source").eq_missing(pl.lit(self.rows["source"][0], pl.String)))


def coded(run: Run, site: str) -> Coded | None:
    """Return the codes of a site, of the source with the most active units; None if no row has codes."""
    width = run.sites().filter(pl.col("site") == site)["shape"].list.first().item()
    rows = _rows(run, site)
    if not len(rows):
        return None
    own = run.features(site).collect_schema().names()
    known = [name for name in _KEYS if name in own]
    labels = [name for name in _LABELS if name in rows.columns and "example" in own][:1]
    frame = rows.metadata([*known, *labels]).with_columns(row=pl.Series(rows.ids))
    return Coded(run, site, width, frame, int(frame["step"].max()), *(labels or [None]))  # pyright: ignore[reportArgumentType]


def firing(codes: Coded) -> pl.DataFrame:
    """Return feature, count, density and max at the last step, all features in order; of one that is dead max is null.

    Cost: a pass over the codes.
    """
    units = codes.units().filter(pl.col("value") != 0).group_by("feature")
    found = units.agg(count=pl.len().cast(pl.Int64), max=pl.col("value").cast(pl.Float64).max()).collect()
    every = pl.DataFrame({"feature": pl.int_range(codes.width, eager=True)})
    every = every.join(found, on="feature", how="left", maintain_order="left").with_columns(
        pl.col("count").fill_null(0)
    )
    return every.select("feature", "count", "max", density=pl.col("count") / codes.at_step().height)


def strongly(units: pl.DataFrame) -> pl.DataFrame:
    """Return the units that are at least half of the 99 % quantile of their feature's values, and above 0."""
    positive = units.filter(pl.col("value").is_finite(), pl.col("value") > 0)
    return positive.filter(pl.col("value") >= _STRONG * pl.col("value").quantile(0.99).over("feature"))


def selective(codes: Coded, fired: pl.DataFrame, *, seed: int = 0) -> pl.DataFrame:
    """Return how much of whether a feature fires strongly its label says, and how many labels it unites.

    With a for whether a feature fires strongly (`strongly`) and t for the label of a row, selectivity is
    (I(a; t) - I0) / (H(a) - I0), where I0 is the mutual information after the labels were shuffled: Theil's uncertainty
    coefficient, adjusted for chance as by Vinh, Epps and Bailey (2010). United are exp(H(t | a = 1)) labels: the
    perplexity of the labels of those rows.

    Returns:
        Columns feature, strong (rows), selectivity, united; without features that fire nowhere strongly. Of more than 8
        million active units, those of some rows are taken, spread over all.
    """
    labels = codes.at_step().select("row", pl.col(codes.label or "token").alias("label")).drop_nulls()
    most = _UNITS * codes.at_step().height // max(int(fired["count"].sum()), 1)
    every = -(-labels.height // max(most, 1))
    units = codes.units()
    if every > 1:
        labels = labels.gather_every(every)
        units = units.filter(pl.col("row").is_in(labels["row"].implode()))
    strong = strongly(units.select("row", "feature", pl.col("value").cast(pl.Float64)).collect()).drop("value")
    by_chance = labels.with_columns(pl.col("label").shuffle(seed=seed))
    found = informed(strong, labels).join(informed(strong, by_chance), on="feature", suffix="_chance")
    gained, possible = (pl.col(name) - pl.col("information_chance") for name in ("information", "entropy"))
    share = pl.col("len") / pl.col("len").sum()
    united = strong.join(labels, on="row").group_by("feature", "label").len().group_by("feature")
    return (
        found.join(united.agg(united=(-share * share.log()).sum().exp()), on="feature")
        .with_columns(selectivity=pl.when(possible > 1e-12).then(gained / possible).otherwise(0.0))
        .select("feature", "strong", "selectivity", "united")
        .sort("feature")
    )


def informed(active: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the mutual information of whether a feature is active and a row's label, in nats, and the first's entropy.

    I(a; t) = sum over a in {0, 1} and t of p(a, t) log(p(a, t) / (p(a) p(t))), with the shares of rows as p.

    Args:
        active: Columns `feature` and `row`: where features are active.
        labels: Columns `row` and `label`, of all rows.

    Returns:
        Columns feature, strong (rows in which it is active), information, entropy; a row a feature that is active
        somewhere.
    """
    rows = labels.height
    totals = labels.group_by("label").agg(of_label=pl.len().cast(pl.Float64))
    pairs = active.join(labels, on="row").group_by("feature", "label").agg(both=pl.len().cast(pl.Float64))
    both, of_label, of_feature = pl.col("both"), pl.col("of_label"), pl.col("both").sum().over("feature")
    only_label, silent = of_label - both, rows - of_feature
    joint = both * (both * rows / (of_feature * of_label)).log()
    apart = pl.when(only_label > 0).then(only_label * (only_label * rows / (silent * of_label)).log()).otherwise(0.0)
    together = (pl.col("joint") + pl.col("apart")).sum()
    sums = (
        pairs.join(totals, on="label")
        .with_columns(joint=joint, apart=apart)
        .group_by("feature")
        .agg(strong=both.sum().cast(pl.Int64), together=together, never=rows - of_label.sum())
        .with_columns(share=pl.col("strong") / rows)
    )
    share, other = pl.col("share"), 1 - pl.col("share")
    # labels that the feature never comes with
    unseen = pl.when(pl.col("never") > 0).then(-pl.col("never") * other.log()).otherwise(0.0)
    information = (pl.col("together") + unseen) / rows
    entropy = -share * share.log() - pl.when(other > 0).then(other * other.log()).otherwise(0.0)
    return sums.select("feature", "strong", information=information, entropy=entropy)


def _rows(run: Run, site: str) -> Rows:
    """Return the rows of a site, those of the source with the most active units where there are several."""
    try:
        return run.rows(site)
    except SchemaError:
        counts = run.features(site).group_by("source").len().sort("len", "source", descending=[True, False])
        return run.rows(site, source=counts.collect()["source"][0])
