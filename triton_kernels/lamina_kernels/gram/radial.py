"""The kernel functions of the distance between two rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.terms import Builder, Hyperparameter, Node

_SMALLEST, _LARGEST = 1e-12, 1e12


@dataclass(frozen=True)
class RBF(Kernel):
    """The Gaussian kernel: k(x, y) = exp(-|x - y|² / (2 bandwidth²)).

    Attributes:
        bandwidth: The standard deviation, in units of distance between rows; from 1e-12 to 1e12, so that its square
            is a normal number in single precision. A number, or a tensor of one or of d (one a dimension),
            differentiable.

    Raises:
        ValueError: `bandwidth` is not such a number.

    Example:
        >>> RBF(2.0)
        RBF(bandwidth=2.0)
    """

    bandwidth: Hyperparameter

    def __post_init__(self) -> None:
        check_scale("RBF: bandwidth", self.bandwidth)

    @property
    def scale(self) -> Hyperparameter:
        """What a squared distance is multiplied with in the exponent, but for the sign."""
        return 0.5 / self.bandwidth**2

    def node(self, builder: Builder) -> Node:
        """Return the exponential of a squared distance."""
        if isinstance(self.bandwidth, torch.Tensor):
            return builder.distance("square", "exp", self.bandwidth, 0.5)
        return builder.leaf("square", "exp", -self.scale)


@dataclass(frozen=True)
class SquaredDistance(Kernel):
    """The logarithm of the Gaussian kernel: k(x, y) = -|x - y|² / (2 bandwidth²).

    `logsumexp` with it is a Gaussian kernel density, but for a constant; its softmax weighs as Nadaraya and Watson do.

    Attributes:
        bandwidth: As of `RBF`.

    Raises:
        ValueError: `bandwidth` is not such a number.

    Example:
        >>> SquaredDistance(2.0)
        SquaredDistance(bandwidth=2.0)
    """

    bandwidth: Hyperparameter = 1.0

    def __post_init__(self) -> None:
        check_scale("SquaredDistance: bandwidth", self.bandwidth)

    def node(self, builder: Builder) -> Node:
        """Return a squared distance."""
        return builder.distance("square", "identity", self.bandwidth, 0.5)


@dataclass(frozen=True)
class Laplace(Kernel):
    """The exponential kernel: k(x, y) = exp(-|x - y|_norm / bandwidth).

    Attributes:
        bandwidth: As of `RBF`.
        norm: 2 for the Euclidean distance, 1 for the sum of absolute differences.

    Raises:
        ValueError: `bandwidth` or `norm` is not such a number.

    Example:
        >>> Laplace(2.0, norm=1)
        Laplace(bandwidth=2.0, norm=1)
    """

    bandwidth: Hyperparameter
    norm: int = 2

    def __post_init__(self) -> None:
        check_scale("Laplace: bandwidth", self.bandwidth)
        if self.norm not in (1, 2):
            raise ValueError(f"Laplace: norm is {self.norm!r}, expected 1 or 2")

    def node(self, builder: Builder) -> Node:
        """Return the exponential of a distance."""
        return builder.distance("norm", "exp", self.bandwidth, 1.0, norm=float(self.norm))


@dataclass(frozen=True)
class Matern(Kernel):
    """The Matern kernel: with u = sqrt(2 nu) |x - y| / bandwidth, e^-u times 1, 1 + u or 1 + u + u² / 3.

    Attributes:
        bandwidth: As of `RBF`.
        nu: The smoothness: 0.5, 1.5 or 2.5; the three factors above.

    Raises:
        ValueError: `bandwidth` or `nu` is not such a number.

    Source:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 4.2.1.

    Example:
        >>> Matern(2.0, nu=2.5)
        Matern(bandwidth=2.0, nu=2.5)
    """

    bandwidth: Hyperparameter
    nu: float = 1.5

    def __post_init__(self) -> None:
        check_scale("Matern: bandwidth", self.bandwidth)
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"Matern: nu is {self.nu!r}, expected 0.5, 1.5 or 2.5")

    def node(self, builder: Builder) -> Node:
        """Return the function of a distance."""
        function = {0.5: "exp", 1.5: "matern3", 2.5: "matern5"}[self.nu]
        return builder.distance("norm", function, self.bandwidth, math.sqrt(2 * self.nu), norm=2.0)


@dataclass(frozen=True)
class RationalQuadratic(Kernel):
    """A mixture of Gaussian kernels of many bandwidths: k(x, y) = (1 + |x - y|² / (2 alpha bandwidth²))^-alpha.

    Attributes:
        bandwidth: As of `RBF`.
        alpha: A positive number, or a tensor of one, differentiable; the larger, the nearer to `RBF`.

    Raises:
        ValueError: `bandwidth` or `alpha` is not such a number.

    Example:
        >>> RationalQuadratic(2.0)
        RationalQuadratic(bandwidth=2.0, alpha=1.0)
    """

    bandwidth: Hyperparameter
    alpha: Hyperparameter = 1.0

    def __post_init__(self) -> None:
        check_scale("RationalQuadratic: bandwidth", self.bandwidth)
        check_scale("RationalQuadratic: alpha", self.alpha)

    def node(self, builder: Builder) -> Node:
        """Return the function of a squared distance."""
        return builder.distance("square", "rational", self.bandwidth, 0.5, shape=self.alpha)


@dataclass(frozen=True)
class InverseMultiquadric(Kernel):
    """The inverse multiquadric: k(x, y) = (1 + |x - y|² / bandwidth²)^-1/2.

    Attributes:
        bandwidth: As of `RBF`.

    Raises:
        ValueError: `bandwidth` is not such a number.

    Example:
        >>> InverseMultiquadric(2.0)
        InverseMultiquadric(bandwidth=2.0)
    """

    bandwidth: Hyperparameter

    def __post_init__(self) -> None:
        check_scale("InverseMultiquadric: bandwidth", self.bandwidth)

    def node(self, builder: Builder) -> Node:
        """Return the function of a squared distance."""
        return builder.distance("square", "inverse", self.bandwidth, 1.0)


@dataclass(frozen=True)
class Distance(Kernel):
    """The distance, negative so that near rows have large values: k(x, y) = -|x - y|_norm.

    With the Euclidean norm it is the kernel of the energy distance, and HSIC with it on both sides is the squared
    distance covariance (Sejdinovic, Sriperumbudur, Gretton, Fukumizu, 2013). `norm=1` sums absolute differences,
    `norm=math.inf` takes the largest (Chebyshev's), another number p is Minkowski's.

    Attributes:
        norm: A number of at least 1, or infinity.

    Raises:
        ValueError: `norm` is not such a number.

    Example:
        >>> Distance()
        Distance(norm=2.0)
    """

    norm: float = 2.0

    def __post_init__(self) -> None:
        if not self.norm >= 1:
            raise ValueError(f"Distance: norm is {self.norm!r}, expected a number of at least 1, or infinity")

    def node(self, builder: Builder) -> Node:
        """Return a distance."""
        return builder.leaf("norm", "identity", -1.0, norm=float(self.norm))


def check_scale(name: str, value: Hyperparameter) -> None:
    """Raise ValueError unless a hyperparameter is positive and of usual size; tensors where that is cheap."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point():
            raise ValueError(f"{name} is {value.dtype}, expected real numbers")
        # A look at numbers of a GPU would wait for it, and compiled code cannot look.
        if value.device.type != "cpu" or torch.compiler.is_compiling():
            return
        low, high = (value.min().item(), value.max().item()) if value.numel() else (1.0, 1.0)
    else:
        low = high = value
    if not (low >= _SMALLEST and high <= _LARGEST):
        raise ValueError(f"{name} is {value!r}, expected a number from 1e-12 to 1e12")
