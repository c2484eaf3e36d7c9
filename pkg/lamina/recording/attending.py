"""Taps on attention: statistics of what the attention modules of a model do, while armed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from lamina.errors import RecordingError
from lamina.modules.wrappers import PlainNames
from lamina.recording.attention import interface, multihead
from lamina.recording.attention.inputs import known
from lamina.recording.attention.watch import Detour, Receive, Watch
from lamina.runs.nearest import nearest_names


class AttentionTaps:
    """Watches every attention module of a model and hands on statistics of its calls.

    Queries and keys are taken on their way to the attention itself, which runs untouched: the model's outputs stay
    the same bit for bit, and no matrix of weights is built. A site is named `<path of the module>.<statistic>`. As a
    context manager it attaches to the modules and leaves everything as it came; until `arm` it is idle, which costs
    about a microsecond a call. Compiled code has to be compiled, by its first call, while the taps are attached; they
    can then be armed and disarmed without being compiled anew. A recomputation in a backward pass does not count.

    Args:
        model: A model out of Transformers, or with `torch.nn.MultiheadAttention` inside.
        statistics: Names out of `lamina.recording.attention.STATISTICS`.
        receive: Called as `receive(site, values)` at each call of a module for each statistic that is armed, with
            [batch, queries, heads], for `received` [batch, keys, heads]; see `attention.statistics`.

    Raises:
        RecordingError: If a statistic is not known, the model has no attention of a known kind, or its implementation
            (flash, flex) hides how keys are masked; `__enter__` raises if somebody else records this attention.

    Cost: a call that is armed takes the product of queries and keys once more, twice for `received`.

    Example:
        >>> import torch
        >>> from lamina.recording.attending import AttentionTaps
        >>> model = torch.nn.TransformerEncoderLayer(8, nhead=2, batch_first=True)
        >>> got = {}
        >>> with AttentionTaps(model, ["entropy"], got.__setitem__) as taps:
        ...     taps.arm()
        ...     _ = model(torch.zeros(4, 5, 8))
        >>> taps.names(), got["self_attn.entropy"].shape
        (['self_attn.entropy'], torch.Size([4, 5, 2]))
    """

    def __init__(self, model: nn.Module, statistics: Iterable[str], receive: Receive) -> None:
        self._statistics, names = known(statistics), PlainNames(model)
        self._watches: list[Watch] = []
        self._detours: list[Detour] = []
        self._opened: list[Detour] = []
        for path, module in interface.find(model):
            watch = interface.InterfaceWatch(module, names.of(path), receive)
            watch.check()
            self._watches.append(watch)
        if self._watches:
            self._detours.append(interface.detour())
        plain = [multihead.MultiheadWatch(module, names.of(path), receive) for path, module in multihead.find(model)]
        if plain:
            self._watches += plain
            self._detours += multihead.detours()
        if not self._watches:
            raise RecordingError(
                f"{type(model).__name__} has no attention of a known kind",
                hint="known: torch.nn.MultiheadAttention, and models of Transformers that call its attention interface",
            )

    def names(self) -> list[str]:
        """Return the sites, module by module."""
        return [name for watch in self._watches for name in self._of(watch)]

    def arm(self, names: Iterable[str] | None = None) -> None:
        """Hand on the statistics of some sites, or of all, and of no others, until `disarm`.

        Args:
            names: Sites out of `names()`; None takes all.

        Raises:
            RecordingError: If a name is no site; the hint lists the nearest.
        """
        every = self.names()
        wanted = set(every if names is None else names)
        for name in wanted - set(every):
            raise RecordingError(f"{name!r} is no site of attention", hint=nearest_names(name, every))
        for watch in self._watches:
            watch.due = tuple(statistic for name, statistic in self._of(watch).items() if name in wanted)

    def disarm(self) -> None:
        """Make all taps idle."""
        for watch in self._watches:
            watch.due = ()

    def __enter__(self) -> AttentionTaps:
        """Attach to all modules, or to none."""
        try:
            for detour in self._detours:
                detour.open()
                self._opened.append(detour)
            for watch in self._watches:
                watch.attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave all modules, and the classes they call, as they came."""
        for watch in self._watches:
            watch.detach()
        while self._opened:
            self._opened.pop().close()

    def _of(self, watch: Watch) -> dict[str, str]:
        prefix = f"{watch.name}." if watch.name else ""
        return {prefix + statistic: statistic for statistic in self._statistics}
