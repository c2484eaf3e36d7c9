"""What every selection has: which pre-activations it keeps, and what values their codes get."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels.checks import whole
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.encoding.problem import Kept, Problem, Rule


class Chosen(NamedTuple):
    """The codes of a selection.

    Attributes:
        codes: Their values are in the dtype of pre-activations.
        pre: The pre-activations of the same entries.
    """

    codes: Codes
    pre: Tensor


class Selection:
    """Which pre-activations of an encoder are kept, and what their codes are; a small frozen object."""

    def rule(self, p: Problem) -> Rule:
        """Return what is to be kept.

        Raises:
            ValueError: The selection does not fit the problem.
        """
        raise NotImplementedError

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return the values of what was kept, differentiable."""
        raise NotImplementedError

    def chosen(self, p: Problem, kept: Kept) -> Chosen:
        """Return the codes of what was kept."""
        return Chosen(Codes(self.values(p, kept), kept.ids, p.m, kept.indptr, check=False), kept.pre)


def demand_whole(name: str, argument: str, number: Any) -> int:
    """Return a whole number, NumPy's and torch's too, as an int; ValueError unless it is one and at least 1."""
    found = whole(number)
    if found is None or found < 1:
        raise ValueError(f"{name}: {argument} is {number!r}, expected a whole number of at least 1")
    return found


def keep_whole(selection: Selection, *names: str) -> None:
    """Keep what fields of a selection were given as plain ints; ValueError unless they are whole and at least 1."""
    for name in names:
        found = demand_whole(type(selection).__name__, name, getattr(selection, name))
        object.__setattr__(selection, name, found)


def demand_units(name: str, k: int, m: int) -> None:
    """Raise ValueError if more units are to be kept than there are."""
    if k > m:
        raise ValueError(f"{name}: k is {k}, but there are {m} units to choose from")


def per_unit(name: str, argument: str, tensor: Tensor, p: Problem, *, scalar: bool = False) -> Tensor:
    """Return numbers of all units, in the dtype of pre-activations.

    Raises:
        ValueError: They are not real numbers [M] (or one, if that may be) on the device of x.
    """
    shapes = ((p.m,), ()) if scalar else ((p.m,),)
    if tuple(tensor.shape) not in shapes or not tensor.is_floating_point() or tensor.device != p.x.device:
        found = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        expected = f"[{p.m}]" + (" or one number" if scalar else "")
        raise ValueError(f"{name}: {argument} is {found}, expected real numbers {expected} on {p.x.device}")
    return tensor.to(p.dtype).expand(p.m)


def rectified(pre: Tensor, relu: bool) -> Tensor:
    """Return values after a ReLU, if there is one; NaN stays."""
    return pre.relu() if relu else pre


def of_entries(numbers: Tensor, ids: Tensor) -> Tensor:
    """Return the number of each entry's unit, differentiable."""
    return numbers.index_select(0, ids.flatten()).view(ids.shape)


def csr(kept: Kept, stays: Tensor) -> Kept:
    """Return the entries that stay of [n, k], with an indptr."""
    counts = stays.sum(1)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return kept._replace(pre=kept.pre[stays], ids=kept.ids[stays], indptr=indptr)
