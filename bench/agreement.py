"""Whether contenders computed the same thing: checked by a rule that the table states, before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


class DisagreementError(Exception):
    """A contender's result is not the expected one, so that its time would mean nothing."""


@dataclass(frozen=True)
class Within:
    """Every part of a result differs from the expected part by at most a share of that part's largest entry.

    Attributes:
        tolerance: The share. 0 asks for equality to the bit.
    """

    tolerance: float

    def __str__(self) -> str:
        """State the rule in words."""
        if self.tolerance == 0:
            return "every part of every result equal to the expected one, to the bit"
        return (
            f"largest absolute difference from the expected result at most {self.tolerance:g} "
            "of its largest entry, part by part"
        )

    def check(self, name: str, result: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
        """Compare a contender's result with the expected one, and return the largest share by which a part is off.

        Raises:
            DisagreementError: A part is missing, surplus, of another shape, not finite, or too far off.
        """
        if set(result) != set(expected):
            raise DisagreementError(f"{name} returned the parts {sorted(result)}, expected {sorted(expected)}")
        return max(
            (
                self._check_part(f"{name}, {part}", as_array(result[part]), as_array(target))
                for part, target in expected.items()
            ),
            default=0.0,
        )

    def _check_part(self, what: str, value: np.ndarray, target: np.ndarray) -> float:
        if value.shape != target.shape:
            raise DisagreementError(f"{what}: shape {value.shape}, expected {target.shape}")
        if self.tolerance == 0:
            if value.dtype != target.dtype or value.tobytes() != target.tobytes():
                raise DisagreementError(f"{what}: differs from the expected {target.dtype}, or is another dtype")
            return 0.0
        target = target.astype(np.float64)
        difference = np.abs(value.astype(np.float64) - target).max(initial=0)
        largest = np.abs(target).max(initial=0)
        bound = self.tolerance * largest
        # Written so that NaN fails it.
        if not difference <= bound:
            raise DisagreementError(f"{what}: off by {difference:.3g}, where {bound:.3g} is allowed")
        return float(difference / largest) if largest else 0.0


def as_array(value: Any) -> np.ndarray:
    """Bring a number, an array or a tensor of any device to NumPy."""
    return np.asarray(value.detach().cpu()) if hasattr(value, "detach") else np.asarray(value)
