"""`count` and `distance_histogram` in their forms: planted truths, faults, bad input, memory."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from lamina_kernels.gram import count, distance_histogram, nearest
from tests.kernels import counting_checks as checks
from tests.kernels import selection_faults  # noqa: F401
from tests.kernels.forms import Form, always
from tests.kernels.gram_kernels import normal
from tests.meter import peak_bytes

_BLOCKED, _LAUNCH = "lamina_kernels.gram.counting.blocked", "lamina_kernels.gram.counting.launch"
TILES = {f"{_BLOCKED}.ROWS": 48, f"{_BLOCKED}.COLUMNS": 40}
FORMS = {
    "reference": Form(count, "reference"),
    "blocked": Form(count, "blocked"),
    "tiles": Form(count, "blocked", TILES),
    # Each program takes a tile of columns, or all of them.
    "triton": Form(count, "triton", {}, "interpreter"),
    "loop": Form(count, "triton", {f"{_LAUNCH}.PROGRAMS": 1}, "interpreter"),
}
# As on Hopper and Blackwell, where six products of bfloat16 are loaded by addresses.
DESCRIBED = Form(
    partial(count, precision="tf32"),
    "triton",
    {"lamina_kernels.tiles.descriptors.takes_descriptors": always, f"{_LAUNCH}.PROGRAMS": 1},
    "interpreter",
)
BINS = {name: form._replace(op=distance_histogram) for name, form in FORMS.items()}


# Interpreted programs are slow: one walks over the many points of a lattice, and many over the rest.
SLOW = {("triton", checks.points_of_a_lattice_in_a_ball), ("loop", checks.a_crowd_below_the_rounding_of_products)}


@pytest.mark.parametrize(
    ("form", "check"), [(form, check) for form in FORMS for check in checks.COUNTS if (form, check) not in SLOW]
)
def test_counts(form, check):
    FORMS[form].run(check)


@pytest.mark.parametrize("form", BINS.values(), ids=BINS)
@pytest.mark.parametrize("check", checks.HISTOGRAMS, ids=lambda check: check.__name__)
def test_histograms(form, check):
    form.run(check)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_any_shape_counts_like_differences(form, shape):
    form.run(checks.counts_like_differences, *shape)


@pytest.mark.parametrize("shape", [(33, 70, 9), (70, 40, 130)], ids=str)
def test_rows_that_descriptors_load(shape):
    DESCRIBED.run(checks.counts_like_differences, *shape, torch.float32, "squared")


def test_descriptors_of_other_rows_are_noticed():
    with pytest.raises(AssertionError):
        DESCRIBED.run(
            checks.counts_like_differences, 33, 70, 9, torch.float32, "squared",
            fault="descriptors_start_at_the_second_row",
        )  # fmt: skip


@pytest.mark.parametrize("form", ["blocked", "tiles"])
def test_the_widest_rows_count_like_differences(form):
    FORMS[form].run(checks.counts_like_differences, 5, 8, 16_384, torch.float32, "squared")


def test_the_kernel_is_launched_once_has_wide_addresses_and_refuses_what_it_does_not_take():
    BINS["triton"].run(checks.it_is_one_launch)
    BINS["triton"].run(checks.addresses_take_64_bits)
    BINS["triton"].run(checks.torch_finds_the_operators_in_order)
    BINS["triton"].run(checks.refusals)


@pytest.mark.parametrize(
    ("forms", "fault", "check"),
    [
        (FORMS, "selection_trusts_products", checks.a_crowd_below_the_rounding_of_products),
        (FORMS, "counts_hold_the_radius", checks.points_of_a_lattice_in_a_ball),
        (FORMS, "counts_forget_the_last_columns", checks.whole_distances_are_counted_exactly),
        (FORMS, "selection_meets_the_row_itself", checks.the_row_itself_counts_unless_excluded),
        (FORMS, "selection_takes_broken_rows_for_zeros", checks.broken_rows_are_within_nothing),
        (BINS, "selection_trusts_products", checks.pairs_of_whole_distances_fall_into_bins),
        (BINS, "counts_forget_the_last_columns", checks.pairs_on_a_line),
        (BINS, "histogram_drops_the_last_edge", checks.pairs_of_whole_distances_fall_into_bins),
        (BINS, "selection_meets_the_row_itself", checks.pairs_on_a_line),
    ],
)
def test_a_fault_is_noticed(forms, fault, check):
    with pytest.raises(AssertionError):
        forms["tiles"].run(check, fault=fault)


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"),
    [
        (FORMS["triton"], "counts_kernel_trusts_products", checks.a_crowd_below_the_rounding_of_products, ()),
        (FORMS["triton"], "counts_kernel_measures_in_single", checks.roots_and_squares_of_radii_are_told_alike, ()),
        (FORMS["loop"], "counts_kernel_keeps_the_diagonal", checks.the_row_itself_counts_unless_excluded, ()),
        (FORMS["loop"], "counts_kernel_forgets_the_groups", checks.counts_like_differences, checks.SHAPES[1]),
        (FORMS["loop"], "counts_kernel_reads_one_chunk", checks.counts_like_differences, checks.SHAPES[3]),
        (FORMS["triton"], "counts_kernel_skips_a_program", checks.counts_like_differences, checks.SHAPES[2]),
        (BINS["loop"], "counts_kernel_trusts_products", checks.pairs_on_a_line, ()),
        (BINS["loop"], "counts_kernel_meets_broken_rows", checks.broken_rows_are_in_no_bin, ()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_of_the_kernel_is_noticed(form, fault, check, arguments):
    with pytest.raises(AssertionError):
        form.run(check, *arguments, fault=fault)


def test_the_kth_neighbor_lies_on_its_radius() -> None:
    x = normal(200, 7, seed=0)
    radii = nearest(x, None, 5, exclude="self").distances[:, -1]
    for strict in (False, True):
        found = count(x, None, radii, distance="squared", strict=strict, exclude="self")
        assert found.tolist() == [5 - strict] * 200


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1.0,), {"distance": "hamming"}, "count: distance is 'hamming', expected one of 'squared'"),
        ((-1.0,), {}, "count: radius is -1.0, expected a number from 0"),
        ((math.nan,), {"distance": "dot"}, "count: radius is nan"),
        ((torch.ones(4),), {}, r"count: radius has shape \[4\], expected one number, or \[3\]"),
        ((1.0,), {"exclude": torch.zeros(2).long()}, "count: groups of x have shape"),
    ],
)
def test_bad_radii(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count(torch.ones(3, 2), None, *arguments, **options)


@pytest.mark.parametrize(
    ("edges", "message"), [([1.0], "at least two"), ([0, 2, 2], "do not rise"), ([0, math.nan], "do not rise")]
)
def test_bad_edges(edges: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"distance_histogram: edges .*{message}"):
        distance_histogram(torch.ones(3, 2), None, edges)


@pytest.mark.parametrize("form", BINS)
def test_rows_with_gradients_are_counted_like_others(form: str) -> None:
    BINS[form].run(checks.rows_with_gradients_are_counted_like_others)


def test_torch_finds_the_operators_in_order() -> None:
    from lamina_kernels.gram.counting import op
    from lamina_kernels.gram.counting.thresholds import thresholds
    from lamina_kernels.gram.distances import pairs
    from lamina_kernels.gram.pairs import flat

    p = pairs("", normal(9, 3, seed=1), normal(8, 3, seed=2), "euclidean", None, None)
    values = torch.linspace(0, 3, 9, dtype=torch.float64)
    for operator in (op._count, op._histogram):
        torch.library.opcheck(operator, (*flat(p), *thresholds(p, values, "euclidean"), "blocked"))


def test_memory_does_not_grow_with_the_rows_that_are_counted() -> None:
    """A band of queries against 100,000 and 1,000,000 rows: beside the rows, the same."""
    snippet = """
        import torch
        from lamina_kernels.gram import count
        y = torch.rand(1_000_000, 16)
        for _ in range(2):  # the second time, all of its code is in memory
            count(y[:32].clone(), y[:100_000], 1.0)
    """
    more = "        count(y[:32].clone(), y, 1.0)"
    # Peaks differ by up to 3 MB from process to process; what grew with the rows would each time.
    assert any(peak_bytes(f"{snippet}\n{more}") - peak_bytes(snippet) < 2e6 for _ in range(3))
