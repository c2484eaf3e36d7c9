"""Hooks that edit what flows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import RecordingError
from lamina.recording.autograd import backward_pass
from lamina.recording.changes import Change, Flow, Stored, Where, changed, put_part
from lamina.recording.elements import replace, select
from lamina.recording.layouts import Layout, arrange
from lamina.recording.matching import Names, Table
from lamina.recording.sites import ResolvedSite
from lamina.rows import Rows

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class Hook:
    """A hook that is there for the block. A copy of the model made in the block takes along one that is idle."""

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None

    def __reduce__(self) -> tuple[Callable[[], Hook], tuple[()]]:
        return Hook, ()

    def attach(self) -> None:
        """Put the hook on its module."""
        self._handle = self._register()

    def detach(self) -> None:
        """Take it away."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _register(self) -> RemovableHandle:
        raise NotImplementedError

    # A copy of a method is that of the same class, whatever its object was copied as: so these are not overridden.
    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return None if self._handle is None else self._given(args, kwargs)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return None if self._handle is None else self._returned(output)

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _returned(self, output: Any) -> Any:
        raise NotImplementedError


class Pass(Hook):
    """Tells that a call of the whole model begins."""

    def __init__(self, model: nn.Module, names: Names) -> None:
        super().__init__()
        self._model = model
        self._names = names

    def _register(self) -> RemovableHandle:
        return self._model.register_forward_pre_hook(self._before, with_kwargs=True)

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if backward_pass() is not None:
            return
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim)
        cache: Any = kwargs.get("past_key_values")
        start = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
        self._names.begin(next((len(value) for value in tensors), None), start)


class Editor(Hook):
    """Edits one site."""

    def __init__(
        self, site: ResolvedSite, change: Change, *, where: Where, names: Names, layout: Layout | None
    ) -> None:
        super().__init__()
        self.site = site
        self.reached = False
        self._change = Stored(change, Table.of(change)) if isinstance(change, Rows) else change
        self._by_name = where.asks_names or isinstance(change, Rows)
        self._by_call = where.asks_names or (isinstance(self._change, Stored) and self._change.table.by_call)
        self._where = where
        self._names = names
        self._layout = layout
        self._pass = 0
        self._calls = 0

    def _register(self) -> RemovableHandle:
        if self.site.kind == "input":
            return self.site.module.register_forward_pre_hook(self._before, with_kwargs=True)
        return self.site.module.register_forward_hook(self._after)

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = self._edited(dict(enumerate(args)) | kwargs)
        return tuple(given[at] for at in range(len(args))), {name: given[name] for name in kwargs}

    def _returned(self, output: Any) -> Any:
        return self._edited(output)

    def _edited(self, flows: Any) -> Any:
        self.reached = True
        path, name, call = self.site.path, self.site.name, self._count()
        whole = select(flows, path, name)
        value = self._meant(whole)
        lead = () if value.is_nested else tuple(value.shape[: self._leading(value)])
        flow = Flow(name, value, lead, cache(lambda: self._names.of(lead, name, call)))
        new = changed(flow, self._change, self._where)
        if value is not whole:
            new = put_part(whole, self._meant, new)
        return replace(flows, path, new, name)

    def _meant(self, whole: torch.Tensor) -> torch.Tensor:
        """Return the part that the site means, in the order of the layout."""
        value = whole if self.site.part is None else self.site.part(whole)
        if self._layout is None or value.is_nested or value.layout != torch.strided:
            return value
        return arrange(value, self._layout, self.site.name)[0]

    def _leading(self, value: torch.Tensor) -> int:
        """Return how many dimensions are rows."""
        positions = value.ndim == 3 if self._layout is None else self._layout.form == "positions"
        return 2 if positions else 1

    def _count(self) -> int:
        """Return how many calls of the module came before this one in the model's."""
        if backward_pass() is None:
            self._calls = self._calls + 1 if self._pass == self._names.passes else 1
            self._pass = self._names.passes
        elif (self._by_call and self._calls > 1) or (self._by_name and not self._names.lasting):
            raise RecordingError(
                f"the site {self.site.name!r} is computed again in a backward pass, and it is not known for which call",
                hint="make an edit for each batch with example=, and backward in it",
            )
        return self._calls - 1
