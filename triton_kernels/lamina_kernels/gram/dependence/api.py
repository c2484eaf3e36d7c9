"""The faces of measures of dependence: HSIC, CKA, distance covariance and correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.dispatch import compiles_with_triton_before
from lamina_kernels.gram.dependence import op, reference
from lamina_kernels.gram.dependence.layers import Layers, centered, fits, gather
from lamina_kernels.gram.forms import Impl, choose, is_written
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.radial import Distance
from lamina_kernels.gram.sums.api import Precision
from lamina_kernels.gram.support import LARGE_GROUPS, OLD_TRITON
from lamina_kernels.refusals import Refusal, refuse


class CkaMatrix(NamedTuple):
    """What `cka_matrix` returns, float64.

    Attributes:
        value: [L, M], CKA of each layer with each other one; NaN where one of them has no HSIC with itself above 0.
        hsic: [L, M], HSIC of the two.
        own: [L], HSIC of each layer with itself.
        own_others: [M], that of each of the others; `own` if there are none.
    """

    value: Tensor
    hsic: Tensor
    own: Tensor
    own_others: Tensor


def hsic(
    x: Tensor,
    y: Tensor,
    *,
    kernel_x: Kernel,
    kernel_y: Kernel,
    groups: Tensor | None = None,
    biased: bool = False,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Tensor:
    """Estimate the Hilbert-Schmidt independence criterion of paired rows.

    With K_ij = kernel_x(x_i, x_j) and L_ij = kernel_y(y_i, y_j) it is E[K_12 L_12] - 2 E[K_12 L_13] + E[K_12] E[L_34]
    over rows 1 to 4 drawn independently: 0 if x and y are independent, and with characteristic kernels (RBF, Laplace,
    Matern, Distance) only then. Differentiable twice in x, y and the kernels' hyperparameters.

    **Unbiased** (the default): the average over four rows of four distinct groups; it may be below 0. **Biased**: over
    all quadruples of rows, tr(K H L H) / n² with H = I - 1/n; too large by about E[K_11 L_11] / n.

    Args:
        x: [n, dx], float16, bfloat16, float32 or float64; any strides.
        y: [n, dy], paired with x row by row; the same dtype and device.
        kernel_x: A kernel, such as `RBF(1.0)` or `Linear() + RBF(1.0) * Cosine()`.
        kernel_y: Likewise.
        groups: [n] integers: rows of one group are not independent of each other (the tokens of a document). None: each
            row is a group.
        biased: See above; without groups.
        precision: As of `product`.
        impl: As of `product`. On a GPU `"blocked"` runs too where two dot products take fewer operations, for groups of
            more than 64 rows, and for the gradients of a `Pointwise` kernel and of those beside it.

    Returns:
        A number, float64. Compiled code does not know how many groups there are: it returns NaN for fewer than four.

    Raises:
        ValueError: Shapes, dtypes, devices, groups or hyperparameters that do not fit; fewer than four groups (rows,
            without groups) for the unbiased estimate, no row for the biased one, or groups for that.
        TypeError: A kernel that is none.
        NotImplementedError: `impl="triton"` for groups of more than 64 rows, or gradients of a third order, but from
            `"reference"`.

    Cost:
        n² (dx + dy) operations, and n² / 2 values of each kernel. Backward as much, and 2 n² d operations for each side
        that has gradients; in `"triton"` twice as much, and 4 n² d operations and n² values for such a side. Two dot
        products take 2 n dx dy operations where that is less. Memory O(n (dx + dy)), and two tiles of 512 x 512, or of
        the largest group; of `"triton"` as of `cka_matrix`.

    Source:
        Gretton, Bousquet, Smola, Schölkopf, Measuring Statistical Dependence with Hilbert-Schmidt Norms, 2005; Song et
        al., Feature Selection via Dependence Maximization, 2012. The average over distinct groups is ours.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import RBF
        >>> x = torch.arange(40.0)[:, None] % 7
        >>> related = hsic(x, (x - 3) ** 2, kernel_x=RBF(1.0), kernel_y=RBF(2.0))
        >>> unrelated = hsic(x, torch.arange(40.0)[:, None] % 5, kernel_x=RBF(1.0), kernel_y=RBF(2.0))
        >>> related.item() > 0.05, abs(unrelated.item()) < 0.01
        (True, True)
    """
    kernels = [kernel_x, kernel_y]
    return _of_two("hsic", x, y, kernels, groups=groups, biased=biased, precision=precision, impl=impl)[0, 1]


def cka_matrix(
    layers: Sequence[Tensor],
    others: Sequence[Tensor] | None = None,
    *,
    kernel: Kernel | Sequence[Kernel],
    groups: Tensor | None = None,
    biased: bool = False,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> CkaMatrix:
    """Compare representations of the same rows, each with each, by centered kernel alignment, in one pass.

    CKA(x, y) = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)): 1 where the kernels agree up to scale, 0 where the
    representations are independent. The values are those of pairwise calls, but a tile of each kernel is computed once
    and not once a pair: all of HSIC's sums over pairs of rows are products of the tiles with each other.

    Args:
        layers: L representations, [n, d] each, of any widths; dtypes as of `hsic`.
        others: M further ones of the same rows, which the first are compared with; None compares each of the first with
            each.
        kernel: One for all, or a sequence of one a representation, those of `others` behind.
        groups: As of `hsic`.
        biased: As of `hsic`.
        precision: As of `product`.
        impl: As of `hsic`.

    Returns:
        The values, and the HSIC that they are made of. Unbiased values may be below 0, and above 1.

    Raises:
        ValueError: As of `hsic`; no representation, or another number of kernels.
        TypeError: As of `hsic`.
        NotImplementedError: As of `hsic`.

    Cost:
        n² / 2 values of each kernel, n² times the sum of widths, and n² L M operations; twice that backward. Dot
        products without groups take 2 n d² operations for each two instead, where that is less. Memory: the rows, and
        2^22 numbers of tiles (tiles of the largest group, if that is more), or the products of features; of `"triton"`
        the rows once more, 21 sums of each row and layer in float64, and of 210 programs a tile of 64 x 64 of each
        layer, with groups four: 55 MB for 32 layers in bfloat16. Its backward pass, as of `hsic` and n² L M operations
        more: the rows twice, in float32 once, and of 264 programs a tile of each layer and one more: 71 MB.

    Source:
        Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited, 2019.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import Linear
        >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> cka_matrix([x, 2 * x.flip(1) + 7], kernel=Linear()).value.round(decimals=5).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    if isinstance(layers, Tensor):
        raise TypeError("cka_matrix: layers is a Tensor, expected several: [x, y]")
    behind = [] if others is None else list(others)
    if not layers or (others is not None and not behind):
        raise ValueError("cka_matrix: no representation is given, expected at least one")
    rows: Mapping[str, Tensor] = {f"layers[{i}]": each for i, each in enumerate(layers)}
    rows |= {f"others[{i}]": each for i, each in enumerate(behind)}
    kernels = [kernel] * len(rows) if isinstance(kernel, Kernel) else list(kernel)
    if len(kernels) != len(rows):
        raise ValueError(f"cka_matrix: {len(kernels)} kernels are given for {len(rows)} representations")
    made = gather(
        "cka_matrix", rows, kernels, left=len(layers), own=True, groups=groups, biased=biased, precision=precision
    )
    whole, count = _hsic("cka_matrix", made, impl), len(layers)
    own, own_others = whole.diagonal()[:count], whole.diagonal()[count:] if behind else whole.diagonal()
    crossed = whole[:count, count:] if behind else whole
    return CkaMatrix(_ratio(crossed, own, own_others), crossed, own, own_others)


def distance_covariance(
    x: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    biased: bool = False,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Tensor:
    """Estimate the squared distance covariance of paired rows: `hsic` with the kernel -|a - b| on both sides.

    It is 0 if and only if x and y are independent, and has no bandwidth to choose. Differentiable in x and y.

    Args:
        x: As of `hsic`.
        y: As of `hsic`.
        groups: As of `hsic`.
        biased: False for the average over four rows of distinct groups, which is the U-statistic of Székely and Rizzo
            where every row is a group; True for their V-statistic.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        A number, float64, in the units of x times those of y.

    Raises:
        ValueError: As of `hsic`.
        NotImplementedError: As of `hsic`.

    Cost:
        As of `hsic`, with a root for each value.

    Source:
        Székely, Rizzo, The distance correlation t-test of independence in high dimension, 2013; Sejdinovic,
        Sriperumbudur, Gretton, Fukumizu, Equivalence of distance-based and RKHS-based statistics, 2013.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
        >>> round(distance_covariance(x, x).item(), 6)
        0.666667
    """
    kernels = [Distance(), Distance()]
    return _of_two("distance_covariance", x, y, kernels, groups=groups, biased=biased, precision=precision, impl=impl)[
        0, 1
    ]


def distance_correlation(
    x: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    biased: bool = False,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Tensor:
    """Estimate the squared distance correlation of paired rows: `cka_matrix` with the kernel -|a - b|.

    It is V(x, y) / sqrt(V(x, x) V(y, y)) with the squared distance covariance V: 0 if and only if x and y are
    independent, 1 if their distances agree up to scale. Differentiable in x and y.

    Args:
        x: As of `hsic`.
        y: As of `hsic`.
        groups: As of `hsic`.
        biased: As of `distance_covariance`; False is the bias-corrected distance correlation, which may be below 0.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        A number, float64; NaN if all rows of x, or of y, are alike.

    Raises:
        ValueError: As of `hsic`.
        NotImplementedError: As of `hsic`.

    Cost:
        As of `distance_covariance`.

    Source:
        As of `distance_covariance`.

    Example:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 51)[:, None]      # its square does not correlate with it, and depends on it
        >>> distance_correlation(x, x**2).item() > 0.1, round(distance_correlation(x, 1 - 3 * x).item(), 5)
        (True, 1.0)
    """
    kernels = [Distance(), Distance()]
    whole = _of_two(
        "distance_correlation", x, y, kernels, own=True, groups=groups, biased=biased, precision=precision, impl=impl
    )
    return _ratio(whole, whole.diagonal(), whole.diagonal())[0, 1]


def _of_two(
    name: str,
    x: Tensor,
    y: Tensor,
    kernels: Sequence[Kernel],
    *,
    own: bool = False,
    groups: Tensor | None,
    biased: bool,
    precision: Precision | None,
    impl: Impl | None,
) -> Tensor:
    """Return HSIC of x with y, [2, 2]; with `own`, also of each with itself."""
    layers = gather(
        name,
        {"x": x, "y": y},
        kernels,
        left=2 if own else 1,
        own=own,
        groups=groups,
        biased=biased,
        precision=precision,
    )
    return _hsic(name, layers, impl)


def _hsic(name: str, layers: Layers, impl: Impl | None) -> Tensor:
    """Return HSIC of any two representations, by the form that is asked for or fits."""
    refusal = _refusal(layers)
    if impl == "triton":
        if refusal is not None:
            refuse(name, refusal)
        # The kernel makes values where products of features would take fewer operations.
        layers = replace(layers, features=False, pairs=tuple(map(centered, layers.pairs)))
    unwritten = [p for p in layers.pairs if not is_written(p)]
    form = choose(name, [*unwritten, *layers.pairs][0], impl, triton=not layers.features and refusal is None)
    if form == "reference":
        return reference.hsic(layers)
    if form == "triton" and impl is None and layers.sizes is not None and torch.compiler.is_compiling():
        form = "either"
    return op.hsic(layers, form)


def _refusal(layers: Layers) -> Refusal | None:
    """Return why the Triton kernel does not take these layers."""
    if not fits(layers):
        return LARGE_GROUPS
    return OLD_TRITON if compiles_with_triton_before(layers.pairs[0].x, 3, 7) else None


def _ratio(crossed: Tensor, own: Tensor, own_others: Tensor) -> Tensor:
    """Return each over the root of what the two have with themselves; NaN where that is not above 0."""
    left, right = (each.where(each > 0, float("nan")).sqrt() for each in (own, own_others))
    return crossed / (left[:, None] * right)
