"""Faults of mutual information."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def ksg_counts_its_neighbor(patch: pytest.MonkeyPatch) -> None:
    """The k-th neighbor itself counts as nearer than the k-th neighbor."""
    from importlib import import_module

    import numpy as np

    room = import_module("lamina.information.ksg")
    whole = room.Strips
    patch.setattr(room, "Strips", lambda z, radii, codes: whole(z, np.nextafter(radii, np.inf), codes))


@fault
def ksg_leaves_ties(patch: pytest.MonkeyPatch) -> None:
    """Numbers that tie stay where they are."""
    from importlib import import_module

    patch.setattr(import_module("lamina.information.ksg"), "_moved", lambda sides, seed: sides)


@fault
def ksg_takes_terms_for_independent(patch: pytest.MonkeyPatch) -> None:
    """The error forgets what a row does to the terms of others."""
    from importlib import import_module

    from lamina.information.strips import Strips

    patch.setattr(import_module("lamina.information.ksg"), "IN_DEGREE", 0.0)
    patch.setattr(Strips, "reach", lambda self, weights: 0.0 * weights)


@fault
def strips_trust_rounded_sums(patch: pytest.MonkeyPatch) -> None:
    """Whether a row lies within a distance is asked of a rounded sum."""
    import numpy as np

    from lamina.information import strips

    def rounded(values: Any, radii: Any) -> Any:
        ascending = np.sort(values)
        low, high = np.searchsorted(ascending, values - radii), np.searchsorted(ascending, values + radii, "right")
        return np.argsort(np.argsort(values)), low, high

    patch.setattr(strips, "_span", rounded)


@fault
def neighbors_are_of_any_group(patch: pytest.MonkeyPatch) -> None:
    """Neighbors are looked for in the row's own group too."""
    from importlib import import_module

    import numpy as np

    room = import_module("lamina.information.ksg")
    whole = room.nearest
    patch.setattr(room, "nearest", lambda z, k, codes: whole(z, k, np.arange(len(z))))


@fault
def ksg_forgets_the_nearest(patch: pytest.MonkeyPatch) -> None:
    """The nearest neighbor is passed over, as if it were the row itself."""
    from importlib import import_module

    room = import_module("lamina.information.ksg")
    whole = room.nearest
    patch.setattr(room, "nearest", lambda z, k, codes: tuple(found[:, 1:] for found in whole(z, k + 1, codes)))
