"""Faults of the benchmarks."""

from __future__ import annotations

import pytest

from tests.faults.table import fault


@fault
def bench_takes_no_turns(patch: pytest.MonkeyPatch) -> None:
    """All repetitions of a case stand together: a drift of the machine hits some cases alone."""
    from bench import harness

    patch.setattr(harness, "track", lambda rounds, *_: sorted(rounds))


@fault
def bench_compares_nothing(patch: pytest.MonkeyPatch) -> None:
    """Contenders are timed whatever they computed."""
    from bench.agreement import Within

    patch.setattr(Within, "check", lambda *_: None)


@fault
def bench_lets_nan_pass(patch: pytest.MonkeyPatch) -> None:
    """Entries that are not numbers are left out of a comparison."""
    import numpy as np

    from bench import agreement

    whole = agreement.as_array
    patch.setattr(agreement, "as_array", lambda value: np.nan_to_num(whole(value)))


@fault
def bench_inverts_percents(patch: pytest.MonkeyPatch) -> None:
    """What is slower than its limit gets more than 100 percent."""
    from bench import harness

    whole = harness.percent
    patch.setattr(harness, "percent", lambda *arguments: 1e4 / whole(*arguments))


@fault
def bench_leaves_the_cache_warm(patch: pytest.MonkeyPatch) -> None:
    """What is zeroed between calls on a GPU is smaller than its cache."""
    from bench import clock

    patch.setattr(clock, "FLUSH_BYTES", 2**10)


@fault
def bench_keeps_the_old_peak(patch: pytest.MonkeyPatch) -> None:
    """The high-water mark of memory is not started anew for the call that is measured."""
    from pathlib import Path

    from bench import memory

    patch.setattr(memory, "_RESET", Path("/dev/null"))
