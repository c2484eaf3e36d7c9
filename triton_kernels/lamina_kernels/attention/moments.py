"""Triton functions of weighted means and squared deviations, tile by tile, without cancellation."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def mean_and_deviation(p, x, weight):
    """Return the means of the rows of x by weights p, whose sums are `weight`, and their squared deviations."""
    mean = tl.sum(p * x, 1) / tl.maximum(weight, 1e-37)
    apart = x - mean[:, None]
    return mean, tl.sum(p * apart * apart, 1)


@triton.jit
def mean_and_deviation_by_eight(by_eight, weights, weight, COLUMNS: tl.constexpr):
    """Return those of the columns of a tile, counted from its middle.

    Columns are 8 a + b: threads hold every a of few b, which are then numbers of the code.

    Args:
        by_eight: [R, COLUMNS // 8, 8]: the weights.
        weights: [R, 8]: their sums over a.
        weight: [R]: their sums.
        COLUMNS: Columns of the tile.
    """
    eights = (8 * tl.arange(0, COLUMNS // 8) - COLUMNS // 2).to(tl.float32)
    ones = tl.arange(0, 8).to(tl.float32)
    first_moments = tl.sum(by_eight * eights[None, :, None], 1)
    moment = tl.sum(first_moments + weights * ones[None, :], 1)
    second_moments = tl.sum(by_eight * (eights * eights)[None, :, None], 1)
    second_moments += (2 * first_moments + weights * ones[None, :]) * ones[None, :]
    mean = moment / tl.maximum(weight, 1e-37)
    return mean, tl.sum(second_moments, 1) - moment * mean


@triton.jit
def with_tile(mean, deviation, tile_mean, tile_deviation, portion, before, rescale):
    """Return mean and squared deviation with those of one more tile.

    Args:
        mean: [R]: so far.
        deviation: [R]: so far.
        tile_mean: [R]: of the tile.
        tile_deviation: [R]: of the tile.
        portion: [R]: the share of the tile in all weights.
        before: [R]: the weights so far.
        rescale: [R]: what sums so far are multiplied with.
    """
    step = tile_mean - mean
    return mean + step * portion, rescale * deviation + tile_deviation + step * step * portion * before
