"""Loading checkpoints: whole parts, as they were saved."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from lamina.errors import DamagedError, LaminaError, LaminaWarning
from lamina.runs.buffers import empty_tensor, torch_dtype
from lamina.runs.rebuilt import put_together
from lamina.runs.saved import Saved, SavedPart
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    import torch

LEAST_MAPPED = 1 << 16
"""Bytes below which a tensor is copied in any case: a map of its own would cost more."""
_LISTED = 5
"""Most tensors that a warning names."""


def load(
    saved: Saved, step: int | Literal["last"], part: str | None, *, strict: bool = True, mmap: bool = False
) -> Any:
    """Return a checkpoint's part as it was saved, with torch tensors on the CPU.

    Every tensor has memory of its own (those that shared some when they were saved share it again) and is read by as
    many threads as torch computes with. Blocks of 128 KiB are verified as `lamina.open(verify=…)` says.

    With `mmap`, tensors are private maps of the run's files, which cost no memory until they are used: writing to one
    copies the page that is written to, and changes neither the file nor what anybody else loads. That needs chunks that
    stand raw, side by side and aligned in one file, as a save writes them. What does not is copied: tensors that are
    coded (compacted), of which chunks were stored by an earlier save, and those below 64 KiB. A warning says which
    larger ones were, and why. Whoever cuts a mapped file short kills the process, as with `lamina.open(io="mmap")`.

    Args:
        saved: The checkpoints of a run.
        step: The step, or "last": the last one that holds the part.
        part: The part's name; None gives a dict of all parts.
        strict: Raise on damage. Otherwise a tensor that cannot be read is left out of the mapping that holds it (in a
            list or tuple None stands in its place); a warning names it, and so does `Run.problems`.
        mmap: Map tensors instead of copying them, where that can be done.

    Raises:
        NotFoundError: There is no such checkpoint or part; the hint lists the nearest.
        DamagedError: A block does not match its checksum: the message names the tensor, the step and the chunk. Without
            `strict` only if nothing of a part can be read.
        ExpiredError: The run was compacted and collected since it was opened: `refresh()` it.
    """
    parts, loaded = saved.at(step, part), {}
    for name, one in parts.items():
        try:
            loaded[name] = load_part(saved, one, strict=strict, mmap=mmap)
        except DamagedError as error:
            if strict or part is not None:
                raise
            _pass_over(saved, one, {name: error})
    return loaded if part is None else loaded[part]


def load_part(saved: Saved, part: SavedPart, *, strict: bool = True, mmap: bool = False) -> Any:
    """Return one part, as `load` does."""
    tree, scalars, log = saved.snapshot.part(part.step, part.name)
    tensors = _read(saved, part, strict, mmap)
    try:
        return put_together(tree, scalars, tensors)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"the state of {part} is not understood", log) from error


def _read(saved: Saved, part: SavedPart, strict: bool, mmap: bool) -> list[torch.Tensor | None]:
    specs, threads = saved.tensors(part), available_threads()
    tensors: list[torch.Tensor | None] = [None] * len(specs)
    if mmap:
        _map(saved, part, tensors, threads)
    wanted, numbers = [], []
    for at, spec in enumerate(specs):
        if tensors[at] is None:
            tensors[at], data = empty_tensor(spec.dtype, tuple(spec.shape))
            wanted.append((part.step, at, 0, data))
            numbers.append(at)
    damaged = {}
    for number, error in saved.snapshot.stretches(part.name, wanted, threads):
        if strict or not isinstance(error, DamagedError):
            raise error
        tensors[numbers[number]] = None
        damaged[specs[numbers[number]].name] = error
    if damaged:
        _pass_over(saved, part, damaged)
    return tensors


def _map(saved: Saved, part: SavedPart, tensors: list[torch.Tensor | None], threads: int) -> None:
    """Puts maps into the places of tensors that can be mapped, and warns of those that should and cannot."""
    import torch

    copied: dict[str, list[str]] = {}
    for at, spec in enumerate(saved.tensors(part)):
        if spec.bytes < LEAST_MAPPED:
            continue
        mapped = saved.snapshot.map(part.step, part.name, at, threads)
        if isinstance(mapped, str):
            copied.setdefault(mapped, []).append(spec.name)
        else:
            tensors[at] = torch.frombuffer(mapped, dtype=torch_dtype(spec.dtype)).view(tuple(spec.shape))
    if copied:
        reasons = "; ".join(f"{why}: {_some(names)}" for why, names in copied.items())
        count = sum(map(len, copied.values()))
        text = f"{count} tensors of {part} were copied and not mapped: {reasons}"
        warnings.warn(text, LaminaWarning, stacklevel=6)


def _pass_over(saved: Saved, part: SavedPart, damaged: dict[str, LaminaError]) -> None:
    """Notes and warns of what could not be read."""
    saved.passed_over += [(error.message, error.file or "", error.offset) for error in damaged.values()]
    first = next(iter(damaged.values()))
    text = f"{part} lacks {_some(list(damaged))}: {first}"
    warnings.warn(text, LaminaWarning, stacklevel=6)


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(map(repr, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")
