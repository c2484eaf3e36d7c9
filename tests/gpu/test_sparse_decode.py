"""Decoding and its losses on a GPU: the checks of tests/kernels, and what the interpreter cannot show."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lamina_kernels.sparse import Codes, decode
from tests.kernels import decoding_checks as checks
from tests.kernels import sparse_losses_checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

DECODE = Form(decode, "triton", {}, "cuda")
LOSSES = Form(sparse_losses_checks.losses, "triton", {}, "cuda")
_LAUNCH = "lamina_kernels.sparse.decoding.launch"
NARROW = DECODE._replace(settings={f"{_LAUNCH}.COLUMNS": 32, f"{_LAUNCH}.WIDEST": 32})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_twice_as_much_as_plain_torch(case: dict[str, Any], dtype: torch.dtype) -> None:
    for form in (DECODE, NARROW):
        form.run(checks.errs_at_most_twice_as_much_as_plain_torch, case | {"dtype": dtype})


@pytest.mark.parametrize(
    "check",
    [*checks.CHECKS, *checks.OF_KERNELS, checks.long_runs_are_summed_in_pieces],
    ids=lambda check: check.__name__,
)
def test(check: Any) -> None:
    DECODE.run(check)


@pytest.mark.parametrize("case", sparse_losses_checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_losses(case: dict[str, Any]) -> None:
    LOSSES.run(sparse_losses_checks.errs_at_most_twice_as_much_as_plain_torch, case, torch.float32)


def test_the_default_is_triton_but_for_double(caplog: pytest.LogCaptureFixture) -> None:
    codes = checks.codes_of(9, 2, 5, torch.float32, seed=0).to(device="cuda")
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        decode(codes, normal(5, 3, seed=1).cuda())
        decode(codes.to(dtype=torch.float64), normal(5, 3, seed=1).double().cuda())
    assert caplog.messages == ["decode: triton", "decode: blocked"]


def test_ids_without_an_atom_make_nan_in_plain_torch_too() -> None:
    codes = Codes(torch.ones(2, 2).cuda(), torch.tensor([[0, 9], [1, 1]]).int().cuda(), 3, check=False)
    found = decode(codes, torch.ones(3, 4).cuda(), impl="blocked")
    assert found.isnan().all(1).tolist() == [True, False]


def test_a_step_of_the_size_of_a_real_one() -> None:
    """Among others, units that are in every row, and the same bits every time."""
    n, k, units, d = 8192, 32, 65_536, 512
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, units, (n, k), generator=generator).int()
    ids[:, 0] = 7
    found = []
    for _ in range(2):
        values, atoms = normal(n, k, seed=1).cuda().requires_grad_(), normal(units, d, seed=2).cuda().requires_grad_()
        out = decode(Codes(values, ids.cuda(), units), atoms, impl="triton")
        found.append([out, *torch.autograd.grad(out, (values, atoms), normal(n, d, seed=3).cuda())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    hot = (normal(n, k, seed=1)[:, :1].double() * normal(n, d, seed=3).double()).sum(0)
    torch.testing.assert_close(found[0][2][7].cpu().double(), hot, rtol=1e-4, atol=1e-3)
