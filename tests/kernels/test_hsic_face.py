from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from lamina_kernels import dispatch
from lamina_kernels.gram import RBF, hsic_sums
from lamina_kernels.gram.paired import moments
from tests.kernels.hsic_checks import NARROW, Sums, normal
from tests.kernels.hsic_forms import FORMS

X, Y, OTHER = torch.ones(5, 3), torch.ones(5, 2), torch.ones(4, 3)
IDS = torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, torch.ones(4, 2)), {}, "x has 5 rows and y has 4, they must agree"),
        ((X, torch.ones(5)), {}, r"y has shape \[5\], expected two dimensions"),
        ((X.long(), Y), {}, "x is torch.int64, expected float16, bfloat16, float32 or float64"),
        ((X, Y.double()), {}, "y is torch.float64 on cpu, but x is torch.float32 on cpu"),
        ((X, Y.to("meta")), {}, "y is torch.float32 on meta, but x is torch.float32 on cpu"),
        ((X, Y, OTHER), {}, "x_other is given without y_other"),
        ((X, Y, None, OTHER), {}, "y_other is given without x_other"),
        ((X, Y, OTHER, torch.ones(3, 2)), {}, "x_other has 4 rows and y_other has 3"),
        ((X, Y, torch.ones(4, 2), torch.ones(4, 2)), {}, "x has width 3 and x_other has width 2"),
        ((X, Y, OTHER, OTHER), {}, "y has width 2 and y_other has width 3"),
        ((X, Y, OTHER.half(), torch.ones(4, 2)), {}, "x_other is torch.float16 on cpu"),
        ((X, Y), {"groups": IDS[:4]}, r"groups has shape \[4\], expected \[5\], one id a row"),
        ((X, Y), {"groups": IDS[:, None]}, r"groups has shape \[5, 1\]"),
        ((X, Y), {"groups": IDS - 1}, "groups holds the id -1, expected ids from 0"),
        ((X, Y), {"groups": IDS.float()}, "groups is torch.float32, expected integers"),
        ((X, Y), {"groups": IDS.bool()}, "groups is torch.bool, expected integers"),
        ((X, Y), {"groups": IDS.to("meta")}, "groups is on meta, but x is on cpu"),
        ((X, Y), {"groups_other": IDS}, "groups_other is given, expected groups: without x_other"),
        ((X, Y, X, Y), {"groups": IDS}, "groups is given, expected groups_other: with x_other"),
        ((X, Y, OTHER, torch.ones(4, 2)), {"groups_other": IDS}, r"groups_other has shape \[5\], expected \[4\]"),
        ((X, Y), {"precision": "bf16"}, "precision is 'bf16', expected None, 'bf16x6', 'tf32' or 'ieee'"),
        ((X, Y), {"impl": "trition"}, "no form 'trition', it has .*did you mean 'triton'"),
        ((X.double(), Y.double()), {"impl": "triton"}, "float64 has the forms 'reference' and 'blocked' alone"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        hsic_sums(*arguments, **options)


def test_a_kernel_that_is_none_is_refused():
    kernel: Any = "rbf"
    with pytest.raises(TypeError, match=r"kernel_y is 'rbf', expected a kernel such as RBF\(1.0\)"):
        hsic_sums(X, Y, kernel_y=kernel)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf, 1e-30])
def test_a_bandwidth_that_is_no_length_is_refused(bandwidth):
    with pytest.raises(ValueError, match=r"RBF: bandwidth is .*, expected a number from 1e-12 to 1e12"):
        RBF(bandwidth)


@pytest.mark.parametrize("bandwidth", [1e-12, 1e12])
@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_the_extreme_bandwidths_give_zero_and_one(bandwidth, impl):
    x = normal(7, 3, seed=0)
    sums = hsic_sums(x, x, kernel_x=RBF(bandwidth), kernel_y=RBF(bandwidth), impl=impl).sums_x
    assert torch.equal(sums, torch.full((7,), 0.0 if bandwidth < 1 else 6.0).double())


def test_what_comes_back_is_named_and_double():
    result = hsic_sums(X, Y, groups=torch.tensor([0, 2, 2, 0, 0], dtype=torch.int32))
    assert [t.dtype for t in result[:5]] == [torch.float64] * 5
    assert [list(t.shape) for t in result[:5]] == [[5, 3]] * 5
    assert result.n == 5
    assert hsic_sums(X, Y, OTHER, torch.ones(4, 2)).n == 4
    assert hsic_sums(X, Y).product.shape == (5,)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_the_form_that_ran_is_named(impl):
    assert hsic_sums(X, Y, impl=impl).impl == impl


def test_the_default_without_a_gpu_is_blocked():
    assert hsic_sums(X, Y).impl == "blocked"
    assert hsic_sums(X.double(), Y.double()).impl == "blocked"


def test_triton_without_a_gpu_raises_and_never_gives_way():
    with pytest.raises(
        RuntimeError, match="impl='triton' cannot run: the tensors are on cpu, a Triton kernel needs a GPU"
    ):
        hsic_sums(X, Y, impl="triton")


def test_triton_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(dispatch, "_TRITON_IS_INSTALLED", False)
    with pytest.raises(RuntimeError, match="Triton is not installed"):
        hsic_sums(X, Y, impl="triton")


def test_forms_in_torch_do_not_import_triton():
    code = """
        import sys, torch
        from lamina_kernels.gram import RBF, hsic_sums
        hsic_sums(torch.ones(3, 2), torch.ones(3, 2), kernel_x=RBF(1.0))
        sys.exit("triton" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(map(str.strip, code.splitlines()))], env=os.environ, check=False
    )
    assert done.returncode == 0


def one_launch_each(sums: Sums) -> None:
    from lamina_kernels.gram.paired import launch

    launches = []
    kernel = launch.hsic_sums_kernel

    class Counting:
        def __getitem__(self, grid: tuple[int]) -> Any:
            launches.append(grid)
            return kernel[grid]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "hsic_sums_kernel", Counting())
        x = normal(200, 3, seed=1)
        assert sums(x, x, kernel_x=NARROW).impl == "triton"
        assert sums(x, x, groups=torch.arange(200) // 50).impl == "triton"
        # 2 blocks of rows and all tiles of 64 columns; with groups, one of each group.
        assert launches == [(2 * 4,), (2 * 4,)]
        assert sums(x[:0], x[:0]).impl == "triton"
        assert len(launches) == 2


def test_the_triton_form_launches_its_kernel_once():
    FORMS["triton"].run(one_launch_each)


def test_a_form_that_launches_nothing_is_noticed():
    with pytest.raises(AssertionError):
        FORMS["triton"].run(one_launch_each, fault="hsic_triton_gives_way")


def test_moments_are_taken_where_they_take_fewer_operations(monkeypatch):
    taken = []
    whole = moments.hsic_sums
    monkeypatch.setattr(moments, "hsic_sums", lambda problem: taken.append(problem) or whole(problem))
    many, few = torch.ones(400, 5), torch.ones(20, 100)
    hsic_sums(few, few)
    hsic_sums(many, many, kernel_x=NARROW)
    hsic_sums(many, many, groups=torch.arange(400))
    assert not taken
    hsic_sums(many, many)
    hsic_sums(many, many, groups=torch.arange(400) // 40)
    assert len(taken) == 2
