"""Contrastive losses over all pairs of two sets of embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lamina_kernels import checks
from lamina_kernels.gram.forms import Impl, choose
from lamina_kernels.gram.kernels import Kernel, levelled, unit
from lamina_kernels.gram.pairs import build, numbered
from lamina_kernels.gram.radial import check_scale
from lamina_kernels.gram.sums import op, op_sides, reference
from lamina_kernels.gram.sums.api import Precision
from lamina_kernels.gram.terms import Builder, Hyperparameter, Node
from lamina_kernels.tiles.rows import accumulation_dtype


@dataclass(frozen=True)
class Softplus(Kernel):
    """What a pair of rows that do not belong together adds: log(1 + exp(scale cos(x, y) + bias))."""

    scale: Hyperparameter
    bias: Hyperparameter

    def node(self, builder: Builder) -> Node:
        """Return a function of the cosine."""
        return builder.leaf("cosine", "softplus", self.scale, shape=self.bias, change=levelled)


@dataclass(frozen=True)
class Logit(Kernel):
    """scale cos(x, y)."""

    scale: Hyperparameter

    def node(self, builder: Builder) -> Node:
        """Return the cosine times a number."""
        return builder.leaf("cosine", "identity", self.scale, change=levelled)


def pairwise_loss(
    x: Tensor,
    y: Tensor,
    *,
    kind: Literal["sigmoid", "infonce"] = "sigmoid",
    temperature: Hyperparameter,
    bias: Hyperparameter = 0.0,
    labels: tuple[Tensor, Tensor] | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Tensor:
    """Return a contrastive loss of two sets of embeddings, whose matrix of logits is never built.

    The logits are s_ij = cos(x_i, y_j) / temperature + bias. Rows i and j belong together where i = j, or where their
    labels agree; P_i are the j that belong to i.

    **sigmoid**: every pair is a question of its own, - (1 / n) sum_ij log sigmoid(±s_ij), + where they belong together.
    What a pair's gradient by s_ij is depends on no other pair.

    **infonce**: row i picks among all j, - (1 / |P_i|) sum_(j in P_i) log softmax_j(s_ij); the mean over the rows that
    have a P_i, and that over columns likewise, averaged. The bias cancels.

    Differentiable twice in x, y, temperature and bias.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64; need not be normalized.
        y: [m, d], the same dtype and device; n rows without labels.
        kind: See above.
        temperature: From 1e-12 to 1e12: a number or a tensor of one.
        bias: Likewise, any number.
        labels: Of x and of y, [n] and [m] integers.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        A number, float32 (float64 for float64).

    Raises:
        ValueError: Shapes, dtypes, devices, labels or hyperparameters that do not fit, an empty set, or (infonce) no
            two rows that belong together.
        NotImplementedError: As of `product`.

    Cost:
        n m (2 d + 2 exp) operations; backward three times that of sigmoid, six times that of infonce. Memory
        O((n + m) d). Rows in half precision are multiplied as they came, and scaled to unit vectors behind the product.

    Source:
        Zhai, Mustafa, Kolesnikov, Beyer, Sigmoid Loss for Language Image Pre-Training, 2023; van den Oord, Li, Vinyals,
        Representation Learning with Contrastive Predictive Coding, 2018; with labels, Khosla et al., Supervised
        Contrastive Learning, 2020.

    Example:
        >>> import torch
        >>> x = torch.eye(4)
        >>> right, wrong = (pairwise_loss(x, y, temperature=0.1, bias=-5.0) for y in (x, x.roll(1, 0)))
        >>> round(right.item(), 3), round(wrong.item(), 3)
        (0.027, 10.027)
    """
    checks.matrices("pairwise_loss", x=x, y=y)
    checks.same_width("pairwise_loss", x=x, y=y)
    if kind not in ("sigmoid", "infonce"):
        raise ValueError(f"pairwise_loss: kind is {kind!r}, expected 'sigmoid' or 'infonce'")
    if not (len(x) and len(y)):
        raise ValueError(f"pairwise_loss: x has {len(x)} rows and y has {len(y)}, expected at least one")
    check_scale("pairwise_loss: temperature", temperature)
    for name, value in (("temperature", temperature), ("bias", bias)):
        if isinstance(value, Tensor) and (value.numel() != 1 or value.device != x.device):
            found = f"has shape {list(value.shape)} on {value.device}"
            raise ValueError(f"pairwise_loss: {name} {found}, expected one number on {x.device}")
    kernel = Softplus(1 / temperature, bias) if kind == "sigmoid" else Logit(1 / temperature)
    half = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(x.dtype)
    # Gradients of a pair that belongs together and of all pairs cancel: they meet before they are rounded.
    x, y = (rows.to(accumulation_dtype(rows.dtype)) for rows in (x, y))
    p = build("pairwise_loss", x, y, kernel, None, precision)
    p = p if half is None else replace(p, precision=half)
    form = choose("pairwise_loss", p, impl)
    unit_x, unit_y = unit(x), unit(y)
    of_x, of_y, count_x, count_y = _together(unit_x, unit_y, labels)
    if kind == "sigmoid":
        ones = torch.ones(p.m, 1, dtype=p.dtype, device=x.device)
        apart = (reference.sums(p, ones) if form == "reference" else op.sums(p, ones, form))[:, 0]
        return (apart - (unit_x * of_x).sum(1) / temperature - count_x * bias).double().mean().to(p.dtype)
    normalizers, sides = reference.sides(p) if form == "reference" else op_sides.sides(p, form), []
    both = zip(normalizers, (unit_x, unit_y), (of_x, of_y), (count_x, count_y), strict=True)
    for normalizer, units, sums, counts in both:
        has = counts > 0
        # Compiled code cannot look: there the mean over no rows is NaN.
        if labels is not None and not torch.compiler.is_compiling() and not has.any():
            raise ValueError("pairwise_loss: no two rows belong together")
        picked = (units * sums).sum(1) / temperature / counts.clamp(min=1)
        sides.append(torch.where(has, normalizer - picked, 0).sum(dtype=torch.float64) / has.sum())
    return ((sides[0] + sides[1]) / 2).to(p.dtype)


def _together(x: Tensor, y: Tensor, labels: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each row of x the sum of the rows of y that belong to it, for each of y that of x, and how many."""
    if labels is None:
        checks.same_rows("pairwise_loss", x=x, y=y)
        ones = x.new_ones(len(x))
        return y, x, ones, ones
    for name, ids, rows in (("x", labels[0], x), ("y", labels[1], y)):
        if (
            ids.is_floating_point()
            or ids.dtype == torch.bool
            or ids.shape != rows.shape[:1]
            or ids.device != rows.device
        ):
            found = f"{ids.dtype} {list(ids.shape)} on {ids.device}"
            raise ValueError(f"pairwise_loss: labels of {name} are {found}, expected integers [{len(rows)}]")
    ids = numbered(torch.cat([each.long() for each in labels]))
    parts = ids[: len(x)], ids[len(x) :]
    both = []
    for rows, own, others in ((y, parts[1], parts[0]), (x, parts[0], parts[1])):
        ones = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        both.append(rows.new_zeros(len(ids), ones.shape[1]).index_add(0, own, ones)[others])
    return both[0][:, :-1], both[1][:, :-1], both[0][:, -1], both[1][:, -1]
