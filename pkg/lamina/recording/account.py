"""What was to be captured against what was: a recorder that captures nothing says so."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable

from lamina.errors import LaminaWarning, RecordingError


class Account:
    """Compares the sites that were due with those that captured something, by source.

    Some sites are silent for a reason: an auxiliary head that runs in training alone. So a source whose first
    due step captures nothing at all raises at once, single silent sites warn then, and only sites that captured
    nothing in any source raise at the end. Sites that captured something in some of the steps alone (an expert that no
    token was sent to) are told of then, with how many.
    """

    def __init__(self) -> None:
        self._sources: set[str] = set()
        self._due: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._fired: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._awaited: set[tuple[str, str]] = set()
        self._warned: set[tuple[str, str]] = set()

    def add(self, source: str, due: Iterable[str], fired: Iterable[str], awaited: Iterable[str] = ()) -> None:
        """Book a step or a micro-batch of it, or a pass over data.

        Args:
            source: What it was.
            due: The sites that were due.
            fired: The sites that captured something.
            awaited: Of those that were due, the ones that a later micro-batch of the step may fill: they are missed
                when the next step begins.
        """
        fired = set(fired)
        awaited = set(awaited) - fired
        due = [site for site in due if site not in awaited] if awaited else list(due)
        # Not Counter.update: it is Python code, and steps that are short feel it.
        for counts, sites in (self._due[source], due), (self._fired[source], fired):
            for site in sites:
                counts[site] += 1
        if self._awaited:
            self._awaited -= {(source, site) for site in fired}
        self._awaited |= {(source, site) for site in awaited}
        if not due or source in self._sources:
            return
        self._sources.add(source)
        silent = [site for site in due if site not in fired]
        if len(silent) == len(due):
            raise _nothing_captured(silent, f"in the first step that was due (source {source!r})")
        if silent:
            error = _nothing_captured(silent, f"in the first step that was due (source {source!r})")
            warnings.warn(str(error), LaminaWarning, stacklevel=2)

    def begin_step(self) -> None:
        """Warn, once a site, of what the step before awaited and did not get."""
        if not self._awaited:
            return
        silent = sorted(site for _, site in self._awaited - self._warned)
        self._warned |= self._awaited
        self._miss()
        if silent:
            error = _nothing_captured(silent, "in a step that was due and has ended")
            warnings.warn(str(error), LaminaWarning, stacklevel=5)

    def close(self) -> None:
        """Warn of sites that captured in fewer steps than they were due in; raise RecordingError if one never did."""
        self._miss()
        fired = set[str]().union(*self._fired.values())
        silent = list(dict.fromkeys(site for due in self._due.values() for site in due if site not in fired))
        if silent:
            raise _nothing_captured(silent, "in all steps that were due")
        missed = [
            f"{site} in {self._fired[source][site]} of {count} (source {source!r})"
            for source, due in self._due.items()
            for site, count in due.items()
            if 0 < self._fired[source][site] < count
        ]
        if missed:
            shown = "; ".join(missed[:5]) + (f"; and {len(missed) - 5} more" if len(missed) > 5 else "")
            warnings.warn(
                f"sites captured in fewer steps than were due: {shown}: in the others "
                "nobody called them, or no gradient reached them",
                LaminaWarning,
                stacklevel=2,
            )

    def _miss(self) -> None:
        for source, site in sorted(self._awaited):
            self._due[source][site] += 1
        self._awaited.clear()


def _nothing_captured(sites: list[str], when: str) -> RecordingError:
    if all(site.endswith((".grad", ".update")) for site in sites):
        return RecordingError(
            f"nothing was captured at {', '.join(sites)} {when}",
            hint="gradients are there if the backward pass runs inside of the step and reaches the site; those of "
            "parameters, and updates, if the optimizer steps in it; without optimizer= they have to stand at its end",
        )
    return RecordingError(
        f"nothing was captured at {', '.join(sites)} {when}",
        hint="either forward of that module is never called (its weights may be used directly, or the step calls "
        "another model), or the model was compiled and called before recording began: compiled code does not see "
        "hooks that come later, so call torch.compiler.reset() first",
    )
