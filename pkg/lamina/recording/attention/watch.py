"""A module whose attention is read while it is armed, compiled models included."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from lamina.errors import RecordingError
from lamina.recording.attention.inputs import Attention
from lamina.recording.attention.statistics import attention_statistics
from lamina.recording.autograd import backward_pass

Receive = Callable[[str, torch.Tensor], None]

_MARK = "_lamina_attention"
_keys = itertools.count()
_attached: dict[int, Watch] = {}

# As with `lamina::tap`: the operator claims to change a tensor, so that nothing removes it or swaps two calls.
_order = torch.zeros(0, device="cpu")


@torch.library.custom_op(
    "lamina::attend",
    mutates_args=("order",),
    schema="(Tensor q, Tensor k, Tensor? mask, Tensor? second_mask, Tensor(a!) order, Tensor key, bool causal, "
    "float? scaling, float? softcap) -> ()",
)
def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    mask: torch.Tensor | None,
    second_mask: torch.Tensor | None,
    order: torch.Tensor,
    key: torch.Tensor,
    causal: bool,
    scaling: float | None,
    softcap: float | None,
) -> None:
    watch = _attached.get(int(key))
    if watch is not None and watch.due:
        watch.receive(Call(q, k, (mask, second_mask), causal, scaling, softcap))


@_attend.register_fake
def _(*_: object) -> None:
    return None


class Call(NamedTuple):
    """What one call of an attention module was given, in the module's own terms."""

    q: torch.Tensor
    k: torch.Tensor
    masks: tuple[torch.Tensor | None, torch.Tensor | None]
    causal: bool
    scaling: float | None
    softcap: float | None


class Watch:
    """Stands in the `__dict__` of an attention module while its calls are read.

    Which statistics are due is looked up at each call, in compiled code by an operator when it runs, so that nothing
    is compiled anew when they change. A copy of the module carries a copy that belongs to nobody and stays idle.

    Args:
        module: The attention module.
        name: Its path in the model.
        receive: Called with `<name>.<statistic>` and its values at each call of the module that finds it due.
    """

    def __init__(self, module: nn.Module, name: str, receive: Receive) -> None:
        self.module = module
        self.name = name
        self.due: tuple[str, ...] = ()
        self._give = receive
        # A number would be a constant of compiled code: layers that share their code would be compiled one by one.
        self._key = torch.tensor(next(_keys), device="cpu")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (nn.Identity(), "", _nobody)

    @staticmethod
    def of(module: nn.Module) -> Watch | None:
        """Return the watch of a module, if it has one."""
        return module.__dict__.get(_MARK)

    def attach(self) -> None:
        """Begin to read the module's calls, idly."""
        other = self.of(self.module)
        if other is not None and int(other._key) in _attached:
            raise RecordingError(
                f"the attention of {self.name or 'the model'} is recorded already",
                hint="one recorder at a time may record the attention of a module",
            )
        self.module.__dict__[_MARK] = self
        _attached[int(self._key)] = self

    def detach(self) -> None:
        """Leave the module as it came."""
        self.due = ()
        _attached.pop(int(self._key), None)
        if self.of(self.module) is self:
            del self.module.__dict__[_MARK]

    def looks(self) -> bool:
        """Whether a call is of interest: it is due, or code is compiled that will ask when it runs."""
        # In this order: compiled code that had read `due` would be compiled anew when it changes.
        return torch.compiler.is_compiling() or bool(self.due)

    def see(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        masks: tuple[torch.Tensor | None, torch.Tensor | None],
        *,
        causal: bool = False,
        scaling: float | None = None,
        softcap: float | None = None,
    ) -> None:
        """Take note of a call of the module, if anything is due when it runs."""
        if torch.compiler.is_compiling():
            first, second = (None if mask is None else mask.detach() for mask in masks)
            _attend(q.detach(), k.detach(), first, second, _order, self._key, causal, scaling, softcap)
        else:
            self.receive(Call(q, k, masks, causal, scaling, softcap))

    def receive(self, call: Call) -> None:
        """Hand out the statistics that are due."""
        # A recomputation is no call.
        if backward_pass() is not None:
            return
        with torch.no_grad():
            found = attention_statistics(self._attention(call), self.due)
        for statistic, value in found.items():
            self._give(f"{self.name}.{statistic}" if self.name else statistic, self._rows(statistic, value))

    def _attention(self, call: Call) -> Attention:
        """Return what was given to the module in our terms."""
        raise NotImplementedError

    def _rows(self, statistic: str, value: torch.Tensor) -> torch.Tensor:
        return value


class Detour:
    """A function of a class that is replaced while anybody needs it, and then put back.

    Args:
        owner: The class.
        name: The function's name.
        around: Makes the replacement from the original.
    """

    def __init__(self, owner: type, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner, self._name = owner, name
        self._original = owner.__dict__[name]
        self._replacement = around(self._original)
        self._users = 0

    def open(self) -> None:
        """Replace the function, if it is not yet."""
        if self._users == 0:
            setattr(self._owner, self._name, self._replacement)
        self._users += 1

    def close(self) -> None:
        """Put the original back, if nobody else needs the replacement."""
        self._users -= 1
        if self._users == 0 and self._owner.__dict__[self._name] is self._replacement:
            setattr(self._owner, self._name, self._original)


def _nobody(name: str, value: torch.Tensor) -> None:
    """Take what a copy of a watch would give."""
