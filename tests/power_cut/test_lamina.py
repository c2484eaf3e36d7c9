"""What Lamina acknowledged survives a power cut, on real file systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.power_cut.cutting import cut_repeatedly, library_without_syncs
from tests.power_cut.image import KINDS, Image, obstacle

pytestmark = pytest.mark.root


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if reason := obstacle(request.param):
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("cuts", [3, pytest.param(100, marks=[pytest.mark.power_cut, pytest.mark.timeout(1800)])])
def test_no_cut_loses_what_was_acknowledged(kind: str, cuts: int, tmp_path: Path) -> None:
    with Image(kind, tmp_path) as image:
        account = cut_repeatedly(image, cuts)
    print(f"{kind}: {account.cuts} cuts, {account.acknowledged} acknowledged steps")
    assert account.lost == []
    assert account.acknowledged > 2 * cuts


def test_a_writer_whose_syncs_do_nothing_loses_what_was_acknowledged(kind: str, tmp_path: Path) -> None:
    with Image(kind, tmp_path) as image:
        account = cut_repeatedly(image, 3, preload=library_without_syncs(tmp_path), fresh=True)
    assert len(account.lost) > 0
