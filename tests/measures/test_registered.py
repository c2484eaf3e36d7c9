"""Every registered measure keeps what it declares. The tests are made from the register and `cases.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.errors import SchemaError
from lamina.measures import Estimate, Measure
from lamina.measures.registry import measures
from lamina.rows import Rows
from lamina.rows.memory import Memory
from tests.faults import broken
from tests.measures.cases import CASES, Case, normal

OWN = {name: each for name, each in measures().items() if each.function.__module__.startswith("lamina.")}
NAMES = sorted(OWN)
REQUIRED = (Path(__file__).parent / "required.txt").read_text().split()
SECTIONS = ("Args:", "Returns:", "Raises:", "Cost:", "Source:", "Example:", "**Invariant**", "**Bias**")


def test_what_is_required_is_there_and_has_a_case() -> None:
    assert sorted(REQUIRED) == NAMES, "a measure that is new or gone: edit tests/measures/required.txt"
    assert sorted(CASES) == NAMES, "every measure has a case in tests/measures/cases.py"


def call(each: Measure, given: dict[str, Any]) -> Estimate:
    estimate = each.function(**given)
    assert isinstance(estimate, Estimate)
    return estimate


def maps(d: int) -> dict[str, Any]:
    turn = torch.linalg.qr(normal(77, d, d)).Q
    stretch = torch.linspace(0.2, 5, d, dtype=torch.float64)
    return {
        "rotation": lambda x: x @ turn,
        "permutation": lambda x: x[:, torch.arange(d - 1, -1, -1)],
        "scale": lambda x: 3.7 * x,
        "shift": lambda x: x + 10 * normal(78, d),
        "affine": lambda x: (x * stretch) @ turn + 5,
    }


@pytest.mark.parametrize("invariance", ["rotation", "permutation", "scale", "shift", "affine"])
@pytest.mark.parametrize("name", NAMES)
def test_invariances_are_as_declared(name: str, invariance: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    value = np.asarray(call(each, given).value)
    for side, declared in (("x", each.invariant), ("y", each.invariant_y)):
        if declared is None:
            continue
        mapped = given | {side: maps(given[side].shape[1])[invariance](given[side])}
        change = np.abs(np.asarray(call(each, mapped).value) - value).max()
        if invariance in declared:
            assert change < 1e-8 * (1 + np.abs(value).max()), f"{side}: the value moves by {change:.3g}"
        else:
            assert change > 1e-3, f"{side}: the value does not move; declare the invariance"


@pytest.mark.parametrize("name", [name for name in NAMES if OWN[name].takes == "two rows"])
def test_what_is_symmetric_is_declared(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    there = call(each, given)
    back = call(each, given | {"x": given["y"], "y": given["x"]})
    alike = np.allclose([there.value, there.stderr], [back.value, back.stderr], rtol=1e-8, atol=1e-12)
    assert alike == each.symmetric


def check_truth(each: Measure, case: Case) -> None:
    for seed in range(3):
        estimate = call(each, case.draw(seed))
        distance = np.abs(np.asarray(estimate.value) - case.truth)
        assert (distance < 4 * np.asarray(estimate.stderr) + case.within).all(), estimate
        assert (np.asarray(estimate.stderr) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_planted_truth_is_found(name: str) -> None:
    check_truth(OWN[name], CASES[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_fault_is_noticed(name: str) -> None:
    with broken(CASES[name].fault), pytest.raises(AssertionError):
        check_truth(OWN[name], CASES[name])


@pytest.mark.parametrize("name", [name for name in NAMES if OWN[name].streams])
def test_states_merge_in_any_order(name: str) -> None:
    merged = CASES[name].merged
    assert merged is not None, "a measure that streams has a state that merges"
    every = list(range(10))
    whole = merged([every])
    for parts in ([every[:3], every[3:]], [every[3:], every[:3]], [[i] for i in reversed(every)], [every, []]):
        assert merged(parts) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_not_finite_are_left_out_and_counted(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    x = given["x"].clone()
    x[[0, 5], 1] = torch.tensor([float("nan"), float("inf")], dtype=torch.float64)
    estimate = call(each, given | {"x": x})
    kept = np.setdiff1d(np.arange(len(x)), [0, 5])
    expected = call(each, {key: side[kept] if hasattr(side, "shape") else side for key, side in given.items()})
    assert estimate.dropped == {**expected.dropped, "non_finite": 2}
    np.testing.assert_allclose(estimate.value, expected.value, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_not_finite_are_refused_if_asked(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    whole = call(each, given | {"non_finite": "refuse"})
    np.testing.assert_array_equal(whole.value, call(each, given).value)
    x = given["x"].clone()
    x[[5, 9], 1] = float("nan")
    with pytest.raises(SchemaError, match=rf"2 of {len(x)} rows hold a NaN .* row 5 of x"):
        call(each, given | {"x": x, "non_finite": "refuse"})
    with pytest.raises(SchemaError, match="it is 'drop' or 'refuse'"):
        call(each, given | {"non_finite": "keep"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_short_dtypes_give_what_their_values_give_in_double(name: str, dtype: torch.dtype) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    rows = {key: given[key].to(dtype) for key in ("x", "y") if key in given}
    expected = call(each, given | {key: side.double() for key, side in rows.items()})
    np.testing.assert_allclose(call(each, given | rows).value, expected.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    order = np.random.default_rng(0).permutation(len(given["x"]))
    estimate, expected = (
        call(each, each_given)
        for each_given in ({key: side[order] if hasattr(side, "shape") else side for key, side in given.items()}, given)
    )
    np.testing.assert_allclose(estimate.value, expected.value, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(estimate.stderr, expected.stderr, rtol=1e-8, atol=1e-12)


def cut(given: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {key: side[rows] if hasattr(side, "shape") else side for key, side in given.items()}


def finite_or_refused(each: Measure, given: dict[str, Any]) -> Estimate | None:
    try:
        estimate = call(each, given)
    except SchemaError:
        return None
    assert np.isfinite(estimate.value).all(), estimate
    assert not (np.asarray(estimate.stderr) < 0).any()
    return estimate


@pytest.mark.parametrize("name", NAMES)
def test_few_rows_constant_rows_and_rows_that_occur_twice(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    for n in (2, 3, 4, 5, 8):
        finite_or_refused(each, cut(given, np.unique(np.linspace(0, len(given["x"]) - 1, n).astype(int))))
    finite_or_refused(each, given | {"x": given["x"] * 0 + 3})
    rows = np.repeat(np.arange(len(given["x"])), 2)
    twice = finite_or_refused(each, cut(given, rows))
    # within its group a copy tells nothing new
    if twice is not None and each.streams:
        np.testing.assert_allclose(twice.value, call(each, given).value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_with_a_mean_of_a_thousand(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    far = {key: (given[key] + 1000).float() for key in ("x", "y") if key in given}
    expected = call(each, given | {key: side.double() for key, side in far.items()})
    np.testing.assert_allclose(call(each, given | far).value, expected.value, rtol=1e-3, atol=1e-3)


class Elsewhere(Memory):
    """Rows that come to another device, unless they are asked for on the CPU."""

    device = torch.device("meta")

    def gather(self, positions: Any, out: torch.Tensor, threads: int | None = None) -> None:
        assert out.device.type == "cpu", "the rows of another device are not here"
        super().gather(positions, out, threads)


def check_rows_on_a_device(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    there = {key: Rows(Elsewhere(given[key])) for key in ("x", "y") if key in given}
    assert call(each, given | there) == call(each, given)


@pytest.mark.parametrize("name", NAMES)
def test_rows_on_a_device_are_measured(name: str) -> None:
    check_rows_on_a_device(name)


def test_rows_that_stay_on_their_device_are_noticed() -> None:
    with broken("rows_stay_on_their_device"), pytest.raises((AssertionError, NotImplementedError, RuntimeError)):
        check_rows_on_a_device("similarity.cka")


def bad(each: Measure, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    x = given["x"]
    short = {key: side[:1] if hasattr(side, "shape") else side for key, side in given.items()}
    found: dict[str, dict[str, Any]] = {
        "a text": given | {"x": "weights.npy"},
        "no width": given | {"x": x[:, :0]},
        "no row": {key: side[:0] if hasattr(side, "shape") else side for key, side in given.items()},
        "one row": short,
        "nothing finite": given | {"x": x * float("nan")},
        "groups of another length": given | {"groups": np.arange(len(x) - 1)},
        "one group": given | {"groups": np.zeros(len(x))},
        "no such column": given | {"groups": "topic"},
    }
    if each.takes == "two rows":
        found["another length"] = given | {"y": given["y"][:-1]}
        found["another pairing"] = given | {"pair": "row"}
        found["y does not vary"] = given | {"y": given["y"] * 0 + 3}
    if each.takes == "rows and labels":
        found["labels of another length"] = given | {"labels": given["labels"][:-1]}
        found["one class"] = given | {"labels": np.zeros(len(x), np.int64)}
        found["no such labels"] = given | {"labels": "topic"}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused_with_a_reason(name: str) -> None:
    for what, given in bad(OWN[name], CASES[name].draw(0)).items():
        with pytest.raises(SchemaError) as caught:
            call(OWN[name], given)
        assert caught.value.message, what
        assert what != "no width" or caught.value.message == "x has no features"


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_is_a_page(name: str) -> None:
    text = OWN[name].function.__doc__ or ""
    assert [section for section in SECTIONS if section not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_is_told_in_a_frame(name: str) -> None:
    estimate = call(OWN[name], CASES[name].draw(0))
    assert f"{OWN[name].family}.{estimate.measure}" == name
    assert estimate.estimator
    assert estimate.error
    assert estimate.to_frame().height == max(1, np.asarray(estimate.value).size)


def test_the_list_is_a_frame() -> None:
    frame = lamina.list_measures()
    assert set(NAMES) <= set(frame["name"])
    cka = frame.filter(name="similarity.cka").to_dicts()[0]
    assert (cka["family"], cka["takes"], cka["streams"], cka["metric"]) == ("similarity", "two rows", True, False)
    assert cka["invariant"] == cka["invariant_y"] == ["rotation", "permutation", "scale", "shift"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"invariant": ["mirror"]}, "'mirror'"),
        ({"invariant": ["affine"]}, "affine maps"),
        ({"invariant": ["rotation"]}, "rotations"),
    ],
)
def test_a_declaration_that_contradicts_itself(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):

        @lamina.measures.measure("example", takes="rows", cost="none", source="none", **options)
        def nothing(x: Any) -> None: ...
