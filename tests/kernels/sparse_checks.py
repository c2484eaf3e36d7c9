"""What holds for `encode` in every form: integers against a stable sort, selections against their dense formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.sparse import (
    BatchTopK,
    Codes,
    Encoded,
    Gated,
    GroupTopK,
    HardASH,
    JumpReLU,
    KWinners,
    MassShare,
    ReLU,
    TopK,
)
from lamina_kernels.sparse.encoding.problem import Above, Kept, Problem, Rule
from lamina_kernels.sparse.encoding.selection import Selection
from tests.kernels import sparse_faults  # noqa: F401  # where the interpreter runs too
from tests.kernels.forms import never
from tests.kernels.hsic_checks import normal, poisoned

Encode = Callable[..., Encoded]


def integers(*shape: int, most: int = 2, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=generator, device="cpu").to(torch.get_default_device())


def whole_problem(n: int = 60, d: int = 8, m: int = 96) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x, weight and bias of integers, and their pre-activations, among which there are many ties."""
    x, weight, bias = integers(n, d, seed=0), integers(m, d, seed=1), integers(m, seed=2)
    return x.float(), weight.float(), bias.float(), (x.cpu() @ weight.cpu().T + bias.cpu()).to(x.device)


def first_of_the_largest(pre: Tensor, k: int) -> Tensor:
    """Return which numbers of each row a stable sort puts first."""
    order = pre.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(pre, dtype=torch.bool).scatter(1, order, True)


def impl_of(encode: Any) -> str:
    """Return which form a check was given."""
    return encode.keywords["impl"]


def same(encoded: Encoded, kept: Tensor, values: Tensor) -> None:
    """Assert that exactly these entries are kept, in ascending ids, with these values."""
    codes = encoded.codes.csr()
    rows, ids = kept.nonzero().unbind(1)
    assert torch.equal(codes.row_ids(), rows)
    assert torch.equal(codes.ids, ids.int())
    assert torch.equal(codes.values.double(), values[kept].double())


def the_largest_of_each_row(encode: Encode) -> None:
    """The same entries as a stable sort of the integers, in every dtype, whatever the sizes of tiles."""
    x, weight, bias, pre = whole_problem()
    single = (torch.float16, torch.bfloat16, torch.float32)
    for dtype in single if impl_of(encode) == "triton" else (*single, torch.float64):
        arguments = x.to(dtype), weight.to(dtype), bias.to(dtype)
        for k in (7, 50) if dtype != torch.float32 else (1, 7, 50, 96):
            with poisoned():
                encoded = encode(*arguments, select=TopK(k))
            same(encoded, first_of_the_largest(pre, k), pre.relu())
            assert encoded.codes.indptr is None
    same(encode(x, weight, None, select=TopK(7, relu=False)), first_of_the_largest(pre - bias.long(), 7), pre - bias)
    # Rows and units with strides.
    wide = torch.stack([x.T, x.T]).permute(2, 1, 0)[..., 0]
    same(encode(wide, weight.T.contiguous().T, bias, select=TopK(9)), first_of_the_largest(pre, 9), pre.relu())


def ties_are_decided_by_the_id(encode: Encode) -> None:
    """What is chosen from all rows together, or from each run of units."""
    x, weight, bias, pre = whole_problem()
    for k in (1, 5, 96):
        flat = first_of_the_largest(pre.view(1, -1), 60 * k).view_as(pre)
        same(encode(x, weight, bias, select=BatchTopK(k, relu=False)), flat, pre)
    for k, groups in ((1, 48), (3, 4), (8, 12), (48, 2)):
        runs = first_of_the_largest(pre.view(60 * groups, -1), k).view_as(pre)
        same(encode(x, weight, bias, select=GroupTopK(k, groups)), runs, pre.relu())


def units_that_a_sample_does_not_tell_of(encode: Encode) -> None:
    """Every eighth unit is far larger, or far smaller, than the others: too few, or too many, reach the sample's."""
    x, weight = integers(20, 6, seed=0).abs().float(), integers(800, 6, seed=1).float()
    for factor in (100, 0):
        planted = weight.clone()
        planted[::8] = factor * planted[::8].abs()
        pre = (x.double() @ planted.double().T).long()
        for k in (3, 30):
            same(encode(x, planted, None, select=TopK(k)), first_of_the_largest(pre, k), pre.relu())
        flat = first_of_the_largest(pre.view(1, -1), 20 * 9).view_as(pre)
        same(encode(x, planted, None, select=BatchTopK(9)), flat, pre.relu())
        same(encode(x, planted, None, select=JumpReLU(2)), pre > 2, pre)


def rows_that_keep_far_more_than_others(encode: Encode) -> None:
    """In one row of twelve every unit is positive, and all are larger than any elsewhere."""
    x, weight = integers(12, 6, seed=0).float(), integers(1120, 6, seed=1).abs().float()
    x[:, 0] = -9
    x[7] = 9
    weight[:, 0] += 1
    pre = (x.double() @ weight.double().T).long()
    with poisoned():
        same(encode(x, weight, None, select=ReLU()), pre > 0, pre)
        flat = first_of_the_largest(pre.view(1, -1), 12 * 25).view_as(pre)
        same(encode(x, weight, None, select=BatchTopK(25, relu=False)), flat, pre)
        same(encode(x, weight, None, select=TopK(25, relu=False)), first_of_the_largest(pre, 25), pre)


def limits_of_rows_and_of_units(encode: Encode) -> None:
    """What a selection of one's own may ask for: the sum of both."""

    @dataclass(frozen=True, eq=False)
    class Over(Selection):
        units: Tensor
        rows: Tensor

        def rule(self, p: Problem) -> Rule:
            return Above(self.units, self.rows)

        def values(self, p: Problem, kept: Kept) -> Tensor:
            return kept.pre

    x, weight, bias, pre = whole_problem()
    units, rows = integers(96, seed=7), integers(60, seed=8)
    same(encode(x, weight, bias, select=Over(units.float(), rows.float())), pre > units + rows[:, None], pre)


def the_same_bits_every_time(encode: Encode) -> None:
    x, weight, bias = normal(70, 9, seed=0), normal(300, 9, seed=1), normal(300, seed=2)
    for select in (TopK(5), BatchTopK(5), JumpReLU(1.0), HardASH(0.1)):
        # Kernels of gradients are those of decoding, and are asked this there.
        differentiable = impl_of(encode) != "triton"
        leaves = [t.clone().requires_grad_(differentiable) for t in (x, weight, bias)]
        found = []
        for _ in range(2):
            codes = encode(*leaves, select=select).codes
            slopes = torch.autograd.grad(codes.values.square().sum(), leaves) if differentiable else ()
            found.append([codes.values, codes.ids, *slopes])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def broken_rows_show(encode: Encode) -> None:
    """Of a row that is not finite, or that overflows, all values are NaN; the others are as they were."""
    x, weight = normal(9, 4, seed=0), normal(80, 4, seed=1)
    expected = encode(x, weight, select=TopK(3)).codes
    for bad in (math.nan, math.inf, 1e38):
        broken = x.clone()
        broken[4] = bad
        with poisoned():
            found = encode(broken, 10 * weight if bad == 1e38 else weight, select=TopK(3)).codes
        assert found.values.isnan().all(1).tolist() == [row == 4 for row in range(9)]
        others = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
        assert torch.equal(found.ids[others], expected.ids[others])
    assert encode(x, weight.index_fill(0, torch.tensor([70]), math.nan), select=TopK(3)).codes.values.isnan().all()


def thresholds_are_not_reached_by_what_equals_them(encode: Encode) -> None:
    x, weight, bias, pre = whole_problem()
    same(encode(x, weight, bias, select=ReLU()), pre > 0, pre)
    limits = integers(96, seed=3).double()
    same(encode(x, weight, bias, select=JumpReLU(limits)), pre > limits, pre)
    same(encode(x, weight, bias, select=JumpReLU(2)), pre > 2, pre)
    same(encode(x, weight, bias - 40, select=JumpReLU(-40)), pre > 0, pre - 40)
    scale, shift = integers(96, seed=4).float(), integers(96, seed=5).float()
    encoded = encode(x, weight, bias, select=Gated(scale * math.log(2), shift))
    magnitude = (2**scale * (pre - bias) + shift).relu()
    torch.testing.assert_close(encoded.codes.dense(), magnitude.where(pre > 0, 0), rtol=1e-5, atol=0)


def rare_winners_are_helped(encode: Encode) -> None:
    """Boosts that are powers of two keep integers exact; what is compared is not what is returned."""
    x, weight, bias, pre = whole_problem()
    duty = 7 / 96 - integers(96, seed=6) * math.log(2)
    boost = 2.0 ** integers(96, seed=6)
    select = KWinners(7, duty.float(), strength=1.0)
    scores = pre * boost
    encoded = encode(x, weight, bias, select=select)
    kept = encoded.codes.dense() != 0
    # Boosts are exponentials, off by their rounding: scores that differ are in order nevertheless.
    worst = scores.masked_fill(~first_of_the_largest(scores, 7), 10**6).amin(1, keepdim=True)
    assert bool((scores.masked_fill(~kept, 10**6) >= worst).all())
    assert torch.equal(encoded.codes.values, pre.gather(1, encoded.codes.ids.long()).float())
    same(encode(x, weight, bias, select=KWinners(7)), first_of_the_largest(pre, 7), pre)
    # Three units, which no sample holds, are behind many others before they are helped.
    units, lately = torch.zeros(800, 1), torch.full((800,), 3 / 800)
    units[:32], units[161:164], lately[161:164] = 10.0, 3.0, 3 / 800 - math.log(4)
    found = encode(torch.ones(5, 1), units, select=KWinners(3, lately, strength=1.0)).codes
    assert found.ids.tolist() == [[161, 162, 163]] * 5
    # Nobody won a row that is not finite, and of nothing else there is nothing to learn.
    codes = encoded.codes
    lost = Codes(torch.full_like(codes.values, math.nan), torch.zeros_like(codes.ids), 96)
    mixed = Codes(torch.cat([codes.values, lost.values]), torch.cat([codes.ids, lost.ids]), 96)
    for nothing in (lost, codes.rows(slice(0, 0))):
        kept = select.updated(nothing, period=4).duty
        assert kept is not None
        assert torch.equal(kept, duty.float())
    wins = select.updated(mixed, period=4).duty
    share = torch.zeros(96).index_add(0, encoded.codes.ids.flatten(), torch.ones(60 * 7)) / 60
    assert wins is not None
    torch.testing.assert_close(wins, (0.75 * duty + 0.25 * share).float())


def a_share_of_the_mass(encode: Encode) -> None:
    x, weight, bias, pre = whole_problem()
    positive = pre.clamp(min=0)
    order = positive.sort(dim=1, descending=True, stable=True)
    for share, most in ((0.5, 96), (1.0, 96), (0.8, 5)):
        before = order.values.cumsum(1) - order.values
        ranks = (2 * before < round(2 * share * 100) / 100 * positive.sum(1, keepdim=True)) & (order.values > 0)
        ranks[:, most:] = False
        same(
            encode(x, weight, bias, select=MassShare(share, most)),
            torch.zeros_like(ranks).scatter(1, order.indices, ranks),
            pre,
        )


def the_normal_tail(encode: Encode) -> None:
    """Of normal pre-activations Hard ASH keeps the normal tail above its gate's zero point (S026)."""
    x, weight = normal(200, 256, seed=0), normal(3000, 256, seed=1)
    bias = 0.3 * normal(3000, seed=2)
    for share, alpha in ((0.05, 2.0), (0.2, 0.7)):
        encoded = encode(x / 16, weight, bias, select=HardASH(share, alpha))
        deviation = (weight.var(0, correction=0).sum() / 256 + 0.09).sqrt().item()
        zero = NormalDist().inv_cdf(1 - share) - 3 / alpha / deviation
        density = encoded.l0().double().mean().item() / 3000
        assert abs(density - (1 - NormalDist().cdf(zero))) < 0.01


def what_is_not_finite_shows(encode: Encode) -> None:
    """Of the rows that meet it all values are NaN; the others are as they were."""
    x, weight, bias = normal(9, 4, seed=0), normal(80, 4, seed=1), normal(80, seed=2)
    each = [
        TopK(3),
        GroupTopK(1, 4),
        KWinners(3, torch.rand(80)),
        MassShare(0.9, 9),
        ReLU(),
        JumpReLU(0.1),
        HardASH(0.1),
    ]
    for bad in (math.nan, -math.inf):
        broken = x.clone()
        broken[4, 2] = bad
        for select in each:
            expected = encode(x, weight, bias, select=select)
            found = encode(broken, weight, bias, select=select).codes.csr()
            lost = found.row_ids() == 4
            assert bool(lost.any())
            assert bool(found.values[lost].isnan().all())
            others = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
            rest, whole = found.rows(others), expected.codes.csr().rows(others)
            assert torch.equal(rest.ids, whole.ids)
            assert torch.equal(rest.values, whole.values)
            assert (
                encode(x, weight.clone().index_fill_(0, torch.tensor([70]), bad), bias, select=select)
                .codes.values.isnan()
                .all()
            )
            assert (
                encode(x, weight, bias.clone().index_fill_(0, torch.tensor([70]), bad), select=select)
                .codes.values.isnan()
                .all()
            )
        together = encode(broken, weight, bias, select=BatchTopK(2)).codes
        assert together.values.isnan().all()
        assert together.nnz == 18
    huge = torch.full((2, 4), 1e20)
    huge[0] = 1.0
    for sign in (1, -1):
        codes = encode(huge, sign * torch.full((80, 4), 1e20), None, select=TopK(2)).codes
        assert codes.values.isnan().any(1).tolist() == [False, True]


def statistics_are_those_of_the_dense_matrix(encode: Encode) -> None:
    x, weight, bias, pre = whole_problem()
    for select in (TopK(9), GroupTopK(2, 3), BatchTopK(4), ReLU()):
        told = encode(x, weight, bias, select=select, statistics=("counts", "sums", "positive"))
        dense, statistics = told.codes.dense(), told.statistics
        assert statistics.rows == 60
        assert statistics.counts is not None
        assert torch.equal(statistics.counts, (dense != 0).sum(0))
        assert statistics.sums is not None
        assert torch.equal(statistics.sums, dense.double().sum(0))
        assert statistics.positive is not None
        assert torch.equal(statistics.positive, (pre > 0).sum(0))
        assert torch.equal(told.l0(), (dense != 0).sum(1))
        torch.testing.assert_close(told.l1(), dense.sum(1))


def lost_rows_count_for_nothing(encode: Encode) -> None:
    """Whether a row is lost from the start, or by what overflows in its last unit."""
    x, weight, bias, _ = whole_problem()
    weight = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    weight[-1, 0], bias = 1e30, torch.cat([bias, bias.new_zeros(1)])
    for which in ((), (3,), (3, 50)):
        broken = x.clone()
        broken[:, 0] = 0
        expected = (broken.double() @ weight.double().T + bias.double()) > 0
        if which:
            expected[list(which)] = False
            broken[3, 1] = math.nan
        if len(which) == 2:
            broken[50, 0] = 1e30
        for select in (TopK(9), ReLU()):
            encoded = encode(broken, weight, bias, select=select, statistics=("counts", "sums", "positive"))
            told, dense = encoded.statistics, encoded.codes.dense().double()
            assert encoded.codes.values.isnan().any() == bool(which)
            dense[list(which)] = 0
            for found, truth in ((told.positive, expected), (told.counts, dense != 0), (told.sums, dense)):
                assert found is not None
                assert torch.equal(found, truth.sum(0))
    everywhere = weight.index_fill(0, torch.tensor([70]), math.nan)
    told = encode(x, everywhere, bias, select=TopK(9), statistics=("counts", "sums", "positive")).statistics
    for found in (told.counts, told.sums, told.positive):
        assert found is not None
        assert not found.any()


def nothing_to_encode(encode: Encode) -> None:
    for n, d, m in ((0, 3, 9), (4, 0, 9), (1, 1, 9)):
        x, weight, bias = torch.zeros(n, d), torch.zeros(m, d), torch.arange(float(m))
        each = [
            TopK(2),
            GroupTopK(1, 3),
            BatchTopK(2),
            MassShare(0.5, 3),
            ReLU(),
            JumpReLU(3.0),
            HardASH(0.2),
            KWinners(2),
        ]
        for select in each:
            encoded = encode(x, weight, bias, select=select, statistics=("counts",))
            assert len(encoded.codes) == n
            assert bool((encoded.codes.values >= 0).all())
    # A row of zeros stands out nowhere, and has no mass.
    zeros = torch.zeros(3, 4), torch.zeros(9, 4)
    for select in (HardASH(0.2), MassShare(0.5, 3)):
        assert encode(*zeros, select=select).codes.nnz == 0
    assert encode(*zeros, select=TopK(2)).codes.ids.tolist() == [[0, 1]] * 3
    assert encode(torch.ones(2, 3), torch.ones(0, 3), select=ReLU()).codes.shape == (2, 0)


def rows_of_any_shape(encode: Encode) -> None:
    """Values and gradients against float64, within twice the error of plain torch, for shapes that fill no tile."""
    half, single = torch.float16, torch.float32
    for n, d, m, k, dtype in ((1, 1, 40, 3, single), (35, 33, 400, 20, single), (20, 70, 150, 5, half)):
        x, weight, bias = (normal(*s, seed=i, dtype=dtype) for i, s in enumerate(((n, d), (m, d), (m,))))
        g = normal(n, k, seed=3, dtype=dtype)

        def of(x: Tensor, weight: Tensor, bias: Tensor, ids: Tensor | None, k: int = k, g: Tensor = g) -> list[Tensor]:
            leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
            if ids is None:
                found = encode(*leaves, select=TopK(k, relu=False))
                assert found.impl == impl_of(encode)
                values, ids = found.codes.values, found.codes.ids.long()
            else:
                values = (leaves[0] @ leaves[1].T + leaves[2]).gather(1, ids)
            return [ids, values, *torch.autograd.grad(values, leaves, g.to(x.dtype))]

        ids, *found = of(x, weight, bias, None)
        _, *plain = of(x, weight, bias, ids)
        _, *exact = of(x.double(), weight.double(), bias.double(), ids)
        pre = x.double() @ weight.double().T + bias.double()
        least = pre.gather(1, ids).amin(1)
        # What is left out is not larger than what is kept, but for rounding.
        assert bool((pre.scatter(1, ids, -torch.inf).amax(1) <= least + 1e-5 * pre.abs().max()).all())
        for ours, theirs, truth in zip(found, plain, exact, strict=True):
            rounding = torch.finfo(dtype).eps * truth.abs().max()
            assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max() + rounding


def addresses_take_64_bits(encode: Encode) -> None:
    # The last of 40 starts 2^31 numbers behind the first; memory that nobody touches costs nothing.
    stride = 55_200_000
    far = torch.empty(39 * stride + 8, dtype=torch.float16).as_strided((40, 8), (stride, 1))
    x, weight = normal(40, 8, seed=20, dtype=torch.float16), normal(40, 8, seed=21, dtype=torch.float16)
    for select in (TopK(3), ReLU()):
        expected = encode(x, weight, select=select).codes
        for which in range(2):
            far.copy_((x, weight)[which])
            found = encode(*((far, weight) if which == 0 else (x, far)), select=select).codes
            assert torch.equal(found.ids, expected.ids)
            assert torch.equal(found.values, expected.values)


def rows_of_every_width(encode: Encode) -> None:
    """By descriptors where a copy engine takes both, else by addresses: what lies behind a row is not its own."""
    from lamina_kernels.sparse.encoding import launch
    from lamina_kernels.tiles import descriptors

    taken: list[bool] = []
    whole = launch.run
    # Wider than a chunk or not, behind numbers that would be chosen, misaligned in width, stride or place.
    cases = (
        (40, 16, 0, 8, True),
        (40, 24, 8, 16, True),
        (1, 40, 0, 24, True),
        (40, 24, 0, 19, True),
        (40, 7, 0, 7, False),
        (40, 12, 0, 8, False),
        (1, 24, 4, 8, False),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            launch,
            "run",
            lambda kernel, made, *rest: (taken.append(made.arguments["DESCRIPTORS"]), whole(kernel, made, *rest)),
        )
        for n, stride, first, d, fits in cases:
            x, weight = (integers(rows, stride, seed=rows + d).half() for rows in (n, 150))
            for wide in (x, weight):
                wide[:, :first] = wide[:, first + d :] = 9
            x, weight = x[:, first : first + d], weight[:, first : first + d]
            taken.clear()
            # All are negative: what does not exist would be larger.
            encoded = encode(x, weight, weight.new_full((150,), -99), select=TopK(7, relu=False))
            pre = (x.double() @ weight.double().T).long() - 99
            same(encoded, first_of_the_largest(pre, 7), pre)
            assert taken == [fits and descriptors.takes_descriptors(dispatch.target(x))]
            plain = encode(x, weight, select=TopK(150, relu=False))
            same(plain, torch.ones_like(pre, dtype=torch.bool), pre + 99)


def each_pass_is_one_launch(encode: Encode) -> None:
    """No row is encoded twice of ordinary rows, and a kernel that is not there does not go unnoticed."""
    from lamina_kernels.sparse.encoding import candidates, launch

    launched: list[str] = []
    whole = launch.run
    x, weight = normal(90, 8, seed=22), normal(512, 8, seed=23)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest)))
        patch.setattr(candidates, "PIECE", 50)
        patch.setattr(candidates.blocked, "keep", never)
        for select, times in (
            (BatchTopK(8), 2),
            (GroupTopK(1, 2), 4),
            (JumpReLU(4.0), 2),
            (Gated(weight[:, 0], weight[:, 1]), 2),
        ):
            launched.clear()
            encode(x, weight, select=select)
            assert launched == ["groups_above_kernel"] * times


def stored(x: Tensor, weight: Tensor, *, impl: str) -> Tensor:
    from bench.stored_product import product

    return product(x, weight)


def a_stored_product(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, weight = (integers(*shape, seed=n).half() for n, shape in enumerate(((70, 40), (300, 40))))
    with poisoned():
        assert torch.equal(product(x, weight).double(), x.double() @ weight.double().T)


EVERYWHERE = [
    the_largest_of_each_row,
    ties_are_decided_by_the_id,
    units_that_a_sample_does_not_tell_of,
    rows_that_keep_far_more_than_others,
    limits_of_rows_and_of_units,
    thresholds_are_not_reached_by_what_equals_them,
    rare_winners_are_helped,
    a_share_of_the_mass,
    broken_rows_show,
    what_is_not_finite_shows,
    statistics_are_those_of_the_dense_matrix,
    lost_rows_count_for_nothing,
    nothing_to_encode,
    rows_of_any_shape,
    the_same_bits_every_time,
]
OF_KERNELS = [addresses_take_64_bits, each_pass_is_one_launch, rows_of_every_width]


def gradients(encode: Encode, select: Callable[[], Any], extra: list[Tensor]) -> list[Tensor]:
    """Return values and gradients of a loss of the values, by x, weight, bias and what the selection holds."""
    x, weight, bias = (normal(*s, seed=i, dtype=torch.float64) for i, s in enumerate(((33, 5), (90, 5), (90,))))
    leaves = [t.requires_grad_() for t in (x, weight, bias, *extra)]
    chosen = select()
    encoded = encode(x, weight, bias, select=chosen)
    codes = encoded.codes
    weights = (codes.ids.flatten() * 0.7 + codes.row_ids()).cos()
    loss = (codes.values.flatten() * weights).sum() + (encoded.pre.flatten() * weights.sin()).square().sum()
    if isinstance(chosen, JumpReLU):
        loss = loss + (chosen.l0(encoded) * torch.arange(33)).sum()
    found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [codes.dense().detach(), *found]
