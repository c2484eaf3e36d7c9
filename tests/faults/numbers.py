"""Faults of norms and the noise scale."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def gradients_before_the_closure(patch: pytest.MonkeyPatch) -> None:
    """A parameter's gradient is taken when the optimizer's step begins, before its closure has computed it."""
    from lamina.recording import parameters
    from lamina.recording.numbers import meters

    for module in (parameters, meters):
        patch.setattr(module, "with_gradients", lambda act, args, kwargs: act())


@fault
def squares_drop_the_last_row(patch: pytest.MonkeyPatch) -> None:
    """Of a large tensor only whole rows are summed."""
    import torch

    from lamina.recording.numbers import squares

    whole = squares._bytes

    def rows(tensor: torch.Tensor) -> Any:
        flat, row = whole(tensor), 512 * tensor.itemsize
        return flat[: flat.size // row * row]

    patch.setattr(squares, "_bytes", rows)


@fault
def squares_are_summed_in_the_dtype_of_the_tensor(patch: pytest.MonkeyPatch) -> None:
    """Half precision overflows at 65,504."""
    import torch

    from lamina.recording.numbers import squares

    def narrow(own: list[torch.Tensor], *_: object) -> torch.Tensor:
        return torch.stack([torch.linalg.vector_norm(one) for one in own]).square().double()

    patch.setattr(squares, "_on_cpu", narrow)


@fault
def norms_take_gradients_before_clipping(patch: pytest.MonkeyPatch) -> None:
    """What the backward pass leaves is taken for what the optimizer takes."""
    from lamina.recording.numbers.found import Found
    from lamina.recording.numbers.norms import Norms

    whole = Norms.before_update

    def before_update(self: Norms) -> None:
        whole(self)
        raw, name = self._found["raw_gradient_norm"], "gradient_norm"
        self._found[name] = Found({name: raw.at[f"raw_{name}"]}, {name: raw.whole[f"raw_{name}"]}, raw.sites)

    patch.setattr(Norms, "before_update", before_update)


@fault
def updates_are_measured_from_the_first_step(patch: pytest.MonkeyPatch) -> None:
    """The copy of the weights is not renewed."""
    from lamina.recording.numbers.norms import Norms

    copy = Norms._copy
    patch.setattr(Norms, "_copy", lambda self, one: self._before[one] if one in self._before else copy(self, one))


@fault
def half_batches_draw_random_numbers(patch: pytest.MonkeyPatch) -> None:
    """What a half batch draws is missing later on."""
    from contextlib import nullcontext

    from lamina.recording.numbers import noise_scale

    patch.setattr(noise_scale, "random_states", nullcontext)


@fault
def noise_scale_takes_shares_for_gradients(patch: pytest.MonkeyPatch) -> None:
    """The loss of a micro-batch is divided by their number, and its gradient is not multiplied by it again."""
    from lamina.recording.numbers import noise_scale

    two = noise_scale.two_batch_sizes

    def shared(own, whole, *, small, big):
        return two(own / (big // small), whole, small=small, big=big)

    patch.setattr(noise_scale, "two_batch_sizes", shared)


@fault
def noise_scale_compares_a_half_with_itself(patch: pytest.MonkeyPatch) -> None:
    """Both halves of a batch are the first."""
    import torch

    from lamina.recording.numbers import noise_scale

    whole = noise_scale.sums_of_squares
    patch.setattr(
        noise_scale,
        "sums_of_squares",
        lambda own, minus=None: whole(own) if minus is None else torch.zeros(len(own), dtype=torch.float64),
    )


@fault
def backward_passes_end_before_ranks_are_averaged(patch: pytest.MonkeyPatch) -> None:
    """The end of a pass is seen before that of the averages over ranks."""
    import torch

    from lamina.recording.numbers import backward

    engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportAttributeAccessIssue]
    patch.setattr(backward, "behind_backward", engine.queue_callback)


@fault
def log_partition_counts_padding(patch: pytest.MonkeyPatch) -> None:
    """Rows that the mask leaves out count."""
    from lamina.recording.numbers.log_partition import LogPartitions

    end = LogPartitions.end
    patch.setattr(LogPartitions, "end", lambda self, mask=None: end(self))


@fault
def log_partition_is_summed_in_the_dtype_of_the_logits(patch: pytest.MonkeyPatch) -> None:
    """Half precision is not widened."""
    from lamina.recording.numbers import log_partition

    patch.setattr(log_partition, "log_partition", lambda logits: logits.logsumexp(-1).float())
