"""Norms of gradients, weights and updates, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.parameter import UninitializedParameter

from lamina.errors import RecordingError
from lamina.modules.wrappers import plain_parameters
from lamina.recording.numbers.found import Found
from lamina.recording.numbers.squares import plain, sums_of_squares

if TYPE_CHECKING:
    from torch import nn


class Norms:
    """The norms of one model that were asked for."""

    def __init__(
        self,
        model: nn.Module,
        norms: Iterable[str],
        by: Literal["layer", "parameter"],
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self._norms = frozenset(norms)
        self._optimizer = optimizer
        self._layers: dict[nn.Parameter, str] = {}
        for name, parameter in plain_parameters(model):
            if not self._norms:
                break
            if isinstance(parameter, UninitializedParameter):
                raise RecordingError(
                    f"the parameter {name!r} has no shape yet", hint="run the model on one batch first"
                )
            if parameter.is_floating_point() or parameter.is_complex():
                # A parameter of the model itself, such as a class token, is a layer of its own.
                self._layers[parameter] = name if by == "parameter" else name.rpartition(".")[0] or name
        if "update" in self._norms and optimizer is None:
            raise RecordingError(
                "norms of updates belong to the optimizer", hint="give it: lamina.record(…, optimizer=…)"
            )
        if optimizer is not None and self._norms & {"gradient", "update"} and not self._held():
            raise RecordingError("the optimizer holds none of the model's parameters")
        self._before: dict[nn.Parameter, torch.Tensor] = {}
        self._copied = False
        self._found: dict[str, Found] = {}

    @property
    def names(self) -> list[str]:
        """The metrics that a step has, if the optimizer steps in it."""
        return [f"{norm}_norm" for norm in sorted(self._norms)]

    @property
    def of_backward(self) -> bool:
        """Whether `after_backward` has something to do."""
        return "raw_gradient" in self._norms

    def begin(self) -> None:
        """Take the norms of the weights that a step begins with."""
        self._found, self._copied = {}, False
        if "weight" in self._norms:
            self._measure("weight_norm", {one: one for one in self._layers})

    def after_backward(self) -> None:
        """Take the norms of the gradients as a backward pass left them."""
        self._measure("raw_gradient_norm", _gradients(self._layers))

    def before_update(self) -> None:
        """Take the norms of the gradients that the optimizer is about to take, and a copy of the weights."""
        held = self._held()
        if "gradient" in self._norms:
            # A fused optimizer unscales the gradients itself, while it steps.
            self._measure("gradient_norm", _gradients(held), getattr(self._optimizer, "grad_scale", None))
        if "update" in self._norms and not self._copied:
            self._copied = True
            self._before = {one: self._copy(one) for one in held}

    def after_update(self) -> None:
        """Take the norms of what changed since the step's first `before_update`."""
        if "update" in self._norms:
            self._measure("update_norm", {one: one for one in self._before}, minus=self._before)

    def end(self) -> None:
        """Take the norms of the gradients as they stand at the end of the step, if no optimizer is known."""
        if self._optimizer is None and "gradient" in self._norms:
            self._measure("gradient_norm", _gradients(self._layers))

    def take(self) -> list[Found]:
        """Return what was found in the step."""
        # On the CPU memory is kept for the next copy: fresh pages cost more than copying.
        self._before = {one: kept for one, kept in self._before.items() if kept.device.type == "cpu"}
        found, self._found, self._copied = list(self._found.values()), {}, False
        return found

    def _held(self) -> list[nn.Parameter]:
        assert self._optimizer is not None
        held = {id(one) for group in self._optimizer.param_groups for one in group["params"]}
        return [one for one in self._layers if id(one) in held]

    def _copy(self, parameter: nn.Parameter) -> torch.Tensor:
        value, kept = plain(parameter), self._before.get(parameter)
        if kept is None or kept.shape != value.shape or kept.dtype != value.dtype or kept.device != value.device:
            kept = torch.empty_like(value)
        return kept.copy_(value)

    def _measure(
        self,
        name: str,
        tensors: dict[nn.Parameter, torch.Tensor],
        scale: torch.Tensor | None = None,
        minus: dict[nn.Parameter, torch.Tensor] | None = None,
    ) -> None:
        if not tensors:
            return
        before = None if minus is None else [minus[one] for one in tensors]
        squares = sums_of_squares([plain(value) for value in tensors.values()], before)
        if scale is not None:
            squares = squares / scale.to(squares.device, squares.dtype).square()
        layers = [self._layers[one] for one in tensors]
        numbers = {layer: number for number, layer in enumerate(dict.fromkeys(layers))}
        index = torch.tensor([numbers[layer] for layer in layers], device="cpu")
        sums = torch.zeros(len(numbers), dtype=squares.dtype, device=squares.device)
        sums.index_add_(0, index.to(squares.device, non_blocking=True), squares)
        self._found[name] = Found({name: sums.sqrt()}, {name: sums.sum().sqrt()}, list(numbers))


def _gradients(parameters: Iterable[nn.Parameter]) -> dict[nn.Parameter, torch.Tensor]:
    return {one: one.grad for one in parameters if one.grad is not None}
