"""The kernel functions of two rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """The dot product: k(x, y) = <x, y>.

    Example:
        >>> Linear()
        Linear()
    """


@dataclass(frozen=True)
class RBF:
    """The Gaussian kernel: k(x, y) = exp(-|x - y|² / (2 bandwidth²)).

    Attributes:
        bandwidth: The standard deviation, in units of distance between rows; from 1e-12 to 1e12, so that its square
            is a normal number in single precision.

    Raises:
        ValueError: `bandwidth` is not such a number.

    Example:
        >>> RBF(2.0)
        RBF(bandwidth=2.0)
    """

    bandwidth: float

    def __post_init__(self) -> None:
        if not 1e-12 <= self.bandwidth <= 1e12:
            raise ValueError(f"RBF: bandwidth is {self.bandwidth!r}, expected a number from 1e-12 to 1e12")

    @property
    def scale(self) -> float:
        """What a squared distance is multiplied with in the exponent, but for the sign."""
        return 0.5 / self.bandwidth**2


@dataclass(frozen=True)
class Distance:
    """The distance, negative so that near rows have large values: k(x, y) = -|x - y|.

    HSIC with it on both sides is the squared distance covariance (Sejdinovic, Sriperumbudur, Gretton, Fukumizu, 2013).
    A distance is the root of a difference of rounded numbers: one that is below the square root of the dtype's rounding
    times the rows' norms is lost in it. Give float64 where near rows matter.

    Example:
        >>> Distance()
        Distance()
    """


Kernel = Linear | RBF | Distance
