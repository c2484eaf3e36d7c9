"""Class probabilities in proportion to a power of the distances to prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels import checks
from lamina_kernels.gram.forms import Impl
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.radial import check_scale
from lamina_kernels.gram.sums.api import Precision, logsumexp
from lamina_kernels.gram.terms import Builder, Hyperparameter, Node


class Harmonic(NamedTuple):
    """What `harmonic` returns, float32 (float64 for float64).

    Attributes:
        log_probability: [n], log p of each row's target; minus its mean is the harmonic loss.
        normalizer: [n], log sum_c |x_i - w_c|^-exponent: of any class, log p is -exponent log |x_i - w_c| - normalizer.
    """

    log_probability: Tensor
    normalizer: Tensor


@dataclass(frozen=True)
class LogDistance(Kernel):
    """k(x, y) = -exponent log |x - y|; that of equal rows is finite, and larger than any other."""

    exponent: Hyperparameter

    def node(self, builder: Builder) -> Node:
        """Return a function of a distance."""
        return builder.leaf("norm", "logarithm", -1.0, shape=self.exponent, norm=2.0)


def harmonic(
    x: Tensor,
    prototypes: Tensor,
    targets: Tensor,
    *,
    exponent: Hyperparameter,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Harmonic:
    """Return the log-probability of each row's class, p(c | x_i) in proportion to |x_i - w_c|^-exponent.

    A classifier, or an unembedding, whose weights are prototypes: the loss is least where each row lies on its own, so
    that weights settle at finite centers. Probabilities do not change where rows and prototypes are scaled together.
    The n x classes distances are never built. Differentiable twice in x, the prototypes and the exponent.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64.
        prototypes: [classes, d], the same dtype and device.
        targets: [n] integers, the class of each row.
        exponent: From 1e-12 to 1e12: a number or a tensor of one. The larger, the sharper; the root of d is usual.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        Log-probabilities, and what they were normalized with.

    Raises:
        ValueError: Shapes, dtypes, devices or hyperparameters that do not fit, or a target that is no class.
        NotImplementedError: As of `product`.

    Cost:
        n classes (2 d + root + log + exp) operations, three times that backward; memory O((n + classes) d).

    Source:
        Baek, Liu, Tyagi, Tegmark, Harmonic Loss Trains Interpretable AI Models, 2025.

    Example:
        >>> import torch
        >>> prototypes = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
        >>> found = harmonic(torch.tensor([[1.0, 0.0]]), prototypes, torch.tensor([0]), exponent=1.0)
        >>> round(found.log_probability.exp().item(), 4)      # distances 1 and 2
        0.6667
    """
    checks.matrices("harmonic", x=x, prototypes=prototypes)
    checks.same_width("harmonic", x=x, prototypes=prototypes)
    check_scale("harmonic: exponent", exponent)
    classes = len(prototypes)
    fits = targets.shape == x.shape[:1] and targets.device == x.device
    if targets.is_floating_point() or targets.dtype == torch.bool or not fits:
        found = f"{targets.dtype} {list(targets.shape)} on {targets.device}"
        raise ValueError(f"harmonic: targets are {found}, expected integers [{len(x)}] on {x.device}")
    # A look at numbers of a GPU would wait for it, and compiled code cannot look.
    looks = targets.device.type == "cpu" and len(x) > 0 and not torch.compiler.is_compiling()
    if looks and not (0 <= int(targets.min()) <= int(targets.max()) < classes):
        raise ValueError(f"harmonic: targets are from {int(targets.min())} to {int(targets.max())}, classes {classes}")
    normalizer = logsumexp(x, prototypes, kernel=LogDistance(exponent), precision=precision, impl=impl)
    dtype = normalizer.dtype
    own = torch.linalg.vector_norm(x.to(dtype) - prototypes[targets].to(dtype), dim=1)
    log = own.clamp(min=torch.finfo(dtype).tiny).log()
    return Harmonic(-exponent * log - normalizer, normalizer)
