"""A checkpoint as `torch.distributed.checkpoint` sees one: its leaves by dotted name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict

from lamina.errors import DamagedError
from lamina.runs.buffers import torch_dtype
from lamina.runs.rebuilt import put_together
from lamina.runs.saved import Saved, SavedPart
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    from lamina.runs import Run


class Stored(NamedTuple):
    """A leaf that is a tensor of a part, and not read yet."""

    part: str
    tensor: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class Leaves:
    """A checkpoint of a run.

    Args:
        run: The run.
        step: The step, or "last".
        part: Its leaves have the names that they have in this part; None: the names of parts come first.

    Raises:
        NotFoundError: There is no such checkpoint or part.
    """

    def __init__(self, run: Run, step: int | Literal["last"], part: str | None) -> None:
        self._saved = Saved(run._snapshot)
        self._stored: dict[int, Stored] = {}
        self._alive: list[torch.Tensor] = []
        parts = self._saved.at(step, part)
        self.step = next(iter(parts.values())).step
        states = {name: self._state(one) for name, one in parts.items()}
        leaves, self.paths = flatten_state_dict(states if part is None else states[part])
        self.leaves: dict[str, Any] = {}
        """By dotted name: tensors of parts as `Stored`, everything else as it is."""
        for name, leaf in leaves.items():
            self.leaves[name] = self._found(leaf) if isinstance(leaf, torch.Tensor) else self._filled(leaf)

    def _state(self, part: SavedPart) -> Any:
        """A part with tensors that have a shape and no memory. What is made of a tensor's values is read."""
        tree, scalars, log = self._saved.snapshot.part(part.step, part.name)
        placed = []
        try:
            node, read = json.loads(tree), set[int]()
            _look(node, read)
            for index, tensor in enumerate(self._saved.tensors(part)):
                stored = Stored(part.name, index, torch_dtype(tensor.dtype), tuple(tensor.shape))
                if index in read:
                    placed.append(torch.empty(stored.shape, dtype=stored.dtype))
                    self.read(stored, (0,) * len(stored.shape), placed[-1])
                    continue
                one = torch.empty(1, dtype=stored.dtype)
                self._stored[one.untyped_storage().data_ptr()] = stored
                self._alive.append(one)
                placed.append(one.as_strided(stored.shape, [0] * len(stored.shape)))
            return put_together(json.dumps(node), scalars, placed)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise DamagedError(f"the state of part {part.name!r} at step {self.step} is not understood", log) from error

    def _found(self, leaf: torch.Tensor) -> Any:
        stored = self._stored.get(leaf.untyped_storage().data_ptr())
        return leaf if stored is None or stored.shape != tuple(leaf.shape) else stored

    def _filled(self, leaf: Any) -> Any:
        """What DCP takes for one object, such as a tuple, with the values of the tensors in it."""
        if isinstance(leaf, torch.Tensor):
            if isinstance(found := self._found(leaf), Stored):
                leaf = torch.empty(found.shape, dtype=found.dtype)
                self.read(found, (0,) * leaf.dim(), leaf)
            return leaf
        if type(leaf) in (list, tuple):
            return type(leaf)(self._filled(item) for item in leaf)
        if isinstance(leaf, dict):
            for key, item in leaf.items():
                leaf[key] = self._filled(item)
        return leaf

    def read(self, stored: Stored, offsets: Sequence[int], out: torch.Tensor) -> None:
        """Fill a contiguous tensor on the CPU, of the stored dtype, with a box of a stored one."""
        data = out.reshape(-1).view(torch.uint8).numpy()
        self._saved.snapshot.box(
            self.step, stored.part, stored.tensor, list(offsets), list(out.shape), data, available_threads()
        )


def _look(node: Any, read: set[int]) -> None:
    """Find the tensors whose values a state's containers need; order in memory is not DCP's."""
    if isinstance(node, list):
        for item in node:
            _look(item, read)
    elif isinstance(node, dict):
        if "view" in node:
            read.add(node["view"][0])
        elif "t" in node:
            node.pop("stride", None)
        for kind, content in node.items():
            if kind in ("n", "scalar", "bytes", "bytearray"):
                read.add(content)
            else:
                _look(content, read)
