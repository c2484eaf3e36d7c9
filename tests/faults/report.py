"""Faults of pictures and reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def thin_mixes_runs(patch: pytest.MonkeyPatch) -> None:
    """Neighboring steps are averaged over all runs at once."""
    from lamina.plot import steps

    whole = steps.thin
    patch.setattr(
        steps,
        "thin",
        lambda frame, by, limit: (
            frame.select(*by).unique().join(whole(frame.with_columns(run=0), ["run"], limit).drop("run"), how="cross")
        ),
    )


@fault
def procrustes_only_turns(patch: pytest.MonkeyPatch) -> None:
    """Pictures are turned towards each other, but never mirrored: an axis may flip between steps."""
    import numpy as np

    from lamina.report import principal

    def turn(points: np.ndarray, target: np.ndarray) -> np.ndarray:
        left, _, right = np.linalg.svd(points.T @ target)
        return left @ np.diag([1.0, np.linalg.det(left @ right)]) @ right

    patch.setattr(principal, "rotation_onto", turn)


@fault
def learnt_forgets_relapses(patch: pytest.MonkeyPatch) -> None:
    """An example counts as learnt from the first step at which its loss is low, whatever follows."""
    import polars as pl

    from lamina.report import learnt

    whole = learnt.learnt_frame

    def first_low(run: Any) -> pl.DataFrame:
        frame = whole(run)
        low = run.activations("loss").filter(pl.col("loss") < frame["threshold"][0]).collect()
        steps = low.group_by("example").agg(learnt=pl.col("step").min())
        return frame.drop("learnt").join(steps, on="example", how="left")

    patch.setattr(learnt, "learnt_frame", first_low)


@fault
def windows_forget_where_they_begin(patch: pytest.MonkeyPatch) -> None:
    """The tokens of every window are counted from its own beginning."""
    from dataclasses import replace

    from lamina.demo import documentation

    whole = documentation.windows
    patch.setattr(
        documentation,
        "windows",
        lambda texts, tokenizer: [replace(part, first=0) for part in whole(texts, tokenizer)],
    )


@fault
def layers_take_rows_for_independent(patch: pytest.MonkeyPatch) -> None:
    """The report takes every row for a group of its own."""
    from lamina.report import alike

    patch.setattr(alike, "groups_of", lambda run: "row")


@fault
def heads_share_counts_all_rows(patch: pytest.MonkeyPatch) -> None:
    """What a head gives to one token is taken over all rows."""
    from lamina.report import head_measures

    whole = head_measures._ratio
    patch.setattr(head_measures, "_ratio", lambda rows, above, below, *how, **of: whole(rows, below, below, *how, **of))


@fault
def runs_have_the_band_of_one(patch: pytest.MonkeyPatch) -> None:
    """The band around a mean over runs is what each run's own error makes of it."""
    import polars as pl

    from lamina.plot import bands

    whole = bands.summarize

    def own(frame: pl.DataFrame) -> pl.DataFrame:
        reach = 2 * pl.col("within")
        return whole(frame).with_columns(low=pl.col("value") - reach, high=pl.col("value") + reach)

    patch.setattr(bands, "summarize", own)


@fault
def heatmap_loses_a_direction(patch: pytest.MonkeyPatch) -> None:
    """A pair that has one direction is drawn in that one alone."""
    from lamina.plot import cells

    patch.setattr(cells, "_both_directions", lambda frame: frame)


@fault
def mds_does_not_square(patch: pytest.MonkeyPatch) -> None:
    """Distances are centered as they are, not their squares."""
    from importlib import import_module

    room = import_module("lamina.plot.mds")
    whole = room.classical
    patch.setattr(room, "classical", lambda distances: whole(distances**0.5))
