"""The questions of docs/queries.md find what was planted."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from tests.demo.asked import PAGE, answers, written
from tests.demo.planted import ALIVE, DIES, FLOW, FOLLOWS, OWN, PAIR, RISES, STRINGS, UNITS, WORDS, planted

STRING = WORDS.index("string")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers, by the first five words of their questions."""
    folder = tmp_path_factory.mktemp("asked")
    planted(folder)
    return {" ".join(text.split()[:5]): answer for text, answer in answers(folder).items()}


def test_there_are_fifteen_and_each_has_its_answer_on_the_demo(found: dict[str, Any]) -> None:
    assert len(found) == 15
    parts = PAGE.read_text().split("\n## ")[1:]
    assert len(parts) == 15
    assert all(part.strip().splitlines()[-1].startswith(("|", "`")) for part in parts)


def test_words_and_features_find_each_other(found: dict[str, Any]) -> None:
    fires = found["What fires on this word,"]
    assert fires.row(0, named=True) | {"value": 0} == {"feature": STRING, "value": 0, "share": 1.0}
    assert found["On which words does a"].select("token", "mean").rows() == [("string", 9.0)]
    near = found["Where does it fire most"]
    assert near.select("rank", "value").rows() == [(1, 9.0), (2, 9.0), (3, 9.0)]
    assert all("string" in text for text in near["text"])
    assert found["At which step did a"].rows() == [(16, 1.0)]


def test_counts_over_all_rows_are_those_that_were_planted(found: dict[str, Any]) -> None:
    density = found["How many features are dead,"].row(0, named=True)
    assert (density["dead"], density["most"]) == (UNITS - ALIVE, 1.0)
    assert found["Which words does one feature"]["share"].is_between(0.7, 0.9).all()
    assert found["Which features follow the position"].row(0)[::2] == (FOLLOWS, pytest.approx(1.0))
    assert found["Which features fire together?"].row(0)[:2] == PAIR
    assert found["Which features belong to a"].row(0)[:2] == (STRINGS, "strings")
    assert found["Which features tell my own"]["feature"][0] == FLOW


def test_what_happens_over_training_is_what_was_planted(found: dict[str, Any]) -> None:
    assert found["Which features died between these"]["feature"].to_list() == [DIES]
    assert RISES in found["Which rose when the loss"]["feature"]
    assert found["Where do two seeds disagree"]["feature"][0] == OWN


def test_directions_and_activations_belong_together(found: dict[str, Any]) -> None:
    assert found["Does a feature point where"] > 0.9
    assert found["How much of the layer"].value > 0.5


def test_an_answer_is_written_as_a_table() -> None:
    frame = pl.DataFrame({"token": ["a|b"], "share": [0.12345]})
    assert written(frame) == "| token | share |\n| --- | --- |\n| a\\|b | 0.123 |"
    assert written(0.5) == "`0.5`"
