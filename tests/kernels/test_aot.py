"""Kernels compiled for GPUs that are not here: main configurations always, all of them by `make test-aot`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import triton

from tests.faults import broken
from tests.kernels import gram_kernel_faults as gram_kernel_faults  # known where checks run
from tests.kernels.aot.addresses import products_in_32_bits
from tests.kernels.aot.compiling import TARGETS, ttir_for
from tests.kernels.aot.configurations import FAMILIES
from tests.kernels.aot.table import compiled, complaints, rows

EVERY = [(family, configuration) for family, members in FAMILIES.items() for configuration in members.values()]
MAIN = [
    pytest.param(family, c.name, marks=() if c.main else pytest.mark.aot, id=f"{family} {c.name}")
    for family, c in EVERY
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("family", "name"), MAIN)
def test_a_kernel_compiles_to_what_the_table_says(family, name, target):
    _, row = compiled(family, name, target)
    assert complaints(family, row) == []
    known = [r for r in rows(family) if (r.triton, r.target, r.configuration) == (triton.__version__, target, name)]
    if not any(r.triton == triton.__version__ for r in rows(family)):
        pytest.skip(f"compiled, without complaint; the table of {family} has no rows of Triton {triton.__version__}")
    # After a change that is meant: python -m tests.kernels.aot.table
    assert [row] == known


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_has_at_most_60_rows_and_each_is_compiled(family):
    newest = [r for r in rows(family) if r.triton == triton.__version__]
    named = {r.configuration for r in newest}
    assert len(newest) <= 60
    assert named <= set(FAMILIES[family])
    assert len(newest) == len(named) * len(TARGETS)


def test_attention_of_128_columns_takes_tiles_of_128_by_descriptors_and_spills_nothing_in_its_loop():
    for name in ("bf16 d128", "bf16 d128 entropy"):
        taken = FAMILIES["attention"][name].plan("cuda:90").arguments
        assert (taken["ROWS"], taken["COLUMNS"], taken["DESCRIPTORS"]) == (128, 128, True)
        known = [r for r in rows("attention") if (r.target, r.configuration) == ("cuda:90", name)]
        assert {row.spills_in_loop for row in known} == {"0"}


def test_encoders_take_tiles_of_256_units_by_descriptors_and_spill_nothing():
    for name in ("bf16 d1024 bias", "bf16 d4096 bias", "bf16 d1024 bias boost", "bf16 d1024 bias mass"):
        taken = FAMILIES["sparse_encode"][name].plan("cuda:90").arguments
        assert (taken["ROWS"], taken["COLUMNS"], taken["DESCRIPTORS"]) == (128, 256, True)
        known = [r for r in rows("sparse_encode") if (r.target, r.configuration) == ("cuda:90", name)]
        assert {row.spills for row in known} == {"0"}


@pytest.fixture(scope="module")
def in_a_fresh_process() -> Iterator[Callable[[Callable[[], None], str], None]]:
    """Run a check where nothing was compiled yet: Triton keeps the hash of a kernel and of its constants."""
    # It imports the compiler for all that it forks, and compiles nothing itself.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield lambda check, fault: process.submit(_fork, check, fault).result()


def _fork(check: Callable[[], None], fault: str) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        process.submit(_run, check, fault).result()


def _run(check: Callable[[], None], fault: str) -> None:
    with broken(fault):
        check()


# One launch of each kernel of pairs, of those with the most branches.
LAUNCHES = [
    ("gram", "bf16 d768 rbf small groups off"),
    ("gram_sums", "bf16 d64 sum of products"),
    ("gram_sums", "fp32 d512 rbf fp16x3"),
    ("gram_sums", "fp32 d256 rbf tf32"),
    ("gram_sums", "fp32 d64 norm 1 row sums"),
    ("gram_sums", "bf16 d64 softmax v64"),
    ("gram_gradients", "bf16 d64 laplace softmax"),
    ("gram_gradients", "bf16 d64 rbf parameters"),
    ("gram_gradients", "bf16 d384 rbf"),
    ("gram_gradients", "fp32 d64 norm 1"),
    ("layers", "bf16 d64 rbf 32 layers groups"),
    ("layers_gradients", "bf16 d64 rbf 2 layers groups"),
    ("layers_gradients", "bf16 d64 norm 1 rbf"),
    ("nearest", "bf16 d64 k16 groups"),
    ("nearest", "fp32 d128 k16"),
    ("counts", "bf16 d128"),
    ("counts", "bf16 d64 groups 20 edges"),
    ("pointwise", "bf16 d64 own"),
    ("losses", "bf16 d512 infonce"),
]


def counted_in_32_bits(family: str, name: str) -> list[str]:
    configuration = FAMILIES[family][name]
    launch = configuration.plan("cuda:90")
    return products_in_32_bits(ttir_for("cuda:90", configuration.kernel, launch.arguments, launch.options))


def addresses_take_64_bits() -> None:
    assert {launch: found for launch in LAUNCHES if (found := counted_in_32_bits(*launch))} == {}


def no_address_takes_64_bits() -> None:
    assert [launch for launch in LAUNCHES if not counted_in_32_bits(*launch)] == []


def test_addresses_in_32_bits_are_noticed_in_every_kernel(in_a_fresh_process) -> None:
    in_a_fresh_process(no_address_takes_64_bits, "gram_kernels_count_in_32_bits")


def the_maximum_keeps_what_is_broken() -> None:
    kernel, _ = compiled("gram_sums", "bf16 d64 laplace", "cuda:90")
    assert "max.NaN.f32" in kernel.asm["ptx"]


def the_kernel_is_fit_to_launch() -> None:
    assert complaints("gram", compiled("gram", "bf16 d64 rbf", "cuda:80")[1]) == []


def products_run_on_tensor_cores() -> None:
    assert complaints("gram", compiled("gram", "fp32 d64 rbf", "cuda:90")[1]) == []


def copies_are_wide_and_asynchronous() -> None:
    # Without the attributes, Triton does not know that 16 bytes may be copied at once.
    kernel, _ = compiled("gram", "bf16 d64 rbf", "cuda:90")
    assert "cp.async.cg.shared.global" in kernel.asm["ptx"]


CHECKS = [
    (the_maximum_keeps_what_is_broken, "gram_kernel_hides_broken_rows"),
    (the_kernel_is_fit_to_launch, "hsic_kernel_takes_large_tiles"),
    (the_kernel_is_fit_to_launch, "hsic_kernel_spills"),
    (products_run_on_tensor_cores, "hsic_kernel_leaves_the_tensor_cores"),
    (copies_are_wide_and_asynchronous, "aot_forgets_the_attributes"),
]


@pytest.mark.parametrize(
    "check", dict.fromkeys([addresses_take_64_bits, *(check for check, _ in CHECKS)]), ids=lambda check: check.__name__
)
def test_code(check):
    check()


@pytest.mark.parametrize(("check", "fault"), CHECKS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_in_the_code_is_noticed(in_a_fresh_process, check, fault):
    with pytest.raises(AssertionError):
        in_a_fresh_process(check, fault)
