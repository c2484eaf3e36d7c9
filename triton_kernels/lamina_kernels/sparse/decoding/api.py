"""The face of decoding."""

from __future__ import annotations

from typing import Literal

import torch

from lamina_kernels import dispatch
from lamina_kernels.operators import followed
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.decoding import blocked, op, reference
from lamina_kernels.sparse.decoding.entries import entries

FORMS = ("reference", "blocked", "triton")
Impl = Literal["reference", "blocked", "triton"]


def decode(
    codes: Codes, dictionary: torch.Tensor, bias: torch.Tensor | None = None, *, impl: Impl | None = None
) -> torch.Tensor:
    """Sum the atoms that each row's codes name: out_i = bias + sum_e value_e dictionary[id_e].

    Only the atoms that are named are read. Differentiable as often as asked in the values of the codes, the dictionary
    and the bias. The same codes give the same bits, forward and backward: the gradient of the dictionary sums the rows
    of each unit in their order.

    Args:
        codes: n rows of codes of width M. Ids may stand in any order; entries of one unit in one row add up.
        dictionary: [M, d], the atoms as rows, in the dtype and on the device of the values; or [L, M, d], dictionaries
            for L outputs of the same codes, as crosscoders and cross-layer transcoders have.
        bias: [d] or [L, d].
        impl: `"reference"` gathers all atoms in float64 and is differentiated by torch; `"blocked"` is plain torch;
            `"triton"` needs a GPU (or `TRITON_INTERPRET=1`) and takes no float64. None takes `"triton"` on a GPU where
            it can, else `"blocked"`. The logger `lamina_kernels` says which ran.

    Returns:
        [n, d] or [n, L, d], in the dtype of the dictionary, summed in float32 (float64 for float64). A row without
        entries is the bias. NaN and infinity break the rows that name them, and no other.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit; ids that are out of range (on a GPU, where looking waits,
            such an entry makes its row NaN).
        RuntimeError: `impl="triton"` without a GPU, or without Triton.

    Cost:
        2 L nnz d operations on half as many numbers; backward twice that, a sort of the ids, and L M d numbers written.
        Memory n L d; no matrix [n, M].

    Example:
        >>> import torch
        >>> codes = Codes(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([[0, 2], [1, 1]]), width=3)
        >>> decode(codes, torch.eye(3), bias=torch.ones(3)).tolist()
        [[3.0, 1.0, 2.0], [1.0, 3.0, 1.0]]
    """
    check_dictionary("decode", codes, dictionary)
    if bias is not None:
        expected = dictionary.shape[:-2] + dictionary.shape[-1:]
        if bias.shape != expected or bias.dtype != dictionary.dtype or bias.device != dictionary.device:
            raise ValueError(
                f"decode: bias is {bias.dtype} {list(bias.shape)} on {bias.device}, expected "
                f"{dictionary.dtype} {list(expected)} on {dictionary.device}"
            )
    form = choose("decode", dictionary, impl)
    several = dictionary.ndim == 3
    if form == "blocked" and not several and not followed(codes.values, dictionary, bias):
        # The way to an operator takes a thirtieth of the time of 4,096 rows of 32 atoms.
        return blocked.sums(*entries(codes), dictionary, bias)
    dictionaries = dictionary if several else dictionary[None]
    bias = bias if several or bias is None else bias[None]
    if form == "reference":
        out = reference.decode(entries(codes), dictionaries, bias).to(dictionary.dtype)
    else:
        out = op.decode(entries(codes), dictionaries, bias, form)
    return out if several else out[:, 0]


def check_dictionary(name: str, codes: Codes, dictionary: torch.Tensor) -> None:
    """Raise ValueError unless codes and a dictionary [M, d] or [L, M, d] fit."""
    if not isinstance(codes, Codes):
        raise TypeError(f"{name}: codes is a {type(codes).__name__}, expected Codes, as encode(…).codes")
    shape, values = dictionary.shape, codes.values
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] == 0):
        raise ValueError(f"{name}: dictionary has shape {list(shape)}, expected [M, d] or [L, M, d]")
    if dictionary.dtype != values.dtype or dictionary.device != values.device:
        raise ValueError(
            f"{name}: dictionary is {dictionary.dtype} on {dictionary.device}, but values is {values.dtype} on "
            f"{values.device}"
        )
    if shape[-2] != codes.width:
        raise ValueError(f"{name}: codes have width {codes.width} and dictionary {shape[-2]} atoms")


def choose(name: str, dictionary: torch.Tensor, impl: str | None) -> str:
    """Return the form that runs, and log its name."""
    default = "triton" if dictionary.is_cuda and dispatch.triton_obstacle(dictionary) is None else "blocked"
    form = dispatch.choose(name, FORMS, impl, default=default)
    if form == "triton":
        dispatch.demand_triton(name, dictionary)
    dispatch.log(name, form)
    return form
