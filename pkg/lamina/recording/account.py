"""What was to be captured against what was: a recorder that captures nothing says so."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from lamina.errors import RecordingError
from lamina.runs import LaminaWarning


class Account:
    """Compares the sites that were due with those that captured something, by source.

    Some sites are silent for a reason: an auxiliary head that runs in training alone. So a source whose first
    due step captures nothing at all raises at once, single silent sites warn then, and only sites that captured
    nothing in any source raise at the end.
    """

    def __init__(self) -> None:
        self._sources: set[str] = set()
        self._due: dict[str, None] = {}
        self._fired: set[str] = set()

    def add(self, source: str, due: Iterable[str], fired: Iterable[str]) -> None:
        """Book a step, or a pass over data: the sites that were due and those that captured something."""
        due, fired = list(due), set(fired)
        self._due.update(dict.fromkeys(due))
        self._fired |= fired
        if not due or source in self._sources:
            return
        self._sources.add(source)
        silent = [site for site in due if site not in fired]
        if len(silent) == len(due):
            raise _nothing_captured(silent, f"in the first step that was due (source {source!r})")
        if silent:
            error = _nothing_captured(silent, f"in the first step that was due (source {source!r})")
            warnings.warn(str(error), LaminaWarning, stacklevel=2)

    def close(self) -> None:
        """Raise RecordingError if a site was due and never captured anything."""
        silent = [site for site in self._due if site not in self._fired]
        if silent:
            raise _nothing_captured(silent, "in all steps that were due")


def _nothing_captured(sites: list[str], when: str) -> RecordingError:
    if all(site.endswith(".grad") for site in sites):
        return RecordingError(
            f"nothing was captured at {', '.join(sites)} {when}",
            hint="gradients are there if the backward pass runs inside of the step and reaches the site; those of "
            "parameters if the optimizer steps in it, or they still stand at its end",
        )
    return RecordingError(
        f"nothing was captured at {', '.join(sites)} {when}",
        hint="either forward of that module is never called (its weights may be used directly, or the step calls "
        "another model), or the model was compiled and called before recording began: compiled code does not see "
        "hooks that come later, so call torch.compiler.reset() first",
    )
