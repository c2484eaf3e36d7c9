"""`encode` in every form: what is kept, its gradients, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import (
    BatchTopK,
    Codes,
    Gated,
    GroupTopK,
    HardASH,
    JumpReLU,
    KWinners,
    MassShare,
    ReLU,
    RunningThreshold,
    TopK,
    encode,
)
from lamina_kernels.sparse.encoding import op
from lamina_kernels.sparse.encoding.tiling import Tiling
from tests.faults import broken
from tests.kernels import sparse_checks as checks
from tests.kernels.forms import Form, always
from tests.kernels.hsic_checks import normal

_ENCODING = "lamina_kernels.sparse.encoding"
# Many tiles of few rows; lists that fill up often.
TILES = {
    f"{_ENCODING}.walk.ROWS": 13,
    f"{_ENCODING}.walk.COLUMNS": 20,
    f"{_ENCODING}.walk.TOGETHER": 2,
    f"{_ENCODING}.best.ROOM": 3,
}
FORMS = {
    "reference": Form(encode, "reference"),
    "blocked": Form(encode, "blocked"),
    "tiles": Form(encode, "blocked", TILES),
}


def tiny(*arguments: Any) -> Tiling:
    """Many tiles of few rows, in chunks of few columns."""
    return Tiling(32, 64, 4, 1, 16)


# A program takes all units, loaded by descriptors, or a tile of them, by addresses; lists fill up in both.
SHORT = {"lamina_kernels.sparse.support.SHORTEST": 1}
TINY = SHORT | {f"{_ENCODING}.tiling.tile": tiny}
DESCRIBED = {"lamina_kernels.tiles.descriptors.takes_descriptors": always}
LOOP = {
    f"{_ENCODING}.launch.PROGRAMS": 1,
    f"{_ENCODING}.candidates.PIECE": 40,
    f"{_ENCODING}.candidates.SURE": 0.5,
}
TRITON = {
    "triton": Form(encode, "triton", TINY, "interpreter"),
    "loop": Form(encode, "triton", TINY | LOOP | DESCRIBED, "interpreter"),
}


@pytest.mark.parametrize("form", FORMS | TRITON)
@pytest.mark.parametrize("check", checks.EVERYWHERE, ids=lambda check: check.__name__)
def test_encode(check: Callable[..., None], form: str) -> None:
    (FORMS | TRITON)[form].run(check)


@pytest.mark.parametrize("form", TRITON)
@pytest.mark.parametrize("check", checks.OF_KERNELS, ids=lambda check: check.__name__)
def test_kernels(check: Callable[..., None], form: str) -> None:
    TRITON[form].run(check)


def test_tiles_as_large_as_on_a_gpu() -> None:
    TRITON["loop"]._replace(settings=SHORT | LOOP | DESCRIBED).run(checks.units_that_a_sample_does_not_tell_of)


@pytest.mark.parametrize("form", TRITON)
def test_the_stored_product_that_a_benchmark_has_beside_encoders(form: str) -> None:
    TRITON[form]._replace(op=checks.stored).run(checks.a_stored_product)


def test_hard_ash_keeps_the_normal_tail() -> None:
    FORMS["blocked"].run(checks.the_normal_tail)


@pytest.mark.parametrize(
    ("fault", "check", "form"),
    [
        ("encoding_forgets_the_first_of_equals", checks.the_largest_of_each_row, "tiles"),
        ("encoding_has_no_room", checks.the_largest_of_each_row, "tiles"),
        ("encoding_begins_too_high", checks.the_largest_of_each_row, "blocked"),
        ("encode_kernel_trusts_its_sample", checks.units_that_a_sample_does_not_tell_of, "triton"),
        ("encode_kernel_forgets_the_bias", checks.the_largest_of_each_row, "triton"),
        ("encode_kernel_leaves_units_out", checks.the_largest_of_each_row, "loop"),
        ("encode_kernel_forgets_the_boost", checks.rare_winners_are_helped, "triton"),
        ("encode_kernel_forgets_the_shift", checks.thresholds_are_not_reached_by_what_equals_them, "triton"),
        ("encode_kernel_trusts_its_room", checks.rows_that_keep_far_more_than_others, "loop"),
        ("encode_kernel_drops_what_its_sample_does_not_tell_of", checks.units_that_a_sample_does_not_tell_of, "triton"),
        ("encode_kernel_adds_units_that_do_not_exist", checks.rows_of_every_width, "triton"),
        ("encode_kernel_reads_what_lies_behind_a_row", checks.rows_of_every_width, "loop"),
        ("encode_kernel_takes_the_next_units", checks.the_largest_of_each_row, "loop"),
        ("encode_kernel_skips_a_program", checks.thresholds_are_not_reached_by_what_equals_them, "triton"),
        ("encode_kernel_counts_in_32_bits", checks.addresses_take_64_bits, "triton"),
        ("encode_kernel_counts_rows_of_descriptors_in_32_bits", checks.addresses_take_64_bits, "loop"),
        ("encoding_takes_a_larger_one_for_the_last", checks.ties_are_decided_by_the_id, "blocked"),
        ("encode_kernel_is_not_launched", checks.thresholds_are_not_reached_by_what_equals_them, "triton"),
        ("encoding_forgets_the_gradient_of_units", checks.rows_of_any_shape, "triton"),
        ("encoding_forgets_the_last_units", checks.ties_are_decided_by_the_id, "tiles"),
        ("encoding_takes_what_equals_the_limit", checks.thresholds_are_not_reached_by_what_equals_them, "blocked"),
        ("encoding_boosts_nothing", checks.rare_winners_are_helped, "tiles"),
        ("encoding_weighs_negative_mass", checks.a_share_of_the_mass, "blocked"),
        ("encode_kernel_adds_the_mass_of_one_part", checks.a_share_of_the_mass, "triton"),
        ("encoding_drops_what_its_sample_does_not_tell_of", checks.units_that_a_sample_does_not_tell_of, "tiles"),
        ("encoding_takes_broken_rows_for_zeros", checks.what_is_not_finite_shows, "blocked"),
        ("encoding_expects_no_overflow", checks.what_is_not_finite_shows, "blocked"),
        ("encoding_counts_what_was_kept", checks.statistics_are_those_of_the_dense_matrix, "tiles"),
        ("encode_kernel_counts_nothing", checks.statistics_are_those_of_the_dense_matrix, "triton"),
        ("encoding_counts_lost_rows", checks.lost_rows_count_for_nothing, "tiles"),
        ("encoding_learns_from_lost_rows", checks.rare_winners_are_helped, "tiles"),
        ("encoding_knows_no_mean", checks.the_normal_tail, "blocked"),
    ],
)
def test_faults_are_noticed(fault: str, check: Callable[..., None], form: str) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        (FORMS | TRITON)[form].run(check, fault=fault)


def threshold() -> Tensor:
    return normal(90, seed=5, dtype=torch.float64).abs()


GRADIENTS: dict[str, tuple[Callable[..., Any], Callable[[], list[Tensor]]]] = {
    "topk": (lambda: TopK(7), list),
    "raw": (lambda: TopK(60, relu=False), list),
    "groups": (lambda: GroupTopK(2, 9), list),
    "batch": (lambda: BatchTopK(3), list),
    "share": (lambda: MassShare(0.7, 40), list),
    "relu": (ReLU, list),
    "jump": (lambda t: JumpReLU(t, bandwidth=0.5), lambda: [threshold()]),
    "gated": (Gated, lambda: [threshold(), -threshold()]),
    "winners": (lambda: KWinners(5, threshold()), list),
    "ash": (lambda: HardASH(0.1, 3.0), list),
}


def dense(x: Tensor, weight: Tensor, bias: Tensor, name: str, extra: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the dense formula of a selection, and which entries count, without a word of ours."""
    pre = x @ weight.T + bias
    if name == "ash":
        middle = pre.mean(1, keepdim=True) + 1.2815515655446004 * pre.std(1, keepdim=True, correction=0)
        values = pre * torch.nn.functional.hardsigmoid(3.0 * (pre - middle))
        return values, values != 0
    if name == "gated":
        return (pre > 0) * (extra[0].exp() * (x @ weight.T) + extra[1]).relu(), pre > 0
    if name == "relu":
        return pre.relu(), pre > 0
    k = {"topk": 7, "raw": 60}[name]
    kept = torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1.0) > 0
    return (pre if name == "raw" else pre.relu()) * kept, kept


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_the_dense_formula(name: str) -> None:
    select, extra = GRADIENTS[name]
    forms = []
    for form in FORMS.values():
        held = extra()
        form.run(lambda encode, held=held: forms.append(checks.gradients(encode, lambda: select(*held), held)))
    for found in forms[1:]:
        # In float64 the same units are kept, however the work is cut.
        assert torch.equal(found[0] != 0, forms[0][0] != 0)
        torch.testing.assert_close(found, forms[0], rtol=1e-10, atol=1e-10)
    if name not in ("topk", "raw", "gated", "relu", "ash"):
        return
    held = [t.requires_grad_() for t in extra()]
    leaves = [normal(*s, seed=i, dtype=torch.float64).requires_grad_() for i, s in enumerate(((33, 5), (90, 5), (90,)))]
    values, kept = dense(leaves[0], leaves[1], leaves[2], name, held)
    pre = leaves[0] @ leaves[1].T + leaves[2]
    weights = (torch.arange(90) * 0.7 + torch.arange(33)[:, None]).cos()
    loss = (values * weights).sum() + (pre * weights.sin()).square()[kept].sum()
    expected = torch.autograd.grad(loss, [*leaves, *held])
    torch.testing.assert_close(forms[1], [values.detach(), *expected], rtol=1e-9, atol=1e-9)


def test_forgotten_gradients_are_noticed() -> None:
    with broken("encoding_forgets_the_gradient_of_units"), pytest.raises(AssertionError):
        test_gradients_are_those_of_the_dense_formula("topk")


def test_the_threshold_of_a_step_learns_through_a_kernel() -> None:
    """Against the pseudo-derivatives as the paper writes them, of the dense matrix."""
    x, weight = normal(40, 3, seed=0, dtype=torch.float64), normal(30, 3, seed=1, dtype=torch.float64)
    theta = normal(30, seed=2, dtype=torch.float64).abs().requires_grad_()
    select = JumpReLU(theta, bandwidth=0.3)
    encoded = encode(x, weight, select=select)
    g = normal(40, 30, seed=3, dtype=torch.float64)
    ((encoded.codes.dense() * g).sum() + (select.l0(encoded) * g[:, 0]).sum()).backward()
    pre = x @ weight.T
    inside = ((pre - theta).abs() < 0.15).double().detach()
    expected = (-theta / 0.3 * inside * g).sum(0) + (-1 / 0.3 * inside * g[:, :1]).sum(0)
    torch.testing.assert_close(theta.grad, expected.detach())
    assert torch.equal(encoded.codes.dense() != 0, pre > theta)
    with torch.no_grad():
        assert encode(x, weight, select=select).codes.nnz == int((pre > theta).sum())


def test_a_running_threshold_keeps_as_many() -> None:
    x, weight = normal(2000, 8, seed=0), normal(64, 8, seed=1)
    running = RunningThreshold(beta=0.5)
    for batch in x[:1500].split(500):
        running = running.updated(encode(batch, weight, select=BatchTopK(6)).codes)
    found = encode(x[1500:], weight, select=running.select()).l0().double().mean()
    assert abs(found - 6) < 0.5
    nothing = Codes(torch.zeros(1, 2), torch.tensor([[0, 1]]), 2)
    assert running.updated(nothing) is running


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_values_and_gradients_are_as_accurate_as_dense_ones(dtype: torch.dtype) -> None:
    x, weight = normal(50, 40, seed=0, dtype=dtype), normal(300, 40, seed=1, dtype=dtype)
    g = normal(50, 9, seed=2, dtype=dtype)

    def run(x: Tensor, weight: Tensor, ids: Tensor | None) -> list[Tensor]:
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        if ids is None:
            codes = encode(*leaves, select=TopK(9, relu=False)).codes
            values, ids = codes.values, codes.ids.long()
        else:
            values = (leaves[0] @ leaves[1].T).gather(1, ids)
        return [ids, values, *torch.autograd.grad(values, leaves, g.to(x.dtype))]

    ids, *found = run(x, weight, None)
    _, *plain = run(x, weight, ids)
    _, *exact = run(x.double(), weight.double(), ids)
    for ours, theirs, truth in zip(found, plain, exact, strict=True):
        rounding = torch.finfo(dtype).eps * truth.abs().max()
        assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max() + rounding


X, WEIGHT = torch.ones(4, 3), torch.ones(6, 3)
# For arguments of other types than they take.
any_topk: Any = TopK
any_encode: Any = encode


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TopK(0), "TopK: k is 0, expected a whole number of at least 1"),
        (lambda: any_topk(2.0), "TopK: k is 2.0"),
        (lambda: GroupTopK(1, 0), "GroupTopK: groups is 0"),
        (lambda: BatchTopK(True), "BatchTopK: k is True"),
        (lambda: MassShare(0.0, 3), "MassShare: share is 0.0"),
        (lambda: MassShare(0.5, 0), "MassShare: most is 0"),
        (lambda: JumpReLU(1.0, bandwidth=0.0), "JumpReLU: bandwidth is 0.0"),
        (lambda: JumpReLU(float("nan")), "JumpReLU: threshold is NaN"),
        (lambda: HardASH(1.0), "HardASH: share is 1.0"),
        (lambda: HardASH(0.5, -1.0), "HardASH: alpha is -1.0"),
        (lambda: KWinners(2, strength=-1.0), "KWinners: strength is -1.0"),
        (lambda: RunningThreshold().select(), "RunningThreshold: no batch was seen"),
        (lambda: encode(X, WEIGHT), "TopK: k is 32, but there are 6 units"),
        (lambda: encode(X, WEIGHT, select=BatchTopK(7)), "BatchTopK: k is 7, but there are 6 units"),
        (lambda: encode(X, WEIGHT, select=GroupTopK(1, 4)), "GroupTopK: 6 units do not come apart into 4 runs"),
        (lambda: encode(X, WEIGHT, select=GroupTopK(3, 3)), "GroupTopK: k is 3, but there are 2 units"),
        (
            lambda: encode(X, WEIGHT, select=JumpReLU(torch.ones(5))),
            r"threshold is torch.float32 \[5\] on cpu",
        ),
        (lambda: encode(X, WEIGHT, select=Gated(torch.ones(6), torch.ones(1))), r"Gated: bias is torch.float32 \[1\]"),
        (lambda: encode(X, WEIGHT, select=KWinners(2, torch.ones(6).long())), "KWinners: duty is torch.int64"),
        (lambda: encode(X, torch.ones(6, 2), select=TopK(2)), "encode: x has width 3 and weight has width 2"),
        (lambda: encode(X, WEIGHT.double(), select=TopK(2)), "encode: weight is torch.float64"),
        (lambda: encode(X.long(), WEIGHT, select=TopK(2)), "encode: x is torch.int64"),
        (lambda: encode(X[0], WEIGHT, select=TopK(2)), r"encode: x has shape \[3\]"),
        (lambda: encode(X, WEIGHT, torch.ones(5), select=TopK(2)), r"encode: bias is torch.float32 \[5\] on cpu"),
        (lambda: any_encode(X, WEIGHT, select=TopK(2), impl="dense"), "encode has no form 'dense'"),
        (lambda: any_encode(X, WEIGHT, select=TopK(2), statistics="counts"), "encode: statistics is 'counts'"),
        (lambda: any_encode(X, WEIGHT, select=TopK(2), statistics=("count",)), "expected some of 'counts', 'sums'"),
    ],
)
def test_what_encoders_refuse(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_selection() -> None:
    with pytest.raises(TypeError, match="encode: select is 32, expected a selection"):
        any_encode(X, WEIGHT, select=32)


def test_torch_finds_the_operators_in_order() -> None:
    x, weight, bias = (normal(*s, seed=0).requires_grad_() for s in ((5, 3), (11, 3), (11,)))
    torch.library.opcheck(op._largest, (x, weight, bias, 3, 1, None, True, True, "blocked"))
    torch.library.opcheck(op._together, (x, weight, None, 2, False, "blocked"))
    torch.library.opcheck(op._above, (x, weight, bias, torch.zeros(11), None, False, "blocked"))


def test_it_compiles_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        first = encode(x, weight, select=TopK(3)).codes
        return first.values.square().sum() + encode(x, weight, select=ReLU()).codes.values.exp().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    leaves = [normal(9, 3, seed=0).requires_grad_(), normal(7, 3, seed=1).requires_grad_()]
    found, expected = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss))
    torch.testing.assert_close(found, expected)


def test_an_autocast_of_the_caller_changes_nothing_and_bits_repeat() -> None:
    x, weight = normal(300, 24, seed=2).requires_grad_(), normal(500, 24, seed=3).requires_grad_()

    def run() -> list[Tensor]:
        codes = encode(x, weight, select=TopK(8)).codes
        return [codes.values, codes.ids, *torch.autograd.grad(codes.values.square().sum(), (x, weight))]

    plain, again = run(), run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run()
    for a, b, c in zip(plain, again, inside, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
