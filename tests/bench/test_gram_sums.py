"""What a table of measured forms says of the switch between them, and what a split path is predicted to take."""

from __future__ import annotations

import pytest

from bench import split_predicted
from bench.gram_sums import switch
from bench.predicted import HERTZ, PROCESSORS, PRODUCTS


def rows(times: dict[tuple[str, int, str], tuple[float, float]]) -> list[dict[str, object]]:
    """Make the rows of a table from milliseconds of "triton" and of "blocked", by what, width and dtype."""
    return [
        {"what": what, "d": d, "dtype": dtype, "by": by, "median, ms": took}
        for (what, d, dtype), both in times.items()
        for by, took in zip(("lamina", "lamina, blocked"), both, strict=True)
    ]


def test_the_switch_is_the_width_from_which_blocked_is_ahead_in_every_dtype():
    product = "RBF product"
    times = {
        (product, 64, "bfloat16"): (2.0, 1.0),  # ahead, but not from here on
        (product, 512, "bfloat16"): (1.0, 2.0),
        (product, 1024, "bfloat16"): (3.0, 2.0),
        (product, 2048, "bfloat16"): (3.0, 2.0),
        (product, 1024, "float32"): (1.0, 2.0),
        (product, 2048, "float32"): (2.0, 1.0),
        ("argmin", 512, "bfloat16"): (1.0, 2.0),
    }
    assert switch(rows(times)) == "SPLIT: Mapping[str, int] = {'product': 2048}"


def test_two_ops_that_share_a_form_switch_where_both_are_behind():
    times = {("InfoNCE", 512, "bfloat16"): (2.0, 1.0), ("sigmoid loss", 512, "bfloat16"): (1.0, 2.0)}
    assert switch(rows(times)) == "SPLIT: Mapping[str, int] = {}"
    times["sigmoid loss", 512, "bfloat16"] = (2.0, 1.0)
    assert switch(rows(times)) == "SPLIT: Mapping[str, int] = {'pairwise_loss': 512}"


def test_a_split_path_takes_its_product_and_the_bytes_of_it():
    took = split_predicted.clocks(2 * 4096, "half", split_predicted.MEMORY) / (PROCESSORS * HERTZ)
    assert took == pytest.approx(8192 / 816e12 + 8 / 3.35e12)
    # As accurate as six products of bfloat16: no more operations than one of them has.
    took = split_predicted.clocks(12 * 64, "bf16x6", split_predicted.CACHE) / (PROCESSORS * HERTZ)
    assert took == pytest.approx(128 / 120e12 + 8 / 5.5e12)


def test_at_break_even_both_paths_take_as_long():
    operations, rest, split = 2 * 1024.0, 0.3, 1.2
    share = split_predicted.break_even(operations, operations / PRODUCTS + rest, split)
    assert operations / PRODUCTS / share + rest == pytest.approx(split)
    assert split_predicted.break_even(operations, operations / PRODUCTS + 2, 2.0) == float("inf")
