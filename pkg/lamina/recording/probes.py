"""Probes: the same data through the model at many steps, with no effect on the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.errors import RecordingError
from lamina.recording.account import Account
from lamina.recording.passes import Data, check_data, record_pass
from lamina.recording.sameness import Sameness
from lamina.recording.schedules import Every, Schedule, schedule_of
from lamina.recording.watching import AnyTap, PassTap, Taps

if TYPE_CHECKING:
    from torch import nn

    from lamina.recording.guarded import GuardedWriter


@dataclass(frozen=True)
class Probe:
    """Data that a recorder passes through the model on a schedule of its own.

    Args:
        data: A loader, a list of batches, or one batch; see the `probes` of `lamina.record`.
        every: At which steps; all of the recorder's sites are taken then. None takes those at which a site is
            due, and the sites that are.
        mask: The entry of the batches (mappings) that is true for what is no padding, such as `"attention_mask"`: rows
            where it is false are dropped. The model gets it too.

    Example:
        >>> import lamina, torch
        >>> probes = {"validation": lamina.Probe(torch.ones(16, 4), every=100)}
    """

    data: Data
    every: Every | None = None
    mask: str | None = None


class Probes:
    """The probes of one recorder, by name."""

    def __init__(self, given: Mapping[str, Data | Probe]) -> None:
        self._probes: dict[str, tuple[Probe, Schedule | None, Sameness]] = {}
        for name, one in given.items():
            probe = one if isinstance(one, Probe) else Probe(one)
            if name in ("train", "capture"):
                raise RecordingError(f"a probe cannot be named {name!r}", hint="that is the source of other rows")
            check_data(f"the probe {name!r}", probe.data)
            self._probes[name] = probe, None if probe.every is None else schedule_of(probe.every), Sameness(name)

    @property
    def names(self) -> list[str]:
        """What the probes are called."""
        return list(self._probes)

    def run(
        self,
        model: nn.Module,
        step: int,
        due: list[AnyTap] | None,
        *,
        taps: Taps,
        account: Account,
        writer: GuardedWriter,
    ) -> None:
        """Pass the probes that are due at `step` through the model.

        Args:
            model: The model.
            step: The step.
            due: The taps that are due; None is the final state, at which all probes and all taps are.
            taps: The recorder's.
            account: The recorder's.
            writer: Where to write.

        Raises:
            RecordingError: If a probe is empty, captures nothing, or gives other data than the first time; of these
                nothing is written.
        """
        if not self._probes:
            return
        every = taps.of_passes
        for name, (probe, schedule, sameness) in self._probes.items():
            asked: list[PassTap] = every
            if due is not None:
                if schedule is None:
                    asked = [tap for tap in every if tap in due]
                elif not schedule.due(step):
                    asked = []
            if not asked:
                continue
            sameness.begin(step)
            record_pass(
                model,
                probe.data,
                taps=taps,
                due=asked,
                account=account,
                writer=writer,
                step=step,
                source=name,
                mask=probe.mask,
                sameness=sameness,
                description=f"the probe {name!r}",
            )
