"""The gradient noise scale: how much gradients of small batches scatter, against what they have in common.

With G the gradient of the mean loss over all data and S the covariance of the gradient of one example, the squared
norm of a gradient over B examples is |G|^2 + tr(S)/B on average. Two batch sizes tell the two apart (McCandlish et
al. 2018, "An Empirical Model of Large-Batch Training", appendix A.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel

from lamina.errors import RecordingError
from lamina.recording.numbers.found import Found
from lamina.recording.numbers.squares import plain, sums_of_squares
from lamina.recording.ranks import own_rank
from lamina.recording.state import random_states

if TYPE_CHECKING:
    from torch import nn

GRADIENT_SQUARE = "noise_scale/gradient_square"
COVARIANCE_TRACE = "noise_scale/covariance_trace"


class NoiseScale(NamedTuple):
    """What the gradient noise scale is made of; each is an unbiased estimate, and may be negative.

    Attributes:
        gradient_square: |G|^2, the squared norm of the gradient over all data.
        covariance_trace: tr(S), the trace of the covariance of the gradient of one example.
    """

    gradient_square: Any
    covariance_trace: Any


def two_batch_sizes(small_square: Any, big_square: Any, *, small: float, big: float) -> NoiseScale:
    """Estimate what the gradient noise scale is made of from squared gradient norms of two batch sizes.

    |G|^2 = (big big_square - small small_square) / (big - small) and tr(S) = (small_square - big_square) / (1/small -
    1/big). One pair is mostly noise. The noise scale tr(S)/|G|^2, the batch size beyond which larger ones stop to
    pay, is the ratio of two means over steps, and not the mean of ratios, which is biased and may divide by zero.

    Args:
        small_square: The squared norm of the gradient of the mean loss over `small` examples, or its mean over
            several such batches. A number, array or tensor.
        big_square: The same over `big` examples; the small batches may be parts of the big one.
        small: Examples (or tokens) of a small batch.
        big: Examples of the big one.

    Returns:
        The two estimates.

    Raises:
        RecordingError: If `big` is not larger than `small`, or `small` not above 0.

    Example:
        >>> from lamina.recording import two_batch_sizes
        >>> two_batch_sizes(1 + 12 / 4, 1 + 12 / 16, small=4, big=16)  # |G|^2 = 1, tr(S) = 12: the noise scale is 12
        NoiseScale(gradient_square=1.0, covariance_trace=12.0)
    """
    if not 0 < small < big:
        raise RecordingError(
            f"two_batch_sizes: small={small!r} and big={big!r}", hint="0 < small < big are examples of two batches"
        )
    return NoiseScale(
        (big * big_square - small * small_square) / (big - small),
        (small_square - big_square) / (1 / small - 1 / big),
    )


class MicroBatches:
    """Compares the gradients of a step's backward passes, on every rank, with the one that comes of them all.

    The gradient that they leave is taken to be the mean of theirs: the usual loss / k with k micro-batches of one
    size, averaged over ranks by DistributedDataParallel. Each rank compares its own passes with it and tells no other.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        """Make it.

        Args:
            model: The model, wrapped as it is trained.
            size: Examples that one pass averages over.

        Raises:
            RecordingError: If its gradients are sharded, or several ranks train and the model does not tell how.
        """
        self._parameters = list(model.parameters())
        self._size = size
        if any(hasattr(one, "to_local") for one in self._parameters):
            raise RecordingError("noise_scale: parameters that are sharded over ranks have no gradient of their own")
        self._ranks = _ranks(model)
        self._squares: list[torch.Tensor] = []
        self._arrivals: Counter[nn.Parameter] = Counter()
        self._whole: torch.Tensor | None = None

    def arrived(self, parameter: nn.Parameter, gradient: torch.Tensor) -> None:
        """Note the gradient of one parameter in one pass."""
        self._squares.append(sums_of_squares([plain(gradient)]))
        self._arrivals[parameter] += 1

    def after_backward(self) -> None:
        """Note what the passes so far left together."""
        gradients = [plain(one.grad) for one in self._parameters if one.grad is not None]
        self._whole = sums_of_squares(gradients).sum()

    def take(self) -> list[Found]:
        """Return the estimates of the step; none if there was one pass by one rank."""
        passes, squares, whole = max(self._arrivals.values(), default=0), self._squares, self._whole
        self._arrivals, self._squares, self._whole = Counter(), [], None
        if passes * self._ranks < 2 or whole is None:
            return []
        # Each pass brought its share of the mean, 1/passes of its own gradient.
        own = torch.cat([one.to(whole.device, non_blocking=True) for one in squares]).sum() * passes
        return [as_metrics(two_batch_sizes(own, whole, small=self._size, big=self._size * passes * self._ranks))]


def half_batches(model: nn.Module, loss: Callable[..., torch.Tensor], batch: Sequence[Any]) -> NoiseScale:
    """Compare the gradients of two halves of a batch with that of both: two passes over half of it each.

    Gradients in `.grad`, buffers and random states are left as they came.

    Args:
        model: Whose parameters.
        loss: Returns the mean loss over its items, given a half of everything in `batch`.
        batch: Tensors, halved along their first dimension; with an odd number of items the last one is left out.

    Raises:
        RecordingError: If there is nothing to halve, or the parameters are sharded.
    """
    sizes = {len(one) for one in batch if isinstance(one, torch.Tensor) and one.ndim > 0}
    if len(sizes) != 1 or next(iter(sizes)) < 2:
        raise RecordingError(
            f"noise_scale: there is no batch to halve, but tensors of {sorted(sizes)} items",
            hint="give the tensors of one batch of at least two items behind the function",
        )
    half = sizes.pop() // 2
    parameters = [one for one in model.parameters() if one.requires_grad]
    if any(hasattr(one, "to_local") for one in parameters):
        raise RecordingError("noise_scale: parameters that are sharded over ranks have no gradient of their own")
    gradients: list[list[torch.Tensor | None]] = []
    with random_states(), _buffers(model):
        for part in (slice(0, half), slice(half, 2 * half)):
            given = [one[part] if isinstance(one, torch.Tensor) and one.ndim > 0 else one for one in batch]
            gradients.append(list(torch.autograd.grad(loss(*given), parameters, allow_unused=True)))
    first, second = ([plain(one) for one in gradient if one is not None] for gradient in gradients)
    if len(first) != len(second) or not first:
        raise RecordingError("noise_scale: the loss of each half has to reach the same parameters of the model")
    own = (sums_of_squares(first).sum() + sums_of_squares(second).sum()) / 2
    # |(a + b)/2|^2 = (|a|^2 + |b|^2)/2 - |a - b|^2/4
    both = own - sums_of_squares(first, second).sum() / 4
    return two_batch_sizes(own, both, small=half, big=2 * half)


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    """Restore the buffers that passes in training mode change, without a trace in their version counters.

    Batch normalization changes its averages without counting versions, and a pass of the training that waits for its
    backward pass may have saved them. Casts that autocast keeps belong to one graph, and to no other.
    """
    torch.clear_autocast_cache()
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        for buffer, value in kept:
            buffer.data.copy_(value)


def as_metrics(found: NoiseScale) -> Found:
    """Return the estimates as metrics of the whole model."""
    return Found(
        whole={
            GRADIENT_SQUARE: found.gradient_square,
            COVARIANCE_TRACE: found.covariance_trace,
        }
    )


def _ranks(model: nn.Module) -> int:
    distributed = next((one for one in model.modules() if isinstance(one, DistributedDataParallel)), None)
    if distributed is not None:
        return torch.distributed.get_world_size(distributed.process_group)
    if own_rank() is not None and torch.distributed.get_world_size() > 1:
        raise RecordingError(
            "noise_scale: several ranks train, and the model does not tell how their gradients are averaged",
            hint="give lamina.record the DistributedDataParallel that is trained",
        )
    return 1
