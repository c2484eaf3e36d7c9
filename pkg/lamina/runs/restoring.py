"""Putting a checkpoint back into the objects that it was saved from, or others like them."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from lamina.errors import LaminaWarning, NotFoundError, SchemaError
from lamina.runs.loading import load
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.saved import Saved
from lamina.runs.steps import checkpoint_step

if TYPE_CHECKING:
    import torch

_LISTED = 8
"""Most names of a kind that an error lists."""
_LIKE_PARAMETERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg")
"""State of torch's optimizers that has the shape of its parameter."""


def restore(saved: Saved, step: int | Literal["last"], objects: Mapping[str, Any], strict: bool = True) -> int:
    """Put a checkpoint's parts into objects, and return its step.

    Everything is read, verified and compared with what is there before the first object changes: an error leaves all
    of them as they were. A model may be wrapped (DistributedDataParallel, torch.compile) or divided (FSDP2, where
    every rank calls this), and lie on any device: tensors go there from maps of the run's files, without a copy of the
    state in memory where they are stored raw.

    Args:
        saved: The checkpoints of a run.
        step: The step, or "last": the last one that holds all the parts.
        objects: By the names of their parts: a module, an optimizer, or anything else with `load_state_dict`.
        strict: Raise if a module and its part differ in names or shapes, or a tensor is damaged. Otherwise what fits is
            loaded, and a warning lists the rest. Optimizers and others are loaded whole or not at all.

    Raises:
        NotFoundError: There is no such checkpoint or part; the hint lists the nearest.
        SchemaError: A part does not fit its object: the message lists what is missing, unexpected and of another shape.
        DamagedError: A block does not match its checksum.
    """
    if not objects:
        raise SchemaError("there is nothing to restore", hint="give a model, an optimizer, or others by their parts")
    for part, one in objects.items():
        if not callable(getattr(one, "load_state_dict", None)):
            raise SchemaError(f"{part}= is a {type(one).__name__}", hint="give something with load_state_dict()")
    step = _step(saved, step, list(objects))
    apply = [_prepared(saved, step, part, one, strict) for part, one in objects.items()]
    for change in apply:
        change()
    return step


def _step(saved: Saved, step: int | Literal["last"], parts: list[str]) -> int:
    step, held = checkpoint_step(step), saved.parts_by_step()
    if step == "last":
        whole = [at for at, names in held.items() if set(parts) <= set(names)]
        if not whole:
            names = {name for names in held.values() for name in names}
            hint = nearest_names(next((part for part in parts if part not in names), parts[0]), names)
            raise NotFoundError(f"no checkpoint has the parts {', '.join(map(repr, parts))}", hint=hint)
        return whole[-1]
    for part in parts:
        if part not in held.get(step, []):
            there = saved.steps(part)
            hint = nearest_steps(step, there) if there else nearest_names(part, held.get(step, []))
            raise NotFoundError(f"step {step} has no checkpoint with a part {part!r}", hint=hint)
    return step


def _prepared(saved: Saved, step: int, part: str, one: Any, strict: bool) -> Callable[[], Any]:
    """Reads a part and compares it with its object; what is returned changes that."""
    import torch

    if isinstance(one, torch.nn.Module):
        return _prepared_module(saved, step, part, one, strict)
    state = load(saved, step, part)
    if isinstance(one, torch.optim.Optimizer):
        _check_optimizer(one, state, f"part {part!r} of the checkpoint of step {step}")
    return lambda: one.load_state_dict(state)


def _prepared_module(saved: Saved, step: int, part: str, module: torch.nn.Module, strict: bool) -> Callable[[], Any]:
    from lamina.modules.sharded import load as load_into
    from lamina.modules.wrappers import unwrapped

    # a wrapper would put its own name in front of every key
    inner = unwrapped(module)
    with warnings.catch_warnings():
        # what cannot be mapped is copied, and no matter: it is copied once more into the module, and dropped
        warnings.filterwarnings("ignore", message=".*were copied and not mapped", category=LaminaWarning)
        state = load(saved, step, part, strict=strict, mmap=True)
    if not isinstance(state, Mapping):
        raise SchemaError(f"part {part!r} of the checkpoint of step {step} is a {type(state).__name__} and no mapping")
    own = inner.state_dict()
    if empty := [name for name, value in own.items() if getattr(value, "is_meta", False)]:
        raise SchemaError(
            f"the module's {_listed(empty)} have no memory: they are on the device meta",
            hint="call module.to_empty(device=…) first",
        )
    missing, unexpected = [name for name in own if name not in state], [name for name in state if name not in own]
    shapes = {name: (_shape(state[name]), _shape(own[name])) for name in own if name in state}
    other = [f"{name}: {there} saved, {here} here" for name, (there, here) in shapes.items() if there != here]
    faults = [("missing", missing), ("unexpected", unexpected), ("of another shape", other)]
    said = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults if names)
    if said:
        text = f"part {part!r} of the checkpoint of step {step} does not fit the module; {said}"
        if strict:
            raise SchemaError(text, hint="strict=False loads what fits")
        warnings.warn(text, LaminaWarning, stacklevel=5)
    fitting = OrderedDict((name, state[name]) for name, (there, here) in shapes.items() if there == here)
    fitting |= {name: own[name] for name in own if name not in fitting}
    fitting._metadata = getattr(state, "_metadata", {})  # pyright: ignore[reportAttributeAccessIssue]
    return lambda: load_into(inner, fitting)


def _shape(value: Any) -> Any:
    shape = getattr(value, "shape", None)
    return None if shape is None else list(shape)


def _check_optimizer(optimizer: torch.optim.Optimizer, state: Any, what: str) -> None:
    if not isinstance(state, Mapping) or not isinstance(state.get("param_groups"), list):
        raise SchemaError(f"{what} is no state of an optimizer", hint="save optimizer.state_dict()")
    sizes = [len(group["params"]) for group in state["param_groups"]]
    own = [group["params"] for group in optimizer.param_groups]
    if sizes != [len(params) for params in own]:
        text = f"{what} does not fit the optimizer; parameters a group: {sizes} saved, {[len(p) for p in own]} here"
        raise SchemaError(text, hint="make the optimizer of the same parameters, in the same groups")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = dict(zip(numbers, (one for params in own for one in params), strict=True))
    other = []
    for number, values in state.get("state", {}).items():
        for name in (name for name in _LIKE_PARAMETERS if name in values):
            there, here = _shape(values[name]), _shape(parameters[number])
            if there not in (None, [], here):
                other.append(f"{name} of parameter {number}: {there} saved, {here} here")
    if other:
        raise SchemaError(f"{what} does not fit the optimizer; of another shape: {_listed(other)}")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
