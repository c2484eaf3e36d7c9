"""The face of encoders."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.refusals import refuse
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.encoding import op, reference
from lamina_kernels.sparse.encoding.problem import Problem, Rule, problem
from lamina_kernels.sparse.encoding.selection import Selection
from lamina_kernels.sparse.encoding.topk import TopK
from lamina_kernels.sparse.support import refusal_of

Impl = Literal["reference", "blocked", "triton"]
Statistic = Literal["counts", "sums", "positive"]
_STATISTICS = ("counts", "sums", "positive")


class UnitStatistics(NamedTuple):
    """What encoding told of each unit; those that were not asked for are None. They add up over batches.

    Rows with a pre-activation that is NaN or infinite count for nothing: the ids of their NaN were chosen by nobody.

    Attributes:
        rows: How many rows there were.
        counts: [M] int64, in how many rows the unit's value was not 0. Units with a count of 0 are dead.
        sums: [M] float64, the sum of its values.
        positive: [M] int64, in how many rows its pre-activation was positive, whether kept or not.
    """

    rows: int
    counts: Tensor | None
    sums: Tensor | None
    positive: Tensor | None


@dataclass(frozen=True, eq=False)
class Encoded:
    """What `encode` returns.

    Attributes:
        codes: The codes, values in the dtype of x.
        pre: The pre-activations of the same entries, in float32 (float64 for float64), differentiable.
        statistics: What was asked for.
        impl: The form that ran.
    """

    codes: Codes
    pre: Tensor
    statistics: UnitStatistics
    impl: str

    def l0(self) -> Tensor:
        """Return how many values of each row are not 0, [n] int64."""
        codes = self.codes
        active = (codes.values.detach() != 0).flatten().long()
        return torch.zeros(len(codes), dtype=torch.int64, device=active.device).index_add(0, codes.row_ids(), active)

    def l1(self) -> Tensor:
        """Return the sum of the sizes of the values of each row, [n], differentiable."""
        values = self.codes.values.to(self.pre.dtype).abs()
        if self.codes.indptr is None:
            return values.sum(1)
        return values.new_zeros(len(self.codes)).index_add(0, self.codes.row_ids(), values)


def encode(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    select: Selection = TopK(32),  # noqa: B008  # frozen
    statistics: Collection[Statistic] = (),
    impl: Impl | None = None,
) -> Encoded:
    """Keep some of the pre-activations x weightᵀ + bias of each row, without storing the others.

    Which are kept is decided on pre-activations in float32 (float64 for float64). On integers, and in float64, it does
    not depend on how the work is cut into tiles; else it may where two pre-activations differ by less than their
    rounding.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64.
        weight: [M, d], as in `torch.nn.Linear`; the same dtype and device.
        bias: [M], likewise, or None.
        select: `TopK`, `GroupTopK`, `MassShare`, `BatchTopK`, `JumpReLU`, `ReLU`, `Gated`, `KWinners` or `HardASH`.
        statistics: What to tell of each unit: `"counts"`, `"sums"`, `"positive"`.
        impl: `"reference"` holds all pre-activations and is differentiated by torch; `"blocked"` holds a tile;
            `"triton"` needs a GPU (or `TRITON_INTERPRET=1`), and has no float64 and no runs of fewer than 1,024 units.
            None takes `"triton"` on a GPU where it can, else `"blocked"`. Gradients of both come from what was kept
            alone, and are the same bits in every run.

    Returns:
        Codes with ascending ids, their pre-activations, statistics, and the form that ran. A row with a pre-activation
        that is NaN or infinite has only NaN values: as many as others, of the first units, where all rows have equally
        many; one, of unit 0, where they have not; and with `BatchTopK` so do all rows, k each.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit; a k above M; a statistic or a form that there is not.
        TypeError: `select` is no selection.
        NotImplementedError: `impl="triton"` for what it has not.
        RuntimeError: `impl="triton"` without a GPU, or without Triton.

    Cost:
        2 n M d operations and one or two looks at each of the n M products; memory of what is kept, of M, and a tile of
        256 x 4096. Gradients 2 nnz d operations each.

    Example:
        >>> import torch
        >>> x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> encoded = encode(x, weight, select=TopK(2))
        >>> encoded.codes.ids.tolist(), encoded.codes.values.tolist(), encoded.impl
        ([[1, 2]], [[2.0, 3.0]], 'blocked')
    """
    if not isinstance(select, Selection):
        raise TypeError(f"encode: select is {select!r}, expected a selection such as TopK(32)")
    unknown = set(statistics) - set(_STATISTICS)
    if isinstance(statistics, str) or unknown:
        raise ValueError(f"encode: statistics is {statistics!r}, expected some of {', '.join(map(repr, _STATISTICS))}")
    p = problem("encode", x, weight, bias)
    rule = select.rule(p)
    positive = "positive" in statistics
    form = _form(p, rule, impl)
    kept = (
        reference.keep(p, rule, positive=positive) if form == "reference" else op.keep(p, rule, form, positive=positive)
    )
    codes, pre = select.chosen(p, kept)
    values = codes.values.detach()
    told = UnitStatistics(
        p.n,
        _by_unit(codes, (values.abs() > 0).long()) if "counts" in statistics else None,
        _by_unit(codes, values.double().masked_fill(values.isnan(), 0)) if "sums" in statistics else None,
        kept.positive if positive else None,
    )
    return Encoded(codes.to(dtype=x.dtype), pre, told, form)


def _form(p: Problem, rule: Rule, impl: Impl | None) -> str:
    """Return the form that runs."""
    refused = refusal_of(p, rule)
    default = refused is None and p.x.is_cuda and dispatch.triton_obstacle(p.x) is None
    form = dispatch.choose(
        "encode", ("reference", "blocked", "triton"), impl, default="triton" if default else "blocked"
    )
    if form == "triton":
        dispatch.demand_triton("encode", p.x)
        if refused is not None:
            refuse("encode", refused)
    return form


def _by_unit(codes: Codes, numbers: Tensor) -> Tensor:
    """Return the sum of one number an entry over the entries of each unit."""
    sums = torch.zeros(codes.width, dtype=numbers.dtype, device=numbers.device)
    return sums.index_add(0, codes.ids.flatten(), numbers.flatten())
