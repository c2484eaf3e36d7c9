"""`decode` in its forms: dense formulas, planted truths, faults that these notice, bad arguments, operators."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import Codes, decode
from lamina_kernels.sparse.decoding import op
from lamina_kernels.sparse.decoding.entries import entries
from tests.kernels import decoding_checks as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

FORMS = {
    "reference": Form(decode, "reference"),
    "blocked": Form(decode, "blocked"),
    "triton": Form(decode, "triton", {}, "interpreter"),
}
# Rows in several blocks of columns, and runs in short pieces.
_DECODING = "lamina_kernels.sparse.decoding"
NARROW = {f"{_DECODING}.launch.COLUMNS": 32, f"{_DECODING}.launch.WIDEST": 32, f"{_DECODING}.units.PIECE": 16}
FORMS["narrow"] = Form(decode, "triton", NARROW, "interpreter")
# Where torch does not have what it calls for the weights of `embedding_bag`.
FORMS["copied"] = Form(
    decode, "blocked", {f"{_DECODING}.blocked._OF_WEIGHTS": None, f"{_DECODING}.blocked.NUMBERS": 300}
)
FORM = pytest.mark.parametrize(
    "form", [FORMS[name] for name in ("reference", "blocked", "triton")], ids=lambda form: form.impl
)


@FORM
@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_twice_as_much_as_plain_torch(form: Form, case: dict[str, Any]) -> None:
    form.run(checks.errs_at_most_twice_as_much_as_plain_torch, case)


@pytest.mark.parametrize("case", [c for c in checks.CASES if c["width"] == 130], ids=str)
def test_rows_in_blocks_of_columns(case: dict[str, Any]) -> None:
    FORMS["narrow"].run(checks.errs_at_most_twice_as_much_as_plain_torch, case | {"dtype": torch.float32})


@pytest.mark.parametrize("form", ["blocked", "copied"])
def test_bfloat16(form: str) -> None:
    FORMS[form].run(checks.errs_at_most_twice_as_much_as_plain_torch, CASE | {"dtype": torch.bfloat16})


@FORM
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(form: Form, check: Any) -> None:
    form.run(check)


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_rows_are_copied_where_torch_has_nothing_better(case: dict[str, Any]) -> None:
    FORMS["copied"].run(checks.errs_at_most_twice_as_much_as_plain_torch, case)


@pytest.mark.parametrize("form", [FORMS["blocked"], FORMS["narrow"]], ids=["blocked", "triton"])
def test_long_runs_are_summed_in_pieces(form: Form) -> None:
    form.run(checks.long_runs_are_summed_in_pieces)


@pytest.mark.parametrize("check", checks.OF_KERNELS, ids=lambda check: check.__name__)
def test_kernels(check: Any) -> None:
    FORMS["triton"].run(check)


CASE = {"n": 11, "units": 6, "k": 5, "width": 40, "layers": 3, "bias": True, "dtype": torch.float32}
RULE = checks.errs_at_most_twice_as_much_as_plain_torch
NOTICED: list[tuple[str, str, Any, tuple[Any, ...]]] = [
    ("blocked", "decode_sums_runs_in_one_piece", checks.long_runs_are_summed_in_pieces, ()),
    ("blocked", "decode_forgets_the_pieces", checks.long_runs_are_summed_in_pieces, ()),
    ("blocked", "decode_takes_the_first_row_of_a_unit", RULE, (CASE,)),
    ("blocked", "decode_forgets_duplicates", checks.an_entry_counts_as_often_as_it_stands, ()),
    ("reference", "decode_forgets_duplicates", checks.an_entry_counts_as_often_as_it_stands, ()),
    ("blocked", "decode_sums_in_half_precision", RULE, (CASE,)),
    ("copied", "decode_copies_one_piece", RULE, (CASE,)),
    ("blocked", "decode_counts_a_bias_for_every_layer", RULE, (CASE,)),
    ("narrow", "decode_forgets_the_pieces", checks.long_runs_are_summed_in_pieces, ()),
    ("triton", "decode_takes_the_first_row_of_a_unit", RULE, (CASE,)),
    ("triton", "decode_kernel_skips_a_program", RULE, (CASE,)),
    ("triton", "decode_kernel_skips_a_program_of_products", RULE, (CASE,)),
    ("triton", "decode_kernel_ignores_the_order", RULE, (CASE,)),
    ("triton", "decode_kernel_forgets_the_bias", RULE, (CASE,)),
    ("triton", "decode_kernel_takes_broken_ids", checks.ids_without_an_atom_make_nan, ()),
]


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_noticed(form: str, fault: str, check: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AssertionError):
        FORMS[form].run(check, *arguments, fault=fault)


CODES = Codes(torch.ones(2, 3), torch.zeros(2, 3).int(), 4)


@pytest.mark.parametrize(
    ("codes", "dictionary", "options", "message"),
    [
        (CODES, torch.ones(5, 2), {}, "decode: codes have width 4 and dictionary 5 atoms"),
        (CODES, torch.ones(4), {}, r"decode: dictionary has shape \[4\], expected"),
        (CODES, torch.ones(0, 4, 2), {}, r"decode: dictionary has shape \[0, 4, 2\], expected"),
        (
            CODES,
            torch.ones(4, 2).double(),
            {},
            "decode: dictionary is torch.float64 on cpu, but values is torch.float32",
        ),
        (
            CODES,
            torch.ones(4, 2),
            {"bias": torch.ones(3)},
            r"decode: bias is torch.float32 \[3\] on cpu, expected .* \[2\]",
        ),
        (CODES, torch.ones(4, 2), {"bias": torch.ones(2).half()}, "decode: bias is torch.float16"),
        (CODES, torch.ones(3, 4, 2), {"bias": torch.ones(2)}, r"expected torch.float32 \[3, 2\]"),
        (CODES, torch.ones(4, 2), {"impl": "dense"}, "decode has no form 'dense'"),
    ],
)
def test_bad_arguments_are_refused_by_name(codes: Any, dictionary: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(codes, dictionary, **options)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_ids_that_are_out_of_range_are_refused(impl: Any, bad: int) -> None:
    """Also where nobody looked when the codes were made."""
    codes = Codes(torch.ones(1, 2), torch.tensor([[0, bad]]).int(), 4, check=False)
    with pytest.raises(ValueError, match=r"decode: ids go from .* to .*, expected from 0 to 3"):
        decode(codes, torch.ones(4, 2), impl=impl)


def test_the_number_of_threads_changes_no_bit() -> None:
    """Of many rows, so that threads share them; without gradients no operator stands between."""
    codes, atoms = checks.codes_of(3000, 8, 500, torch.float32, seed=0), normal(500, 32, seed=1)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            each = checks.with_gradients(decode, codes, [codes.values, atoms, atoms[0]], torch.float32)
            assert torch.equal(decode(codes, atoms, atoms[0]), each[0])
            found.append(each)
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_triton_runs_on_a_gpu_alone_and_never_gives_way() -> None:
    with pytest.raises(RuntimeError, match="decode: impl='triton' cannot run"):
        decode(CODES, torch.ones(4, 2), impl="triton")


def test_the_form_that_runs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        decode(CODES, torch.ones(4, 2))
        decode(CODES, torch.ones(4, 2), impl="reference")
    assert caplog.messages == ["decode: blocked", "decode: reference"]


def test_torch_finds_the_operators_in_order() -> None:
    codes = checks.codes_of(5, 3, 4, torch.float64, seed=0)
    values, ids, offsets = entries(codes)
    values.requires_grad_()
    atoms, bias, g = (
        normal(*shape, seed=1, dtype=torch.float64).requires_grad_() for shape in ((2, 4, 3), (2, 3), (5, 2, 3))
    )
    torch.library.opcheck(op._decode, (values, ids, offsets, atoms, bias, "blocked"))
    torch.library.opcheck(op._products, (g, ids, offsets, atoms, "blocked"))
    torch.library.opcheck(op._by_unit, (values, ids, offsets, g, 4, "blocked"))


def test_it_compiles_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    ids = checks.ids_of(6, 2, units=5, seed=2)

    def loss(values: Tensor, atoms: Tensor) -> Tensor:
        return decode(Codes(values, ids, 5, check=False), atoms, atoms[0]).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    leaves = [normal(6, 2, seed=3).requires_grad_(), normal(5, 3, seed=4).requires_grad_()]
    torch.testing.assert_close(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss)))
