"""The section on attention: how widely each head looks, and at what."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import heatmap
from lamina.report.alike import grouped
from lamina.report.choice import MODULE, attention_sites, source_of, steps_of
from lamina.report.head_measures import heads_mean, heads_share
from lamina.report.section import Picture, Section, Table
from lamina.report.swept import swept
from lamina.text import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.measures import Estimate
    from lamina.runs import Run

_RUNS = 6
"""Most runs averaged."""
_MODULES = 48
"""Most attention modules shown."""
_TARGETS = {
    "previous": "the token before",
    "next": "the token behind",
    "self": "the token itself",
    "sink": "the first token",
}
_MARK = r"^(\[[A-Z]+\]|<[^<>]+>)$"
"""Tokens that stand for no text, such as `[SEP]` or `</s>`."""
_MARKS = 2
"""Most of them shown: the most frequent ones."""
_BEST = 3
"""Heads that the table names for each thing looked at."""


def heads_section(runs: list[Run]) -> Section | None:
    """Return pictures of the heads at the last step, or None if no run holds statistics of attention.

    Drawn is what was recorded: `entropy`; the weight on the tokens before, behind, itself and first; and, by `received`
    and the column `token` of the examples, the weight on tokens that stand for no text.
    """
    kept = [run for run in runs if attention_sites(run).height][:_RUNS]
    if not kept:
        return None
    sites = attention_sites(kept[0])
    modules = sites["module"].unique(maintain_order=True).to_list()[:_MODULES]
    sites = sites.filter(pl.col("module").is_in(modules))
    named = dict(zip(modules, short(modules), strict=True))
    section, weights = Section("What the attention heads look at"), []
    for statistic, names in sites.group_by("statistic", maintain_order=True).agg("site").iter_rows():
        if statistic == "entropy" and (frame := _swept(kept, names, named, heads_mean)) is not None:
            section.parts.append(_entropy(frame))
        elif statistic in _TARGETS and (frame := _swept(kept, names, named, heads_mean)) is not None:
            weights.append(frame.with_columns(pl.lit(_TARGETS[statistic]).alias("looks at")))
        elif statistic == "received":
            for mark in _marks(kept[0]):
                frame = _swept(kept, names, named, heads_share, labels="token", of=mark)
                if frame is not None:
                    weights.append(frame.with_columns(pl.lit(mark).alias("looks at")))
    if weights:
        section.parts.extend(_weights(pl.concat(weights)))
    return section if section.parts else None


def short(modules: list[str]) -> list[str]:
    """Return names of modules without what all of them begin or end with, but with the word before a number.

    Example:
        >>> short(["encoder.layer.0.attention", "encoder.layer.1.attention"])
        ['layer.0', 'layer.1']
    """
    parts = [module.split(".") for module in modules]
    least = min(map(len, parts))
    first = next((k for k in range(least) if len({part[k] for part in parts}) > 1), 0)
    last = next((k for k in range(least) if len({part[-1 - k] for part in parts}) > 1), 0)
    first -= first > 0 and all(part[first].isdigit() for part in parts)
    return [".".join(part[first : len(part) - last]) for part in parts]


def _swept(
    runs: list[Run],
    sites: list[str],
    named: dict[str, str],
    measure: Callable[..., Estimate],
    *,
    labels: str | None = None,
    **options: str,
) -> pl.DataFrame | None:
    """Return run, site (the module's short name), step, head, value and stderr; None if nothing could be measured."""
    source = source_of(runs[0], sites[0])
    step = steps_of(runs[0], sites[0], source)[-1]
    given = options | grouped(runs[0], runs[0].rows(sites[0], step=step, source=source))
    chosen = {"sites": sites, "steps": step, "source": source, "labels": labels, "options": given}
    frame = swept(measure, runs, progress=False, **chosen)
    if frame is None or frame["value"].is_null().all():
        return None
    frame = frame.rename({"run_a": "run", "site_a": "site", "step_a": "step", "part": "head"})
    frame = frame.select("run", "site", "step", "head", "value", "stderr", "n", "n_groups")
    return frame.with_columns(site=MODULE.replace_strict(named)).drop_nulls("value")


def _marks(run: Run) -> list[str]:
    examples = run.examples()
    if "token" not in examples.collect_schema().names():
        return []
    marks = examples.filter(pl.col("token").str.contains(_MARK)).group_by("token").len()
    return marks.sort("len", "token", descending=[True, False]).head(_MARKS).collect()["token"].to_list()


def _entropy(frame: pl.DataFrame) -> Picture:
    frame = frame.drop("stderr").with_columns(measure=pl.lit("entropy"), unit=pl.lit("nats"))
    chart = heatmap(frame, columns="head", title="How widely each head looks")
    layers = frame.group_by("site", maintain_order=True).agg(pl.col("value").mean())
    along = ", ".join(f"{site} {value:.2f}" for site, value in layers.iter_rows())
    means = _over_runs(frame.with_columns(stderr=None))
    ends = [means.sort("value").row(k, named=True) for k in (0, -1)]
    narrow, wide = (f"{end['site']} head {end['head']} ({number(math.exp(end['value']))} tokens)" for end in ends)
    return Picture(
        chart,
        "The entropy of a head's weights, mean over tokens: e to the power of it is about the number of tokens that "
        f"share them, and a pale head looks at few. The narrowest head is {narrow}, the widest {wide}. Means over the "
        f"heads: {along}.",
    )


def _weights(frame: pl.DataFrame) -> list[Picture | Table]:
    drawn = frame.drop("stderr").with_columns(measure=pl.lit("weight"), unit=pl.lit("mean over tokens"))
    chart = heatmap(drawn, columns="head", title="What each head looks at")
    means = _over_runs(frame)
    every = means.select("site", "head").n_unique()
    above = means.group_by("looks at", maintain_order=True).agg((pl.col("value") > 0.5).sum())
    counts = ", ".join(f"{count} to {target}" for target, count in above.iter_rows())
    best = means.sort("value", descending=True).group_by("looks at", maintain_order=True).head(_BEST)
    order = {target: place for place, target in enumerate(above["looks at"])}
    best = best.sort(pl.col("looks at").replace_strict(order), -pl.col("value"))
    numbers = {"weight": pl.col("value").round(3), "error": pl.col("stderr").round(4)}
    table = best.select("looks at", pl.col("site").alias("layer"), "head", **numbers)
    return [
        Picture(
            chart,
            "The part of its weight that a head gives to one place, mean over tokens. A head that is dark at the token "
            "before or behind goes by position, one that is dark at a token without a text has mostly nothing to say. "
            f"Of {every} heads, so many give more than half of their weight: {counts}.",
        ),
        Table(
            table if table["error"].is_not_null().any() else table.drop("error"),
            f"The {_BEST} heads that look most at each, with the weight that they give it.",
        ),
    ]


def _over_runs(frame: pl.DataFrame) -> pl.DataFrame:
    """Return means over runs; the error is that of a single run, and null for several."""
    keys = [name for name in ("looks at", "site", "head") if name in frame.columns]
    alone = frame["run"].n_unique() == 1
    error = pl.col("stderr").first() if alone else pl.lit(None, pl.Float64).alias("stderr")
    return frame.group_by(keys, maintain_order=True).agg(pl.col("value").mean(), error)
