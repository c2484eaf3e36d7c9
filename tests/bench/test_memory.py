from __future__ import annotations

import numpy as np
import pytest

from bench import memory
from tests.faults import broken


def test_a_peak_is_what_the_call_adds_and_not_what_was_freed_before():
    np.ones(300 * 10**6, np.uint8)
    kept = np.ones(50 * 10**6, np.uint8)
    assert memory.added(lambda: np.ones(100 * 10**6, np.uint8).sum(), "cpu") == pytest.approx(100e6, rel=0.1)
    assert memory.added(lambda: None, "cpu") < 5e6
    assert kept[-1]


def test_counting_from_the_program_start_would_be_seen():
    with broken("bench_keeps_the_old_peak"), pytest.raises(AssertionError):
        test_a_peak_is_what_the_call_adds_and_not_what_was_freed_before()
