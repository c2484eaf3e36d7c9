"""Faults of questions about rows and codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.table import fault


@fault
def vectors_before_metadata(patch: pytest.MonkeyPatch) -> None:
    """The wide frame fetches vectors first and filters afterwards."""
    from lamina.runs.scan import predicates, scan

    patch.setattr(scan, "split", lambda predicate, metadata: predicates.split(predicate, ()))


@fault
def scan_ignores_the_number_of_rows(patch: pytest.MonkeyPatch) -> None:
    """The wide frame gives every row, however few were asked for."""
    from lamina.runs.scan import Scan

    whole = Scan._batches
    patch.setattr(
        Scan, "_batches", lambda self, columns, predicate, n, size: whole(self, columns, predicate, None, size)
    )


@fault
def features_are_counted_from_one(patch: pytest.MonkeyPatch) -> None:
    """What asks for features gets their neighbors."""
    import numpy as np

    from lamina.runs.scan import Features
    from lamina.runs.scan.units import Units

    passing, of = Features._passing, Units.of

    def shifted(self: Features, terms: list[Any]) -> Any:
        found = passing(self, terms)
        return None if found is None else np.sort((found + 1) % self.width)

    def of_neighbors(self: Units, groups: Any, positions: Any, features: Any, *rest: Any) -> Any:
        return of(self, groups, positions, None if features is None else np.unique(abs(features - 1)), *rest)

    patch.setattr(Features, "_passing", shifted)
    patch.setattr(Units, "of", of_neighbors)


@fault
def features_forget_their_rows(patch: pytest.MonkeyPatch) -> None:
    """Units of a batch have the metadata of the rows before theirs."""
    from lamina.runs.scan.units import Units

    whole = Units.walk

    def shifted(self: Units, early: Any, cells: list[str], *rest: Any) -> Iterator[Any]:
        for units in whole(self, early, cells, *rest):
            yield units.with_columns(units.select(cells).reverse())

    patch.setattr(Units, "walk", shifted)


@fault
def features_count_the_rows_of_one_group(patch: pytest.MonkeyPatch) -> None:
    """Densities are of the rows of the first group."""
    from lamina.runs.scan import Features

    patch.setattr(Features, "rows", property(lambda self: self.scan.holding[0].rows))


@fault
def indexes_answer_for_all(patch: pytest.MonkeyPatch) -> None:
    """Where one segment is indexed, the others are taken to hold nothing."""
    import numpy as np

    from lamina.runs.scan.indexed import Indexed

    patch.setattr(Indexed, "answers", lambda self, groups: np.ones(groups.size, dtype=bool))


@fault
def indexes_are_off_by_a_row(patch: pytest.MonkeyPatch) -> None:
    """Units are looked up by the name after their row's."""
    from lamina.runs.scan.indexed import Indexed

    whole = Indexed.of
    patch.setattr(Indexed, "of", lambda self, rows: whole(self, rows + 1))


@fault
def rows_that_are_found_are_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Rows are found by their names one place before their own."""
    import numpy as np

    from lamina.runs.scan.groups import Span

    whole = Span.find

    def shifted(self: Span, names: Any) -> Any:
        which, at = whole(self, names)
        return which, np.maximum(at - 1, 0)

    patch.setattr(Span, "find", shifted)


@fault
def scan_shows_what_is_hidden(patch: pytest.MonkeyPatch) -> None:
    """The wide frame forgets rewinds and deletes."""
    from lamina.runs.scan.cells import Cells

    patch.setattr(Cells, "hidden", lambda self, group, site=None: None)


@fault
def zone_maps_off(patch: pytest.MonkeyPatch) -> None:
    """No group is passed over. Not a defect: what zone maps are compared with."""
    from lamina.runs.scan import Scan, predicates

    patch.setattr(Scan, "_promising", lambda self, early: self.groups)
    patch.setattr(predicates, "remembered", lambda predicate: None)


def _zones_say(patch: pytest.MonkeyPatch, *, change: Callable[[Any], Any]) -> None:
    """What a wide frame knows of its columns is changed before it is used."""
    from lamina.runs.scan import Cells

    whole = Cells._column_zones
    patch.setattr(Cells, "_column_zones", lambda self, column: change(whole(self, column)))


@fault
def zones_forget_nulls(patch: pytest.MonkeyPatch) -> None:
    """Zone maps do not say that there are nulls."""
    _zones_say(patch, change=lambda frame: frame.with_columns(nulls=frame["nulls"] * 0))


@fault
def zones_forget_nan(patch: pytest.MonkeyPatch) -> None:
    """Zone maps do not say that there is NaN."""
    _zones_say(patch, change=lambda frame: frame.with_columns(nans=frame["nans"] * 0))


@fault
def zones_cut_the_greatest(patch: pytest.MonkeyPatch) -> None:
    """The greatest text is cut as the least is, not rounded up: it is less than what it stands for."""
    _zones_say(patch, change=lambda frame: frame.with_columns(greatest=frame["greatest"].str.head(8)))
