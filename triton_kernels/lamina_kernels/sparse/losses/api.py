"""The faces of losses of reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from lamina_kernels import checks
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.decoding.api import Impl, check_dictionary, choose
from lamina_kernels.sparse.decoding.entries import entries
from lamina_kernels.sparse.losses import op, reference
from lamina_kernels.sparse.losses.blocked import Problem
from lamina_kernels.tiles.rows import accumulation_dtype

Reduction = Literal["mean", "sum"]


class Reconstruction(NamedTuple):
    """What `reconstruction` and `auxiliary_loss` return.

    Attributes:
        loss: The mean or sum of squared residuals, float32 (float64 for float64), differentiable; [P] with prefixes,
            [L] of several dictionaries, [L, P] with both.
        explained_variance: 1 - the sum of squared residuals / that of the target around its mean, likewise, but
            without gradients.
    """

    loss: torch.Tensor
    explained_variance: torch.Tensor


def reconstruction(
    codes: Codes,
    dictionary: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    prefixes: Sequence[int] | None = None,
    reduction: Reduction = "mean",
    impl: Impl | None = None,
) -> Reconstruction:
    """Compare rows with what their codes decode to: |target_i - bias - sum_e value_e dictionary[id_e]|².

    What is decoded is compared a block of rows at a time, and made again for gradients. These are by the values of the
    codes, the dictionary, the target and the bias, as often as asked.

    Args:
        codes: n rows of codes of width M.
        dictionary: [M, d], the atoms as rows, in the dtype and on the device of the values; or [L, M, d], dictionaries
            for L outputs of the same codes, as of `decode`.
        target: [n, d], likewise; or [n, L, d].
        bias: [d] or [L, d].
        prefixes: Numbers of units, ascending, the last of them M: a loss for each prefix of the dictionary, to which
            the entries of its units contribute, as for Matryoshka autoencoders. None for the whole alone.
        reduction: `"mean"` over rows and columns, or `"sum"`.
        impl: As of `decode`.

    Returns:
        The loss and the explained variance, numbers, or [P] with prefixes; of L dictionaries those of each, whose sum
        is a crosscoder's. Residuals are float32 (float64 for float64) and summed in float64.

    Raises:
        ValueError: As of `decode`; prefixes that do not ascend from 1 to M.
        RuntimeError: As of `decode`.

    Cost:
        As of `decode`, and P n d operations; backward twice that, and `decode` anew. Memory: one block of residuals,
        of 16 MB on a CPU, or P / k of the dictionary where that is more; for gradients of gradients (`create_graph`)
        P n d residuals and what they are decoded from.

    Source:
        Matryoshka sparse autoencoders: Bussmann, Nabeshima, Karvonen and Nanda, 2025.

    Example:
        >>> import torch
        >>> codes = Codes(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 2]]), width=3)
        >>> target = torch.tensor([[2.0, 1.0, 1.0]])
        >>> found = reconstruction(codes, torch.eye(3), target, prefixes=(1, 3), reduction="sum")
        >>> found.loss.tolist()
        [2.0, 1.0]
    """
    return _compared("reconstruction", codes, dictionary, target, bias, None, prefixes, reduction, impl)


def auxiliary_loss(
    dead: Codes,
    codes: Codes,
    dictionary: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    impl: Impl | None = None,
) -> Reconstruction:
    """Compare what `codes` leave unexplained with what dead units make of it: |target - decode(codes) - decode(dead)|².

    The gradient revives the dead: the decoding of `codes`, and the bias, are constants.

    Args:
        dead: n rows of codes of the dead units, such as the k_aux largest of each row; their width is M as well.
        codes: n rows of codes of width M.
        dictionary: As of `reconstruction`.
        target: As of `reconstruction`.
        bias: As of `reconstruction`.
        reduction: As of `reconstruction`.
        impl: As of `decode`.

    Returns:
        The loss, and the share of the unexplained variance that the dead units explain.

    Raises:
        ValueError: As of `reconstruction`; other than n rows of dead codes.

    Cost:
        As of `reconstruction`, and one more `decode`, forward and backward.

    Source:
        Scaling and evaluating sparse autoencoders: Gao et al., 2024, section A.2.

    Example:
        >>> import torch
        >>> codes = Codes(torch.tensor([[1.0]]), torch.tensor([[0]]), width=2)
        >>> dead = Codes(torch.tensor([[1.0]]), torch.tensor([[1]]), width=2)
        >>> auxiliary_loss(dead, codes, torch.eye(2), torch.tensor([[1.0, 3.0]]), reduction="sum").loss.item()
        4.0
    """
    if len(dead) != len(codes):
        raise ValueError(f"auxiliary_loss: dead has {len(dead)} rows and codes {len(codes)}, they must agree")
    check_dictionary("auxiliary_loss: codes", codes, dictionary)
    if bias is not None:
        bias = bias.detach()
    return _compared("auxiliary_loss", dead, dictionary, target, bias, codes, None, reduction, impl)


def _compared(
    name: str,
    codes: Codes,
    dictionary: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None,
    given: Codes | None,
    prefixes: Sequence[int] | None,
    reduction: Reduction,
    impl: Impl | None,
) -> Reconstruction:
    check_dictionary(name, codes, dictionary)
    several = dictionary.ndim == 3
    dictionaries = dictionary if several else dictionary[None]
    expected = [len(codes), *dictionary.shape[:-2], dictionary.shape[-1]]
    for what, tensor, shape in (("target", target, expected), ("bias", bias, expected[1:])):
        if tensor is None:
            continue
        if list(tensor.shape) != shape:
            raise ValueError(f"{name}: {what} has shape {list(tensor.shape)}, expected {shape}")
        checks.matrices(name, dictionary=dictionaries[0], **{what: tensor[:1].reshape(-1, 1)})
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{name}: reduction is {reduction!r}, expected 'mean' or 'sum'")
    units = [codes.width] if prefixes is None else list(prefixes)
    if not units or units[0] < 1 or units[-1] != codes.width or sorted(set(units)) != units:
        raise ValueError(f"{name}: prefixes are {units}, expected numbers that ascend from 1 to {codes.width}")
    form = choose(name, dictionary, impl)
    e, known = entries(codes), None if given is None else entries(given)
    targets, biases = (target, bias) if several else (target[:, None], None if bias is None else bias[None])
    found = []
    # Unbound, so that each gradient is written once.
    for place, (atoms, rows) in enumerate(zip(dictionaries.unbind(), targets.unbind(1), strict=True)):
        p = Problem(e, atoms, rows, None if biases is None else biases[place], known, units)
        squares, variation = reference.squares(*p) if form == "reference" else op.squares(p, form)
        found.append((squares / rows.numel() if reduction == "mean" else squares, 1 - squares.detach() / variation))
    told = [torch.stack(each).to(accumulation_dtype(target.dtype)) for each in zip(*found, strict=True)]
    told = [each if several else each[0] for each in told]
    return Reconstruction(*(told if prefixes is not None else (each[..., 0] for each in told)))
