"""Encoders and codebooks on a GPU: the checks of tests/kernels, and what the interpreter cannot show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lamina_kernels.sparse import BatchTopK, GroupTopK, JumpReLU, KWinners, MassShare, ReLU, TopK, encode, quantize
from lamina_kernels.tiles import descriptors
from tests.kernels import sparse_checks as checks
from tests.kernels.forms import Form, never
from tests.kernels.hsic_checks import normal
from tests.kernels.test_sparse_encode import LOOP, SHORT

pytestmark = pytest.mark.gpu

ENCODE = Form(encode, "triton", SHORT, "cuda")
FORMS = {
    "triton": ENCODE,
    "loop": ENCODE._replace(settings=SHORT | LOOP),
    "blocked": Form(encode, "blocked", {}, "cuda"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("check", checks.EVERYWHERE, ids=lambda check: check.__name__)
def test(check: Callable[..., None], form: str) -> None:
    FORMS[form].run(check)


@pytest.mark.parametrize("check", checks.OF_KERNELS, ids=lambda check: check.__name__)
def test_kernels(check: Callable[..., None]) -> None:
    ENCODE.run(check)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "select",
    [TopK(32), GroupTopK(1, 8), BatchTopK(32), JumpReLU(60.0), MassShare(0.01, 32), KWinners(32, torch.rand(40_000))],
    ids=str,
)
def test_an_encoder_of_the_size_of_a_real_one(select: Any, dtype: torch.dtype) -> None:
    """Integers, whose pre-activations are exact in any order of their sums: every entry as `blocked` has it."""
    x, weight = (checks.integers(n, 256, most=2, seed=n).to(dtype).cuda() for n in (3000, 40_000))
    if isinstance(select, KWinners):
        select = KWinners(32, select.duty.cuda())  # pyright: ignore[reportOptionalMemberAccess]
    found, expected = (encode(x, weight, select=select, impl=impl) for impl in ("triton", "blocked"))
    assert torch.equal(found.codes.ids, expected.codes.ids)
    assert torch.equal(found.codes.values, expected.codes.values)


@pytest.mark.parametrize("d", [64, 200])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_tiles_by_descriptors_are_those_by_addresses(
    dtype: torch.dtype, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a GPU has them. Of integers, with many ties, and units that fill no tile."""
    x, weight, bias = (
        checks.integers(*shape, most=2, seed=n).to(dtype).cuda()
        for n, shape in enumerate(((700, d), (5000, d), (5000,)))
    )
    found = []
    for answer in (descriptors.takes_descriptors, never):
        monkeypatch.setattr(descriptors, "takes_descriptors", answer)
        found.append([encode(x, weight, bias, select=select, impl="triton").codes for select in (TopK(32), ReLU())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.values, other.values)


def test_the_default_is_triton_where_it_can() -> None:
    x, weight = normal(9, 4, seed=0).cuda(), normal(80, 4, seed=1).cuda()
    assert encode(x, weight, select=TopK(3)).impl == "triton"
    assert encode(x.double(), weight.double(), select=TopK(3)).impl == "blocked"
    assert encode(x, weight, select=MassShare(0.5, 3)).impl == "triton"
    assert encode(x, weight, select=GroupTopK(1, 2)).impl == "blocked"


def test_memory_grows_with_what_is_kept() -> None:
    # The matrix would take 4.3 GB.
    x, weight = normal(8192, 64, seed=2).cuda(), normal(131_072, 64, seed=3).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encode(x, weight, select=TopK(32), impl="triton")
    assert torch.cuda.max_memory_allocated() - before < 2**30


@pytest.mark.parametrize("distance", ["squared", "cosine"])
@pytest.mark.parametrize("k", [1, 3])
def test_codebooks_are_those_of_a_cpu(distance: Any, k: int) -> None:
    x, book, g = normal(500, 32, seed=4), normal(70, 32, seed=5), normal(500, 32, seed=6)
    found = []
    for device in ("cpu", "cuda"):
        leaves = [t.to(device).requires_grad_() for t in (x, book)]
        quantized = quantize(leaves[0], leaves[1], k, distance=distance, gradient="rotation")
        gradients = torch.autograd.grad((quantized.output + quantized.chosen), leaves, g.to(device))
        found.append([quantized.codes.ids.cpu(), quantized.output.cpu(), *(t.cpu() for t in gradients)])
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1:], found[0][1:])
