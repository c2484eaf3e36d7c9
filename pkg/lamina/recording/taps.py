"""Forward hooks that cost next to nothing while they are not armed, compiled models included."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.autograd import backward_pass
from lamina.recording.captured import Collector
from lamina.recording.elements import select
from lamina.recording.sites import ResolvedSite

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

_MANY = 100
"""Training calls without a step that are no trial any more."""

_keys = itertools.count()
_attached: dict[int, _Hook] = {}

# The operator writes to `_order`, so that nothing removes a call or swaps two of them; `_nothing` stands for a
# tensor where none is meant.
_order = torch.zeros(0, device="cpu")
_nothing = torch.zeros(0, device="cpu")


@torch.library.custom_op(
    "lamina::tap", mutates_args=("order",), schema="(Tensor value, Tensor(a!) order, Tensor key) -> ()"
)
def _tap(value: torch.Tensor, order: torch.Tensor, key: torch.Tensor) -> None:
    hook = _attached.get(int(key))
    if hook is None:
        return
    if hook.armed:
        hook.receive(value)
    else:
        hook.pass_over()


@_tap.register_fake
def _(value: torch.Tensor, order: torch.Tensor, key: torch.Tensor) -> None:
    return None


class _Hook:
    """A hook that stays on its module while the recorder lives and reads a flag when it is called.

    In eager mode the flag is an attribute. torch.compile would turn that into a guard and compile anew whenever
    it changes, so compiled code calls an operator instead, which finds the hook by its key and reads the flag at
    run time. The operator claims to change a tensor, or it would be removed as unused.

    A copy of a model (`copy.deepcopy` for a moving average, `pickle`) carries copies of its hooks; these belong to
    no recorder and stay idle for good.
    """

    def __init__(self, collector: Collector) -> None:
        self.armed = False
        self._collector = collector
        # A tensor: a number would be a constant of the compiled code, and layers that are compiled one by one would
        # share none of it.
        self._key = torch.tensor(next(_keys), device="cpu")
        self._handle: RemovableHandle | None = None

    def attach(self) -> None:
        _attached[int(self._key)] = self
        self._handle = self._register()

    def disarm(self) -> None:
        self.armed = False

    def detach(self) -> None:
        self.disarm()
        _attached.pop(int(self._key), None)
        if self._handle is not None:
            self._handle.remove()

    def receive(self, value: torch.Tensor) -> None:
        # A recomputation is no call.
        if backward_pass() is None:
            self._collect(value)

    def pass_over(self) -> None:
        """Be called while idle, by compiled code."""

    def _register(self) -> RemovableHandle:
        raise NotImplementedError

    def _collect(self, value: torch.Tensor) -> None:
        raise NotImplementedError


class Tap(_Hook):
    """Copies the input or the output of a module, or the gradient that flows back to it, to a collector while armed."""

    expected = True

    def __init__(self, site: ResolvedSite, collector: Collector) -> None:
        super().__init__(collector)
        self.site = site
        self._unhooked: list[tuple[int, int]] = []

    def __reduce__(self) -> tuple[type[Tap], tuple[ResolvedSite, Collector]]:
        return Tap, (ResolvedSite(self.site.name, nn.Identity(), self.site.kind, self.site.path), Collector())

    def _register(self) -> RemovableHandle:
        # A hook on a tensor cannot be a part of compiled code: the graph ends here, and under fullgraph it raises.
        before: Any = torch.compiler.disable(self._before) if self.site.gradient else self._before
        after: Any = torch.compiler.disable(self._after) if self.site.gradient else self._after
        if self.site.kind == "input":
            return self.site.module.register_forward_pre_hook(before, with_kwargs=True)
        return self.site.module.register_forward_hook(after)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            _tap(self._select(dict(enumerate(args)) | kwargs).detach(), _order, self._key)
        elif self.armed:
            self.receive(self._select(dict(enumerate(args)) | kwargs))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            _tap(self._select(output).detach(), _order, self._key)
        elif self.armed:
            self.receive(self._select(output))

    def receive(self, value: torch.Tensor) -> None:
        """Collect a value that the module takes or gives, or hook it for its gradient."""
        if self.site.gradient:
            self._await_gradient(value)
        else:
            super().receive(value)

    def _select(self, value: Any) -> torch.Tensor:
        return select(value, self.site.path, self.site.name)

    def _collect(self, value: torch.Tensor, call: tuple[int, int] | None = None) -> None:
        value = value if self.site.part is None else self.site.part(value)
        self._collector.take(self.site.name, value, options=self.site.options, call=call)

    def _await_gradient(self, value: torch.Tensor) -> None:
        """Hook a tensor, so that its gradient is collected as that of this call.

        Reentrant checkpointing runs the forward pass without gradients first, and again inside the backward pass:
        it is the second one's tensors that gradients flow to.
        """
        if backward_pass() is None:
            call = self._collector.next_call(self.site.name)
            if not value.requires_grad:
                self._unhooked.append(call)
                return
        elif self._unhooked and value.requires_grad:
            call = self._unhooked.pop()
            if any(batch == call[1] for _, batch in self._unhooked):
                raise RecordingError(
                    f"the module of {self.site.name!r} is called several times in a batch under reentrant "
                    "checkpointing",
                    hint="its gradients cannot be told apart: use torch.utils.checkpoint with use_reentrant=False",
                )
        else:
            return
        step = self._collector.step

        def collect(gradient: torch.Tensor) -> None:
            if self._collector.step == step:
                self._collect(gradient, call)

        value.register_hook(collect)

    def disarm(self) -> None:
        """Be idle, and await no recomputation of this step."""
        self.armed = False
        self._unhooked.clear()


class BatchCounter(_Hook):
    """Counts the calls of the whole model while armed: each is a batch, or a micro-batch, of the step.

    Attributes:
        unseen: How many training calls came while it was idle; None if they are not counted.
    """

    def __init__(self, model: nn.Module, collector: Collector) -> None:
        super().__init__(collector)
        self._model = model
        self._start = 0
        self.unseen: int | None = None

    def __reduce__(self) -> tuple[type[BatchCounter], tuple[nn.Module, Collector]]:
        return BatchCounter, (nn.Identity(), Collector())

    def _register(self) -> RemovableHandle:
        return self._model.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            _tap(_nothing, _order, self._key)
        elif self.armed:
            # Cached decoding: the first position of this call stands behind those that the cache holds.
            cache: Any = kwargs.get("past_key_values")
            self._start = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
            self.receive(_nothing)
        else:
            self.pass_over()

    def pass_over(self) -> None:
        """Count a training call that nobody records, and say so once there are many."""
        if self.unseen is None or not self._model.training:
            return
        self.unseen += 1
        if self.unseen == _MANY:
            self.warn_of_unseen()

    def warn_of_unseen(self) -> None:
        """Warn of the training calls that nobody recorded, and count no more."""
        text = f"the model was called {self.unseen} times in training mode and no step was entered: nothing is recorded"
        warnings.warn(f"{text} (write `with recorder.step(step):` around each step)", LaminaWarning, stacklevel=2)
        self.unseen = None

    def _collect(self, value: torch.Tensor) -> None:
        self._collector.count_batch(self._start)
