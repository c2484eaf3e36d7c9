"""The caller's model and random generators, left as they came."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients; restore the mode of each of its modules."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        # Not `module.train(mode)`: it also sets the children, and models override it.
        for module, training in modes:
            module.training = training


@contextmanager
def buffers(model: nn.Module) -> Iterator[None]:
    """Restore every buffer that a pass changes, also those that are left out of `state_dict()`.

    Some layers count or average in evaluation mode too. Costs one copy of the buffers. Autocast keeps casts of
    weights that were made without gradients, which a training step after the pass would use: they are dropped.
    """
    kept = [
        (buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers() if not buffer.is_inference()
    ]
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        with torch.no_grad():
            for buffer, version, value in kept:
                if buffer._version != version:
                    buffer.copy_(value)


def generators(data: object) -> list[torch.Generator]:
    """Return the random generators that going through a loader would advance."""
    sampler = getattr(data, "sampler", None)
    places = (data, sampler, getattr(data, "batch_sampler", None), getattr(data, "dataset", None))
    found = [getattr(place, "generator", None) for place in places]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


@contextmanager
def random_states(*generators: torch.Generator | None) -> Iterator[None]:
    """Restore the states of the global random generators of torch, NumPy and Python, and of those given."""
    own = [(generator, generator.get_state()) for generator in generators if generator is not None]
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
        for generator, before in own:
            generator.set_state(before)


def random_state() -> dict[str, Any]:
    """Return the states of the global random generators of torch, NumPy and Python, as a checkpoint can hold them."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (the caller's, whatever it is)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (name, np.asarray(keys, np.int64), *rest),
        "python": (version, np.array(words, np.int64), gauss),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the random generators of torch, NumPy and Python to what they were, as a `Flight` saves them.

    Args:
        state: One entry of `run.load(step, part="random")`.

    Example:
        >>> import torch
        >>> from lamina.recording.state import random_state, set_random_state
        >>> state = random_state()
        >>> drawn = torch.rand(3)
        >>> set_random_state(state)
        >>> torch.equal(torch.rand(3), drawn)
        True
    """
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), *rest))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(np.asarray(words).tolist()), gauss))


@contextmanager
def weights(model: nn.Module) -> Iterator[None]:
    """Restore what `model.state_dict()` holds; costs one copy of it."""
    kept = {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }
    try:
        yield
    finally:
        model.load_state_dict(kept)
