"""`hsic_sums` in its forms, the Triton kernel in Triton's interpreter; tests/gpu has the same on a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import broken
from tests.kernels import hsic_checks as checks
from tests.kernels.hsic_checks import LINEAR, NARROW, WIDE
from tests.kernels.hsic_forms import FORMS

FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@FORM
@pytest.mark.parametrize("check", checks.TRUTHS, ids=lambda check: check.__name__)
def test(form, check):
    form.run(check)


@FORM
@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_any_shape_agrees_with_dense_double_precision(form, shape):
    form.run(checks.agrees_with_dense, *shape)


def tiles_are_exact(n: int, m: int | None, dx: int, dy: int, groups: int, block: int) -> None:
    """Whole numbers, whose sums and products are exact: the tiles must agree with integer arithmetic to the bit."""
    generator = torch.Generator().manual_seed(0)
    x, y, x_other, y_other = (
        torch.randint(-4, 5, shape, generator=generator) for shape in ((n, dx), (n, dy), (m or 0, dx), (m or 0, dy))
    )
    others = () if m is None else (x_other.float(), y_other.float())
    where = torch.randint(0, groups, (n if m is None else m,), generator=generator)
    K, L = (x @ x.T, y @ y.T) if m is None else (x @ x_other.T, y @ y_other.T)
    if m is None:
        K.fill_diagonal_(0)
        L.fill_diagonal_(0)
    members = (where[:, None] == torch.arange(int(where.max()) + 1 if len(where) else 0)).long()
    form = FORMS["tiles"]._replace(
        settings={**FORMS["tiles"].settings, "lamina_kernels.gram.paired.blocked.BLOCK": block}
    )

    def check(sums: checks.Sums) -> None:
        got = sums(x.float(), y.float(), *others, **{"groups" if m is None else "groups_other": where})
        for value, matrix in zip(got[:5], (K * L, K, L, K * K, L * L), strict=True):
            assert torch.equal(value, (matrix @ members).double())

    form.run(check)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 20),
    m=st.none() | st.integers(0, 20),
    dx=st.integers(0, 6),
    dy=st.integers(0, 6),
    groups=st.integers(1, 9),
    block=st.integers(1, 30),
)
def test_tiles_are_exact_at_any_shape_and_size(n, m, dx, dy, groups, block):
    tiles_are_exact(n, m, dx, dy, groups, block)


@pytest.mark.parametrize("name", ["hsic_drops_the_last_tile", "hsic_tiles_have_no_mirror_image"])
def test_a_fault_in_exact_tiles_is_noticed(name):
    with broken(name), pytest.raises(AssertionError):
        tiles_are_exact(20, None, 3, 3, 4, 8)


@FORM
@pytest.mark.parametrize("kernels", [(LINEAR, LINEAR), (NARROW, WIDE)], ids=str)
def test_blocks_add_up_to_the_whole(form, kernels):
    form.run(checks.blocks_add_up_to_the_whole, *kernels)


NOTICED = [
    ("blocked", "rbf_forgets_the_half", checks.rows_on_a_line_see_a_gaussian_of_their_distance, ()),
    ("blocked", "hsic_swaps_the_kernels", checks.kernels_are_not_swapped, ()),
    ("reference", "hsic_swaps_the_kernels", checks.kernels_are_not_swapped, ()),
    ("triton", "hsic_swaps_the_squares", checks.three_rows_by_hand, ()),
    ("tiles", "hsic_swaps_the_squares", checks.agrees_with_dense, checks.SHAPES[4]),
    ("blocked", "hsic_moments_keep_the_diagonal", checks.three_rows_by_hand, ()),
    ("blocked", "hsic_moments_keep_the_diagonal", checks.agrees_with_dense, checks.SHAPES[3]),
    ("tiles", "hsic_tiles_keep_the_diagonal", checks.equal_rows_score_one, ()),
    ("tiles", "hsic_tiles_have_no_mirror_image", checks.one_hot_rows_count_their_classes, ()),
    ("tiles", "hsic_tiles_have_no_mirror_image", checks.blocks_add_up_to_the_whole, (NARROW, WIDE)),
    ("tiles", "hsic_drops_the_last_tile", checks.agrees_with_dense, checks.SHAPES[2]),
    ("tiles", "hsic_groups_are_not_sorted", checks.groups_add_up_and_keep_to_themselves, ()),
    ("tiles", "hsic_groups_are_not_sorted", checks.agrees_with_dense, checks.SHAPES[9]),
    ("tiles", "hsic_groups_share_what_is_broken", checks.a_broken_row_shows_and_breaks_no_other_group, ()),
    ("tiles", "hsic_tiles_come_in_any_order", checks.the_same_bits_every_time, ()),
    ("blocked", "hsic_moves_the_rows_in_place", checks.the_arguments_leave_as_they_came, ()),
    ("triton", "hsic_kernel_keeps_the_diagonal", checks.three_rows_by_hand, ()),
    ("loop", "hsic_kernel_keeps_the_diagonal", checks.one_hot_rows_count_their_classes, ()),
    ("triton", "hsic_kernel_forgets_the_edge", checks.agrees_with_dense, checks.SHAPES[2]),
    ("triton", "gram_kernel_reads_one_chunk", checks.agrees_with_dense, checks.SHAPES[7]),
    ("triton", "hsic_kernel_forgets_the_order", checks.groups_add_up_and_keep_to_themselves, ()),
    ("triton", "hsic_kernel_skips_a_program", checks.every_sum_is_written, ()),
    ("triton", "hsic_kernel_tiles_as_it_likes", checks.the_same_bits_every_time, ()),
    ("triton", "hsic_kernel_ignores_the_strides", checks.strides_do_not_matter, ()),
]


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_noticed(form, fault, check, arguments):
    with pytest.raises(AssertionError):
        FORMS[form].run(check, *arguments, fault=fault)
