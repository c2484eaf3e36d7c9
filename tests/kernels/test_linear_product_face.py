from __future__ import annotations

import pytest
import torch

from lamina_kernels import dispatch
from lamina_kernels.gram import linear_product
from lamina_kernels.gram.product import reference

X, V = torch.ones(5, 3), torch.ones(5, 2)


def test_the_form_that_ran_is_named():
    assert linear_product(X, V, impl="blocked").impl == "blocked"
    assert linear_product(X, V, impl="reference").impl == "reference"


def test_the_default_is_the_form_with_fewer_operations():
    assert linear_product(torch.ones(100, 3), torch.ones(100, 2)).impl == "blocked"
    assert linear_product(torch.ones(4, 300), torch.ones(4, 200)).impl == "reference"
    assert linear_product(torch.ones(4, 300), torch.ones(1000, 200), torch.ones(1000, 300)).impl == "reference"


def test_the_default_in_half_precision_is_the_form_that_sums_in_single():
    assert linear_product(torch.ones(4, 300).half(), torch.ones(4, 200).half()).impl == "blocked"


def test_the_default_does_not_run_the_reference_for_many_rows(monkeypatch):
    def refuse(*arguments: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the reference ran")

    monkeypatch.setattr(reference, "linear_product", refuse)
    assert linear_product(X, V).value.shape == (5, 2)
    with pytest.raises(AssertionError, match="the reference ran"):
        linear_product(X, V, impl="reference")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, V, torch.ones(5, 4)), "x has width 3 and y has width 4"),
        ((X, torch.ones(4, 2)), "v has 4 rows and y has 5"),
        ((X, V, torch.ones(6, 3)), "v has 5 rows and y has 6"),
        ((X, torch.ones(5)), r"v has shape \[5\], expected two dimensions"),
        ((torch.ones(2, 5, 3), V), r"x has shape \[2, 5, 3\]"),
        ((X.long(), V.long()), "x is torch.int64, expected float16"),
        ((X, V.double()), "v is torch.float64 on cpu, but x is torch.float32 on cpu"),
        ((X, V.to("meta")), "v is torch.float32 on meta, but x is torch.float32 on cpu"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_product(*arguments)


def test_a_tile_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="block is 0"):
        linear_product(X, V, block=0)


def test_an_unknown_form_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no form 'block', it has 'blocked', 'reference'; did you mean 'blocked'"):
        linear_product(X, V, impl="block")  # pyright: ignore[reportArgumentType]


def test_the_choice_takes_what_is_asked_for_before_the_default():
    assert dispatch.choose("op", ("a", "b"), "b", default="a") == "b"
    assert dispatch.choose("op", ("a", "b"), None, default="a") == "a"
