"""Faults of sweeps."""

from __future__ import annotations

import pytest

from tests.faults.table import fault


@fault
def sweeps_know_rows_by_site_and_step(patch: pytest.MonkeyPatch) -> None:
    """A cell's key holds where its rows lie, and not which they are."""
    from lamina.sweeps.names import Names

    patch.setattr(Names, "_identity", lambda self, site, step, names: f"{self._run.id} {site} {step}".encode())


@fault
def sweeps_forget_the_code(patch: pytest.MonkeyPatch) -> None:
    """A cell's key holds the measure's name, and not what it does."""
    from lamina.sweeps import estimating

    patch.setattr(estimating, "fingerprint", lambda function: function.__name__.encode())


@fault
def sweeps_take_rows_of_all_steps(patch: pytest.MonkeyPatch) -> None:
    """A subject gives the rows of all steps."""
    from lamina.sweeps.subjects import Chosen

    patch.setattr(Chosen, "value", lambda self, site, step: self.run.rows(site, source=self.source, where=self.where))
