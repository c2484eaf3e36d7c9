"""Contrastive losses by the Triton kernels, in Triton's interpreter, and what plain torch promises too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina_kernels.gram import pairwise_loss
from tests.kernels import contrastive_checks as checks
from tests.kernels.forms import Form
from tests.kernels.test_gram_triton import tiles

_TILING = "lamina_kernels.gram.tiling"
_TILES = {f"{_TILING}.sums": tiles, f"{_TILING}.sides": tiles, f"{_TILING}.gradients": tiles}
# Each program takes one block of rows and one of columns, or two of each.
FORMS = {
    "triton": Form(pairwise_loss, "triton", _TILES, "interpreter"),
    "loop": Form(
        pairwise_loss,
        "triton",
        _TILES | {"lamina_kernels.gram.sums.launch.DOWN": 2, "lamina_kernels.gram.sums.launch.PROGRAMS": 4},
        "interpreter",
    ),
    "blocked": Form(pairwise_loss, "blocked"),
}
DIGITS = checks.losses_have_their_digits


@pytest.mark.parametrize(
    ("form", "kind", "dtype"),
    [
        ("triton", "sigmoid", torch.float32),
        ("triton", "sigmoid", torch.bfloat16),
        ("triton", "sigmoid", torch.float16),
        ("triton", "infonce", torch.float32),
        ("loop", "infonce", torch.bfloat16),
        ("loop", "infonce", torch.float16),
        ("blocked", "sigmoid", torch.bfloat16),
        ("blocked", "infonce", torch.bfloat16),
    ],
)
def test_losses_have_their_digits(form: str, kind: str, dtype: torch.dtype) -> None:
    FORMS[form].run(DIGITS, kind, dtype)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check: Any) -> None:
    FORMS["loop"].run(check)


@pytest.mark.parametrize("check", checks.CHECKS[:5], ids=lambda check: check.__name__)
def test_of_plain_torch(check: Any) -> None:
    FORMS["blocked"].run(check)


@pytest.mark.parametrize(
    ("fault", "check", "arguments"),
    [
        ("sides_forget_what_columns_had", DIGITS, ("infonce", torch.float32)),
        ("sides_skip_a_part_of_the_columns", DIGITS, ("infonce", torch.float32)),
        ("cosines_pull_along_their_rows", DIGITS, ("sigmoid", torch.float32)),
        ("cosines_forget_the_lengths", DIGITS, ("sigmoid", torch.float32)),
        ("unit_vectors_are_rounded", checks.rows_are_not_rounded_again, ()),
        ("rows_stay_as_large_as_they_are", checks.rows_of_any_length_point_where_they_point, ()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_noticed(fault: str, check: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AssertionError):
        FORMS["loop"].run(check, *arguments, fault=fault)
