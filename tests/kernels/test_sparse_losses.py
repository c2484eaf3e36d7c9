"""Losses of reconstruction in their forms: dense formulas, planted truths, faults, bad arguments, operators, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import Codes, auxiliary_loss, reconstruction
from lamina_kernels.sparse.decoding.entries import entries
from lamina_kernels.sparse.losses import op
from tests.kernels import sparse_losses_checks as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal
from tests.meter import peak_bytes


def small(p: Any) -> Any:
    """Blocks of 9 rows."""
    from lamina_kernels.tiles.rows import tiles

    return tiles(len(p.target), 9)


BLOCKS = {"lamina_kernels.sparse.losses.blocked._blocks": small}
FORMS = {
    "reference": Form(checks.losses, "reference"),
    "blocked": Form(checks.losses, "blocked"),
    "blocks": Form(checks.losses, "blocked", BLOCKS),
    "triton": Form(checks.losses, "triton", BLOCKS, "interpreter"),
}
FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@FORM
@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_twice_as_much_as_plain_torch(form: Form, case: dict[str, Any]) -> None:
    if form.device == "interpreter" and case["n"] == 40:
        pytest.skip("the interpreter takes a second a block")
    form.run(checks.errs_at_most_twice_as_much_as_plain_torch, case, torch.float32)


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_half_precision(case: dict[str, Any]) -> None:
    FORMS["blocks"].run(checks.errs_at_most_twice_as_much_as_plain_torch, case, torch.float16)


@pytest.mark.parametrize("form", [FORMS["reference"], FORMS["blocks"]], ids=["reference", "blocks"])
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(form: Form, check: Any) -> None:
    form.run(check)


RULE = checks.errs_at_most_twice_as_much_as_plain_torch
NOTICED: list[tuple[str, str, Any, tuple[Any, ...]]] = [
    ("blocks", "reconstruction_forgets_a_block", RULE, (checks.CASES[0], torch.float32)),
    ("blocks", "reconstruction_counts_the_first_prefix_alone", RULE, (checks.CASES[2], torch.float32)),
    (
        "blocks",
        "reconstruction_decodes_by_the_first_dictionary",
        checks.several_dictionaries_are_compared_one_by_one,
        (),
    ),
    ("blocks", "reconstruction_adds_no_units_of_earlier_blocks", RULE, (checks.CASES[0], torch.float32)),
    ("blocks", "reconstruction_takes_the_variance_around_zero", checks.far_targets_keep_their_variance, ()),
    (
        "blocks",
        "reconstruction_takes_residuals_for_constants",
        checks.second_derivatives_err_at_most_twice_as_much,
        (checks.CASES[2],),
    ),
    ("blocks", "reconstruction_forgets_what_is_given", RULE, (checks.CASES[4], torch.float32)),
]


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_noticed(form: str, fault: str, check: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AssertionError):
        FORMS[form].run(check, *arguments, fault=fault)


CODES, ATOMS, TARGET = Codes(torch.ones(2, 3), torch.zeros(2, 3).int(), 4), torch.ones(4, 5), torch.ones(2, 5)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((CODES, torch.ones(3, 5), TARGET), {}, "reconstruction: codes have width 4 and dictionary 3 atoms"),
        ((CODES, ATOMS, TARGET[:1]), {}, r"reconstruction: target has shape \[1, 5\], expected \[2, 5\]"),
        ((CODES, ATOMS[None], TARGET), {}, r"reconstruction: target has shape \[2, 5\], expected \[2, 1, 5\]"),
        (
            (CODES, ATOMS[None], TARGET[:, None], torch.ones(5)),
            {},
            r"reconstruction: bias has shape \[5\], expected \[1, 5\]",
        ),
        ((CODES, ATOMS, TARGET.double()), {}, "reconstruction: target is torch.float64"),
        ((CODES, ATOMS, TARGET, torch.ones(4)), {}, r"reconstruction: bias has shape \[4\], expected \[5\]"),
        (
            (CODES, ATOMS, TARGET),
            {"prefixes": (1, 3)},
            r"prefixes are \[1, 3\], expected numbers that ascend",
        ),
        ((CODES, ATOMS, TARGET), {"prefixes": (2, 2, 4)}, "prefixes are"),
        ((CODES, ATOMS, TARGET), {"prefixes": ()}, "prefixes are"),
        ((CODES, ATOMS, TARGET), {"reduction": "none"}, "reduction is 'none', expected 'mean' or 'sum'"),
        ((CODES, ATOMS, TARGET), {"impl": "dense"}, "reconstruction has no form 'dense'"),
    ],
)
def test_bad_arguments_are_refused_by_name(given: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reconstruction(*given, **options)


def test_dead_codes_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="auxiliary_loss: dead has 1 rows and codes 2"):
        auxiliary_loss(CODES.rows(slice(0, 1)), CODES, ATOMS, TARGET)
    wild = Codes(torch.ones(2, 1), torch.full((2, 1), 9).int(), 4, check=False)
    with pytest.raises(ValueError, match="ids go from 9 to 9"):
        auxiliary_loss(CODES, wild, ATOMS, TARGET)


@FORM
@pytest.mark.parametrize("case", checks.CASES[1:5], ids=lambda case: " ".join(map(str, case.values())))
def test_second_derivatives_err_at_most_twice_as_much_as_plain_torch(form: Form, case: dict[str, Any]) -> None:
    form.run(checks.second_derivatives_err_at_most_twice_as_much, case | {"n": 5})


def test_third_derivatives() -> None:
    ids = torch.tensor([[0, 3], [2, 2], [1, 0]]).int()
    leaves = [normal(*shape, seed=3, dtype=torch.float64).requires_grad_() for shape in ((3, 2), (4, 2), (3, 2), (2,))]

    def slopes(*leaves: Tensor) -> tuple[Tensor, ...]:
        loss = reconstruction(Codes(leaves[0], ids, 4), *leaves[1:], prefixes=(2, 4)).loss
        return torch.autograd.grad((loss * torch.tensor([1.0, 2.0])).sum(), leaves, create_graph=True)

    assert torch.autograd.gradgradcheck(slopes, leaves, fast_mode=True)


def test_torch_finds_the_operators_in_order() -> None:
    codes = checks.codes_of(5, 3, 4, torch.float64, seed=0)
    values, ids, offsets = entries(codes)
    atoms, target, bias = (normal(*shape, seed=1, dtype=torch.float64) for shape in ((4, 3), (5, 3), (3,)))
    for x in (values, atoms, target, bias):
        x.requires_grad_()
    arguments = values, ids, offsets, atoms, target, bias, values.detach(), ids, offsets, [2, 4]
    torch.library.opcheck(op._squares, (*arguments, "blocked"))


def test_it_compiles_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    ids = torch.tensor([[0, 3], [2, 2], [1, 0]]).int()

    def loss(values: Tensor, atoms: Tensor, target: Tensor) -> Tensor:
        return reconstruction(Codes(values, ids, 4, check=False), atoms, target, prefixes=(2, 4)).loss.sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    leaves = [normal(*shape, seed=3).requires_grad_() for shape in ((3, 2), (4, 5), (3, 5))]
    torch.testing.assert_close(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss)))


def test_memory_is_one_block() -> None:
    """The matrix of codes would take 240 MB, the gathered atoms 150; what the loss decodes 120. A block takes 16."""
    peak_bytes("""
        import torch
        from lamina_kernels.sparse import Codes, decode, reconstruction

        def codes(n, k, units):
            return Codes(torch.rand(n, k, requires_grad=True), torch.randint(0, units, (n, k)).int(), units)

        def peak(n):
            atoms = torch.rand(20_000, 50, requires_grad=True)
            decode(codes(n // 10, 250, 20_000), atoms).sum().backward()
            atoms = torch.rand(2000, 1000, requires_grad=True)
            reconstruction(codes(n, 4, 2000), atoms, torch.zeros(1, 1000).expand(n, 1000)).loss.backward()
            with open("/proc/self/status") as status:
                return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM:")))

        before = peak(10)
        added = peak(30_000) - before
        assert added < 100e6, added
    """)
