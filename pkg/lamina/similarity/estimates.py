"""From HSIC of x with x, y with y, and x with y to the estimates that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.measures import Estimate, Replicates
from lamina.similarity.degenerate import corrected, ratio_of_pairs

if TYPE_CHECKING:
    from lamina.similarity.jackknifed import Hsic

DEBIASED = "debiased over distinct groups"


def of_ratio(
    hsic: Hsic,
    options: Mapping[str, Any],
    *,
    debiased: bool = True,
    seed: int | None = None,
    measure: str = "cka",
    part: str = "hsic",
) -> Estimate:
    """Return the estimate of HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)).

    Args:
        hsic: The three.
        options: What the estimate tells of how it came about.
        debiased: Which HSIC it is.
        seed: What was drawn with it.
        measure: The measure's name.
        part: What HSIC is called in the estimate's parts.

    Raises:
        SchemaError: Too few groups, or a representation that does not vary.
    """
    _check(hsic, debiased, measure, part)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = hsic.values["xy"] / np.sqrt(hsic.values["xx"] * hsic.values["yy"])
    whole = {name: float(each[0]) for name, each in hsic.values.items()}
    pairs = None if hsic.pairs is None else ratio_of_pairs(hsic.pairs, whole)
    return _estimate(hsic, values, pairs, options, debiased, seed, measure, part)


def of_hsic(hsic: Hsic, options: Mapping[str, Any], *, debiased: bool, seed: int | None) -> Estimate:
    """Return the estimate of HSIC(x, y) itself.

    Args:
        hsic: See `of_ratio`.
        options: See `of_ratio`.
        debiased: See `of_ratio`.
        seed: See `of_ratio`.

    Raises:
        SchemaError: See `of_ratio`.
    """
    _check(hsic, debiased, "hsic", "hsic")
    pairs = None if hsic.pairs is None else hsic.pairs["xy"]
    return _estimate(hsic, hsic.values["xy"], pairs, options, debiased, seed, "hsic", "hsic")


def _estimate(
    hsic: Hsic,
    values: np.ndarray,
    pairs: np.ndarray | None,
    options: Mapping[str, Any],
    debiased: bool,
    seed: int | None,
    measure: str,
    part: str,
) -> Estimate:
    value, error = float(values[0]), "delete-a-group jackknife"
    replicates = Replicates.of(hsic.keys, hsic.rows, values[1:])
    if pairs is None:
        stderr = replicates.stderr(value)
    else:
        stderr, replicates = corrected(value, replicates, pairs)
        error += ", pairs counted once"
    return Estimate(
        measure=measure,
        value=value,
        stderr=stderr,
        n=hsic.n,
        n_groups=hsic.n_groups,
        dropped=hsic.dropped,
        estimator=DEBIASED if debiased else "biased",
        error=error,
        options=options,
        dtype=hsic.dtype,
        seed=seed,
        parts={f"{part}_{name}": float(each[0]) for name, each in hsic.values.items()} | dict(hsic.bandwidths),
        replicates=replicates,
    )


def _check(hsic: Hsic, debiased: bool, measure: str, part: str) -> None:
    least = 4 if debiased else 1
    if hsic.n_groups < least:
        raise SchemaError(
            f"{hsic.n} rows in {hsic.n_groups} groups",
            hint=f"a {'debiased' if debiased else 'biased'} {measure} needs at least {least} group{'s' * (least > 1)}; "
            "groups= says what is independent",
        )
    for side in "xy":
        if not hsic.values[side + side][0] > 0:
            raise SchemaError(
                f"{side} does not vary between groups: {part}({side}, {side}) is {hsic.values[side + side][0]:.3g}",
                hint="are all rows equal, or are there too few groups?",
            )
