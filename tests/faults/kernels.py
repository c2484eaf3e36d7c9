"""Faults of what all kernels share."""

from __future__ import annotations

import pytest

from tests.faults.table import fault


@fault
def aot_forgets_the_attributes(patch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled without the attributes that the launcher finds: another kernel, which never runs."""
    from tests.kernels.aot import compiling

    whole = compiling.ASTSource
    patch.setattr(compiling, "ASTSource", lambda **arguments: whole(**arguments | {"attrs": {}}))
