"""What holds for `decode` and its gradients in every form, against dense formulas, in integers and by closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import Codes
from tests.kernels import decoding_faults as decoding_faults  # known where checks run
from tests.kernels.covering import pairwise
from tests.kernels.gram_checks import within
from tests.kernels.hsic_checks import normal, poisoned

Decode = Callable[..., Tensor]

CASES = pairwise(
    {
        "n": [1, 4, 11],
        "units": [1, 6, 30],
        "k": [0, 1, 5, "ragged"],
        "width": [1, 17, 130],
        "layers": [None, 1, 3],
        "bias": [True, False],
        "dtype": [torch.float32, torch.float16],
    }
)


def integers(*shape: int, most: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-most, most + 1, shape, generator=generator, device="cpu")
    return drawn.to(dtype).to(torch.get_default_device())


def ids_of(*shape: int, units: int, seed: int) -> Tensor:
    """Ids in any order, with duplicates."""
    return integers(*shape, most=units * 4, seed=seed).long().remainder(units).int()


def codes_of(n: int, k: int | str, units: int, dtype: torch.dtype, *, seed: int) -> Codes:
    if isinstance(k, int):
        return Codes(normal(n, k, seed=seed, dtype=dtype), ids_of(n, k, units=units, seed=seed), units)
    counts = integers(n, most=3, seed=seed).abs().long()
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    nnz = int(indptr[-1])
    return Codes(normal(nnz, seed=seed, dtype=dtype), ids_of(nnz, units=units, seed=seed), units, indptr)


def dense(codes: Codes) -> Tensor:
    """The matrix of codes, in the dtype of their values."""
    flat = codes.values.new_zeros(len(codes) * codes.width)
    at = codes.row_ids() * codes.width + codes.ids.flatten()
    return flat.index_add(0, at, codes.values.flatten()).view(len(codes), codes.width)


def by_dense(codes: Codes, dictionary: Tensor, bias: Tensor | None) -> Tensor:
    """What one writes without codes."""
    out = dense(codes) @ dictionary
    out = out if out.ndim == 2 else out.transpose(0, 1)
    return out if bias is None else out + bias


def with_gradients(run: Callable[..., Tensor], codes: Codes, leaves: list[Tensor | None], dtype: torch.dtype) -> Any:
    values, dictionary, bias = (x if x is None else x.detach().to(dtype).requires_grad_() for x in leaves)
    assert values is not None
    out = run(Codes(values, codes.ids, codes.width, codes.indptr), dictionary, bias)
    g = normal(max(1, out.numel()), seed=9, dtype=torch.float16)[: out.numel()].view_as(out).to(out.dtype)
    held = [x for x in (values, dictionary, bias) if x is not None]
    return [out, *torch.autograd.grad(out, held, g)]


def errs_at_most_twice_as_much_as_plain_torch(decode: Decode, case: dict[str, Any]) -> None:
    """The result and all gradients, with memory that is poisoned: against dense products in the same dtype."""
    n, units, width, dtype = case["n"], case["units"], case["width"], case["dtype"]
    codes = codes_of(n, case["k"], units, dtype, seed=n)
    many = () if case["layers"] is None else (case["layers"],)
    dictionary = normal(*many, units, width, seed=2, dtype=dtype)
    leaves = [codes.values, dictionary, normal(*many, width, seed=3, dtype=dtype) if case["bias"] else None]
    with poisoned():
        found = with_gradients(decode, codes, leaves, dtype)
    exact, plain = (with_gradients(by_dense, codes, leaves, d) for d in (torch.float64, dtype))
    for value, truth, other in zip(found, exact, plain, strict=True):
        assert value.dtype == dtype
        within(value, truth, other, 2)


def small_integers_are_exact(decode: Decode) -> None:
    """Sums of integers are exact whatever the order: also of a unit that is in every row, twice."""
    for dtype in (torch.float32, torch.float16):
        ids = torch.cat([ids_of(40, 3, units=12, seed=1), torch.full((40, 2), 7).int()], 1)
        codes = Codes(integers(40, 5, most=2, seed=2, dtype=dtype), ids, 12)
        leaves = [
            codes.values,
            integers(2, 12, 19, most=3, seed=3, dtype=dtype),
            integers(2, 19, most=9, seed=4, dtype=dtype),
        ]

        def of_integers(run: Any, dtype: torch.dtype, codes: Codes = codes, leaves: Any = leaves) -> list[Tensor]:
            values, dictionary, bias = (x.to(dtype).requires_grad_() for x in leaves)
            out = run(Codes(values, codes.ids, 12), dictionary, bias)
            return [out, *torch.autograd.grad(out, (values, dictionary, bias), torch.ones_like(out))]

        for value, truth in zip(of_integers(decode, dtype), of_integers(by_dense, torch.float64), strict=True):
            assert torch.equal(value.double(), truth)


def long_runs_are_summed_in_pieces(decode: Decode) -> None:
    """Ones beside 2^24 are lost within a piece, and not in the others; the last has one entry more than a piece."""
    from lamina_kernels.sparse.decoding.units import PIECE

    last = 16 + 1 if PIECE > 1024 else PIECE + 1
    hot = 5 * (last - 1) // 2
    dictionary = torch.zeros(3, 2).requires_grad_()
    ids = torch.cat([torch.ones(hot, 1), torch.full((last, 1), 2)]).int()
    g = torch.ones(hot + last, 2)
    g[0, 1] = 2.0**24
    codes = Codes(torch.ones(hot + last, 1), ids, 3)
    (found,) = torch.autograd.grad(decode(codes, dictionary), dictionary, g)
    assert found[:, 0].tolist() == [0, hot, last]
    assert hot - last < found[1, 1].item() - 2.0**24 <= hot
    assert found[2, 1] == last


def an_entry_counts_as_often_as_it_stands(decode: Decode) -> None:
    ids = torch.tensor([[2, 0, 2], [1, 1, 1]])
    found = decode(Codes(torch.tensor([[1.0, 10.0, 3.0], [1.0, 2.0, 4.0]]), ids, 3), torch.eye(3))
    assert found.tolist() == [[10, 0, 4], [0, 7, 0]]


def rows_without_entries_are_the_bias(decode: Decode) -> None:
    bias, atoms = normal(5, seed=0), normal(4, 5, seed=1)
    none = torch.empty(3, 0)
    assert torch.equal(decode(Codes(none, none.int(), 4), atoms, bias), bias.expand(3, 5))
    assert not decode(Codes(none, none.int(), 4), atoms).any()
    assert decode(Codes(none[:0], none[:0].int(), 4), atoms, bias).shape == (0, 5)
    zeros = Codes(torch.zeros(2, 3), torch.zeros(2, 3).int(), 4)
    assert torch.equal(decode(zeros, atoms, bias), bias.expand(2, 5))
    ragged = Codes(torch.ones(1), torch.tensor([3]).int(), 4, torch.tensor([0, 0, 1, 1]))
    found = decode(ragged, atoms, bias)
    assert torch.equal(found[[0, 2]], bias.expand(2, 5))
    torch.testing.assert_close(found[1], bias + atoms[3])


def what_is_broken_breaks_what_names_it(decode: Decode) -> None:
    for bad in (math.nan, math.inf):
        atoms, values = normal(9, 6, seed=2), normal(30, 2, seed=3)
        ids = ids_of(30, 2, units=8, seed=4)
        whole = decode(Codes(values, ids, 9), atoms)
        atoms[3, 2] = bad
        found = decode(Codes(values, ids, 9), atoms)
        names = (ids == 3).any(1)
        assert names.any()
        assert torch.equal(~found.isfinite(), names[:, None] & (torch.arange(6) == 2))
        assert torch.equal(found[found.isfinite()], whole[found.isfinite()])
        # A unit that nobody names stays out of everything, and 0 times what is broken is NaN.
        atoms[8] = bad
        assert torch.equal(decode(Codes(values, ids, 9), atoms).isfinite(), found.isfinite())
        broken = values.clone()
        broken[7, 1] = bad
        atoms = normal(9, 6, seed=2).requires_grad_()
        (slope,) = torch.autograd.grad(decode(Codes(broken, ids, 9), atoms).sum(), atoms)
        assert torch.equal((~slope.isfinite()).all(1), torch.arange(9) == ids[7, 1])


def strides_do_not_matter(decode: Decode) -> None:
    values, atoms, ids = normal(20, 8, seed=5), normal(30, 40, seed=6), ids_of(20, 8, units=20, seed=7)
    holes = Codes(values[:, ::2], ids[:, ::2], 20), atoms.T[::2, 2:30:3]
    plain = Codes(values[:, ::2].contiguous(), ids[:, ::2].contiguous(), 20), atoms.T[::2, 2:30:3].contiguous()
    for leaves in (holes, plain):
        leaves[1].requires_grad_()
    g = normal(1, 10, seed=8).expand(20, 10)
    found, expected = ([out := decode(*given), *torch.autograd.grad(out, given[1], g)] for given in (holes, plain))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def ids_of_any_integers(decode: Decode) -> None:
    atoms, values = normal(40, 3, seed=9), normal(10, 4, seed=10)
    ids = ids_of(10, 4, units=40, seed=11)
    expected = decode(Codes(values, ids, 40), atoms)
    for dtype in (torch.int64, torch.int16, torch.uint8):
        assert torch.equal(decode(Codes(values, ids.to(dtype), 40), atoms), expected)


def the_same_bits_every_time(decode: Decode) -> None:
    codes, atoms = codes_of(24, 6, 5, torch.float32, seed=12), normal(2, 5, 33, seed=13)
    with poisoned():
        first, second = (with_gradients(decode, codes, [codes.values, atoms, None], torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def the_arguments_leave_as_they_came(decode: Decode) -> None:
    codes, atoms, bias = codes_of(20, "ragged", 11, torch.float32, seed=14), normal(11, 5, seed=15), normal(5, seed=16)
    held = [codes.values, codes.ids, codes.indptr, atoms, bias]
    before = [x.clone() for x in held if x is not None]
    with_gradients(decode, codes, [codes.values, atoms, bias], torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True) if a is not None)


def gradients_have_gradients(decode: Decode) -> None:
    """Against the dense formula, differentiated twice."""
    codes = codes_of(9, 3, 7, torch.float32, seed=17)
    found = []
    for run, dtype in ((decode, torch.float32), (by_dense, torch.float64)):
        values, atoms = (x.to(dtype).requires_grad_() for x in (codes.values, normal(2, 7, 4, seed=18)))
        out = run(Codes(values, codes.ids, 7), atoms, None)
        first = torch.autograd.grad(out.square().sum(), (values, atoms), create_graph=True)
        loss = first[0].square().sum() + (first[1] * normal(2, 7, 4, seed=19).to(dtype)).sum()
        found.append(torch.autograd.grad(loss, (values, atoms)))
    for value, truth in zip(*found, strict=True):
        torch.testing.assert_close(value.double(), truth, rtol=1e-4, atol=1e-4)


CHECKS = [
    small_integers_are_exact,
    an_entry_counts_as_often_as_it_stands,
    rows_without_entries_are_the_bias,
    what_is_broken_breaks_what_names_it,
    strides_do_not_matter,
    ids_of_any_integers,
    the_same_bits_every_time,
    the_arguments_leave_as_they_came,
    gradients_have_gradients,
]


def addresses_take_64_bits(decode: Decode) -> None:
    # The last of 40 atoms starts 2^31 numbers behind the first; memory that nobody touches costs nothing.
    stride = 55_200_000
    far = torch.empty(39 * stride + 8, dtype=torch.float16).as_strided((40, 8), (stride, 1))
    near = normal(40, 8, seed=20, dtype=torch.float16)
    far.copy_(near)
    codes = codes_of(12, 3, 40, torch.float16, seed=21)
    found, expected = (
        with_gradients(
            lambda c, w, b, atoms=atoms: decode(c, atoms) * 1, codes, [codes.values, None, None], torch.float16
        )
        for atoms in (far, near)
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def ids_without_an_atom_make_nan(decode: Decode) -> None:
    """What the kernels do where nobody looked: the entry is NaN, and nothing is read beside the dictionary."""
    from lamina_kernels.sparse.decoding import launch
    from lamina_kernels.sparse.decoding.units import runs

    ids, offsets = torch.tensor([0, 1, -1, 2, 3, 1]).int(), torch.tensor([0, 2, 4, 5, 6])
    field = torch.full((9, 4), 1e30)
    atoms = field[3:6].copy_(normal(3, 4, seed=22))
    values = torch.ones(6)
    found = launch.sums(values, ids, offsets, atoms, None)
    assert found.isnan().all(1).tolist() == [False, True, True, False]
    assert torch.equal(found[3], atoms[1])
    g = normal(4, 4, seed=23)
    assert launch.products(g, ids, offsets, atoms).isnan().tolist() == [False, False, True, False, True, False]
    (by_unit,) = launch.by_unit(values, runs(ids, offsets, 3), [g])
    torch.testing.assert_close(by_unit, torch.stack([g[0], g[0] + g[3], g[1]]))


def each_pass_is_one_launch(decode: Decode) -> None:
    from lamina_kernels.sparse.decoding import launch

    launched: list[str] = []
    whole = launch.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest)))
        codes, atoms = codes_of(20, 3, 11, torch.float32, seed=24), normal(11, 5, seed=25)
        with_gradients(decode, codes, [codes.values, atoms, None], torch.float32)
    assert launched == ["sums_kernel", "products_kernel", "sums_kernel"]


OF_KERNELS = [addresses_take_64_bits, ids_without_an_atom_make_nan, each_pass_is_one_launch]
