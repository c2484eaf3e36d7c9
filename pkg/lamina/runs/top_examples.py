"""Where a feature of sparse codes is most active, with what stands around it."""

from __future__ import annotations

import polars as pl

from lamina.runs.columns import RESERVED_ORDER


def top_examples(codes: pl.LazyFrame, rows: pl.LazyFrame, feature: int, k: int, context: int) -> pl.DataFrame:
    """The strongest activations of a feature and the rows around them; see `Run.top_examples`.

    Args:
        codes: The long frame.
        rows: The metadata of the rows that have codes.
        feature: Which.
        k: How many activations.
        context: How many positions on either side.
    """
    columns = rows.collect_schema().names()
    keys = [name for name in RESERVED_ORDER if name in columns and name != "position"]
    positioned = "position" in columns and "example" in columns
    of_feature = codes.filter(pl.col("feature") == feature).select("row", "value")
    # NaN comes last, and of equal values the first row counts
    order = pl.col("value").is_nan(), pl.col("value"), pl.col("row")
    top = of_feature.sort(*order, descending=[False, True, False]).head(k).collect()
    ranked = top.select("row", rank=pl.int_range(1, top.height + 1, dtype=pl.Int64))
    hits = rows.filter(pl.col("row").is_in(top["row"].implode())).collect().join(ranked, on="row")
    if not positioned or context <= 0:
        around = hits.with_columns(offset=pl.lit(0, pl.Int64))
    else:
        here = hits.select("rank", *keys, hit="row", at="position")
        near = rows.filter(pl.col("example").is_in(hits["example"].unique().implode())).collect()
        offset = pl.col("position") - pl.col("at")
        around = (
            near.join(here, on=keys, nulls_equal=True)
            .with_columns(offset=pl.when(pl.col("row") == pl.col("hit")).then(0).otherwise(offset))
            .filter((pl.col("row") == pl.col("hit")) | (offset.abs() <= context))
        )
    values = of_feature.filter(pl.col("row").is_in(around["row"].unique().implode())).collect()
    shown = around.join(values, on="row", how="left").with_columns(pl.col("value").fill_null(0))
    return shown.select("rank", "offset", "value", *columns).sort("rank", "offset", "row")
