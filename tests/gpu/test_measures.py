"""Rows on a GPU give every measure the value that they give on the CPU."""

from __future__ import annotations

import pytest

from lamina.rows import Rows
from tests.measures.cases import CASES
from tests.measures.test_registered import NAMES, OWN, call

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", NAMES)
def test_rows_on_a_gpu(name: str) -> None:
    each, given = OWN[name], CASES[name].draw(0)
    expected = call(each, given)
    sides = [key for key in ("x", "y") if key in given]
    assert call(each, given | {key: given[key].cuda() for key in sides}) == expected
    assert call(each, given | {key: Rows.of(given[key]).to("cuda") for key in sides}) == expected
    assert call(each, given | {key: Rows.of(given[key].cuda()).to("cuda") for key in sides}) == expected
