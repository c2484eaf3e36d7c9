"""Which runs a report may average: those of one kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina.runs import Run


def kinds_of(runs: list[Run]) -> list[list[Run]]:
    """Divide runs into kinds by the names of their sites, in the order of their first runs.

    Two runs are of one kind if the sites of one are all among those of the other; so a run that was interrupted before
    all its sites were recorded stands with those that were not.
    """
    sites = [frozenset(run.sites()["site"]) for run in runs]
    kinds: list[list[int]] = []
    for k in sorted(range(len(runs)), key=lambda k: -len(sites[k])):
        kind = next((kind for kind in kinds if sites[k] <= sites[kind[0]]), None)
        if kind is None:
            kinds.append([k])
        else:
            kind.append(k)
    return [[runs[k] for k in sorted(kind)] for kind in sorted(kinds, key=min)]
