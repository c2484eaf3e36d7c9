"""One pass of a model over data, in evaluation mode, with its sites recorded: what probes and capture share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import DistributedSampler, RandomSampler

from lamina.errors import RecordingError
from lamina.modules.sharded import reshard
from lamina.progress import track
from lamina.recording.account import Account
from lamina.recording.division import Division
from lamina.recording.lazy import check_shapes
from lamina.recording.sameness import Sameness
from lamina.recording.state import buffers, evaluation, generators, random_states
from lamina.recording.watching import PassTap, Taps

if TYPE_CHECKING:
    from torch import nn

    class Writes(Protocol):
        """What a pass needs of a writer."""

        def append(self, sites: Mapping[str, Any], /, **columns: Any) -> object:
            """See `Writer.append`."""
            ...


_UNSTABLE: tuple[tuple[type, str], ...] = (
    (RandomSampler, "a shuffled loader gives other examples the same numbers each time"),
    (DistributedSampler, "a loader that is divided among ranks gives the examples of each rank the same numbers"),
)

Data = torch.Tensor | tuple[Any, ...] | Mapping[str, Any] | Iterable[Any]
"""What a model passes over: one batch (a tensor, a tuple, a mapping), or batches (a list, a loader)."""


@dataclass(frozen=True)
class _Batch:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    columns: dict[str, Any]
    size: int
    named: bool


def check_data(name: str, data: Data) -> None:
    """Raise RecordingError if `data` cannot be gone through more than once."""
    if not isinstance(data, Iterable):
        raise RecordingError(
            f"{name}: data of the type {type(data).__name__} cannot be gone through",
            hint="give a tensor, batches or a loader",
        )
    if isinstance(data, Iterator):
        raise RecordingError(
            f"{name}: a {type(data).__name__} can be gone through only once", hint="give a list of batches or a loader"
        )


def count_batches(data: Data) -> int | None:
    """Return the number of batches, None if the data does not know it."""
    if isinstance(data, (torch.Tensor, tuple, Mapping)):
        return 1
    try:
        return len(data)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None


def record_pass(
    model: nn.Module,
    data: Data,
    *,
    taps: Taps,
    due: Iterable[PassTap],
    account: Account,
    writer: Writes,
    step: int,
    source: str,
    mask: str | None = None,
    sameness: Sameness | None = None,
    skips: Callable[[Any], bool] | None = None,
    progress: bool = False,
    description: str = "",
) -> None:
    """Run `model` over `data` and write what the taps that are due capture.

    The model runs in evaluation mode without gradients; modes, buffers and random states are restored. Batches are
    moved to the device of the model's first parameter. Batches whose examples `skips` is true of are left out.

    Raises:
        RecordingError: If there is no batch, if a shuffled loader gives batches without `example`, if no tap captured
            anything, or if `sameness` says that it is other data than before; none of that is written.
    """
    told = description or source
    check_shapes(model, told)
    due, fired = list(due), set()
    found = skipped = False
    division = Division()
    with random_states(*generators(data)), evaluation(model), buffers(model):
        batches = _batches(data, _device(model), told, mask)
        for batch in track(batches, description, total=count_batches(data), progress=progress):
            found = True
            if sameness is not None:
                sameness.see((*batch.args, *batch.kwargs.values()), batch.columns["example"] if batch.named else None)
            if skips is not None and skips(batch.columns["example"]):
                skipped = True
                continue
            with taps.armed(due):
                model(*batch.args, **batch.kwargs)
                captured = taps.drain()
            fired.update(one.site for one in captured)
            for sites, columns in division.of(captured, batch.columns):
                writer.append(sites, step=step, source=source, **columns)
    reshard(model)
    if not found:
        raise RecordingError(f"{told}: there is no batch to run the model on")
    if not skipped:
        account.add(source, [tap.site.name for tap in due], fired)
    if sameness is not None:
        sameness.end()


def _batches(data: Data, device: torch.device | None, told: str, mask: str | None) -> Iterator[_Batch]:
    sampler = getattr(data, "sampler", None)
    unstable = next((why for kind, why in _UNSTABLE if isinstance(sampler, kind)), None)
    first = 0
    for item in [data] if isinstance(data, (torch.Tensor, tuple, Mapping)) else data:
        batch = _batch(item, first, device, told, mask)
        if unstable and not batch.named:
            raise RecordingError(
                f"{told}: {unstable}",
                hint="use another sampler (shuffle=False), or batches that are mappings with an `example` entry",
            )
        first += batch.size
        yield batch


def _batch(item: Any, first: int, device: torch.device | None, told: str, mask: str | None) -> _Batch:
    args, kwargs = (), {}
    if isinstance(item, Mapping):
        kwargs = {key: value for key, value in item.items() if key != "example"}
    else:
        args = (item[0] if isinstance(item, (tuple, list)) and item else item,)
    values = [*args, *kwargs.values()]
    # Nested tensors have a size and may have no shape.
    sizes = [value.size(0) for value in values if isinstance(value, torch.Tensor) and value.dim() > 0]
    sizes += [len(value) for value in values if _is_list(value)]
    if not sizes:
        raise RecordingError(
            f"{told}: a batch is a {type(item).__name__} without a tensor for the model",
            hint="a batch is a tensor, a tuple whose first element goes to the model, or a mapping of its keywords; "
            "in place of a tensor a list of them will do, one for each item",
        )
    size = sizes[0]
    columns: dict[str, Any] = {"example": np.arange(first, first + size)}
    if isinstance(item, Mapping) and "example" in item:
        columns["example"] = item["example"]
    if mask is not None:
        if not isinstance(item, Mapping) or mask not in item:
            raise RecordingError(f"{told}: mask={mask!r} names an entry of the batches, and there is none")
        columns["mask"] = item[mask]
    return _Batch(
        tuple(_move(value, device) for value in args),
        {key: _move(value, device) for key, value in kwargs.items()},
        columns,
        size,
        isinstance(item, Mapping) and "example" in item,
    )


def _is_list(value: Any) -> bool:
    """Whether it is a tensor for each item, as models that detect objects take images of different sizes."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(one, torch.Tensor) for one in value)


def _move(value: Any, device: torch.device | None) -> Any:
    if device is None:
        return value
    if _is_list(value):
        return type(value)([one.to(device) for one in value])
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _device(model: nn.Module) -> torch.device | None:
    # On the device meta are weights that come from elsewhere when they are needed.
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "meta"), None)
