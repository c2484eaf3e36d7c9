from __future__ import annotations

import os.path

import pytest

from tests.faults import broken, fault, table


@pytest.fixture
def registered(monkeypatch):
    """A fault that says that no path exists, registered for one test."""
    monkeypatch.setattr(table, "FAULTS", {})

    @fault
    def nothing_exists(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(os.path, "exists", lambda path: False)


@pytest.mark.usefixtures("registered")
def test_a_fault_holds_inside_the_block_and_is_gone_behind_it():
    with broken("nothing_exists"):
        assert not os.path.exists("/")  # noqa: PTH110
    assert os.path.exists("/")  # noqa: PTH110


@pytest.mark.usefixtures("registered")
def test_a_fault_is_gone_after_an_exception_too():
    with pytest.raises(RuntimeError, match="on purpose"), broken("nothing_exists"):
        raise RuntimeError("on purpose")
    assert os.path.exists("/")  # noqa: PTH110


@pytest.mark.usefixtures("registered")
def test_two_faults_of_one_name_are_refused():
    with pytest.raises(AssertionError, match="nothing_exists"):

        @fault
        def nothing_exists(patch: pytest.MonkeyPatch) -> None: ...


def test_an_unknown_fault_is_an_error():
    with pytest.raises(KeyError), broken("no such fault"):
        pass
