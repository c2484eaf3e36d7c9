from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.agreement import DisagreementError, Within
from tests.faults import broken

EXPECTED = {"a": np.array([0.0, -2.0, 1.0]), "b": 3.0}


def test_the_rule_is_relative_to_the_largest_entry_of_each_part():
    rule = Within(0.01)
    rule.check("near", {"a": np.array([0.019, -2.0, 1.0]), "b": torch.tensor(3.02)}, EXPECTED)
    with pytest.raises(DisagreementError, match=r"far, a: off by 0\.021, where 0\.02 is allowed"):
        rule.check("far", {"a": np.array([0.021, -2.0, 1.0]), "b": 3.0}, EXPECTED)
    with pytest.raises(DisagreementError, match="far, b: off by"):
        rule.check("far", {"a": EXPECTED["a"], "b": 3.04}, EXPECTED)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_agrees(value):
    with pytest.raises(DisagreementError, match="odd, a: off by"):
        Within(0.01).check("odd", {"a": np.array([value, -2.0, 1.0]), "b": 3.0}, EXPECTED)


def test_letting_nan_pass_would_be_seen():
    with broken("bench_lets_nan_pass"), pytest.raises(pytest.fail.Exception):
        test_what_is_not_finite_never_agrees(np.nan)


def test_shapes_and_parts_must_agree():
    with pytest.raises(DisagreementError, match=r"shape \(3, 1\), expected \(3,\)"):
        Within(0.01).check("tall", {"a": EXPECTED["a"][:, None], "b": 3.0}, EXPECTED)
    with pytest.raises(DisagreementError, match=r"returned the parts \['a'\], expected \['a', 'b'\]"):
        Within(0.01).check("short", {"a": EXPECTED["a"]}, EXPECTED)


def test_a_tolerance_of_zero_asks_for_the_same_bits():
    half = torch.tensor([0.0, float("nan")]).half()
    Within(0).check("same", {"x": half.clone()}, {"x": half})
    for other in (half.float(), torch.tensor([-0.0, float("nan")]).half()):
        with pytest.raises(DisagreementError):
            Within(0).check("other", {"x": other}, {"x": half})


def test_the_rule_says_what_it_asks_for():
    assert "at most 0.0001 of its largest entry" in str(Within(1e-4))
    assert "to the bit" in str(Within(0))
