from __future__ import annotations

import mmap

import pytest

from bench import memory
from tests.faults import broken


def touched(size: int) -> mmap.mmap:
    """Memory from the kernel: malloc may answer with what other tests freed, which is resident already."""
    pages = mmap.mmap(-1, size)
    pages[:: mmap.PAGESIZE] = b"\1" * len(range(0, size, mmap.PAGESIZE))
    return pages


def test_a_peak_is_what_the_call_adds_and_not_what_was_freed_before():
    touched(300 * 10**6).close()
    kept = touched(50 * 10**6)
    assert memory.added(lambda: touched(100 * 10**6).close(), "cpu") == pytest.approx(100e6, rel=0.1)
    assert memory.added(lambda: None, "cpu") < 5e6
    assert kept[0]


def test_counting_from_the_program_start_would_be_seen():
    with broken("bench_keeps_the_old_peak"), pytest.raises(AssertionError):
        test_a_peak_is_what_the_call_adds_and_not_what_was_freed_before()
