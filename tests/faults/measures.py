"""Faults of error bars and tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def intervals_are_normal(patch: pytest.MonkeyPatch) -> None:
    """Quantiles come from the normal distribution, however few groups there are."""
    from statistics import NormalDist

    from lamina.measures import student

    patch.setattr(student, "_within", lambda t, freedom: 2 * NormalDist().cdf(t) - 1)


@fault
def jackknife_takes_buckets_for_equal(patch: pytest.MonkeyPatch) -> None:
    """The sizes of the buckets are ignored."""
    from lamina.measures.jackknife import Replicates

    whole = Replicates.stderr
    patch.setattr(
        Replicates,
        "stderr",
        lambda self, value: whole(Replicates(self.keys, (1,) * len(self.keys), self.values), value),
    )


@fault
def jackknife_forgets_its_factor(patch: pytest.MonkeyPatch) -> None:
    """The spread of the replicates is taken for the error."""
    import numpy as np

    from lamina.measures.jackknife import Replicates

    patch.setattr(Replicates, "stderr", lambda self, value: float(np.std(self.values)))


@fault
def differences_add_their_errors(patch: pytest.MonkeyPatch) -> None:
    """The error of a difference is that of two unrelated numbers."""
    import math
    from dataclasses import replace

    from lamina.measures.estimate import Estimate

    whole = Estimate._combined
    patch.setattr(
        Estimate,
        "_combined",
        lambda self, other, sign, symbol: replace(
            whole(self, other, sign, symbol), stderr=math.hypot(self.stderr, other.stderr)
        ),
    )


@fault
def discoveries_are_adjusted_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Each p-value is multiplied by the number of tests over its rank, and no more."""
    import numpy as np

    from lamina.measures import multiple

    class Forgetful:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        class minimum:  # noqa: N801 - stands for numpy.minimum
            accumulate = staticmethod(lambda values: values)

            def __new__(cls, a: Any, b: Any) -> Any:
                return np.minimum(a, b)

    patch.setattr(multiple, "np", Forgetful())


@fault
def permutations_move_rows(patch: pytest.MonkeyPatch) -> None:
    """Single rows trade places, whatever their groups."""
    from lamina.measures.permutation import _Moves

    patch.setattr(_Moves, "draw", lambda self, generator: generator.permutation(self._n))
