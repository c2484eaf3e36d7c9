from __future__ import annotations

import polars as pl
import pytest
import torch

from lamina.demo import documentation
from lamina.demo.documentation import WINDOW, batches, columns
from lamina.demo.minilm import MiniLM, texts
from tests.faults import broken

CHOSEN = ("assert", "assignment", "id-classes", "types")


def chosen() -> dict[str, str]:
    return {name: texts()[name] for name in CHOSEN}


def test_the_tokens_of_a_topic_spell_its_text(encoder: MiniLM) -> None:
    table = columns(documentation.windows(chosen(), encoder.tokenizer))
    for topic, text in chosen().items():
        tokens = table.filter(pl.col("topic") == topic, pl.col("topic_position").is_not_null()).sort("topic_position")
        assert tokens["topic_position"].to_list() == list(range(tokens.height))
        # The encoder knows no capitals and no spaces; what it does not know at all, it calls [UNK].
        spelled = tokens["token"].str.strip_prefix("##").str.join("").item()
        assert "[UNK]" not in spelled
        assert spelled == "".join(text.lower().split())


def test_tokens_that_count_from_their_window_are_noticed(encoder: MiniLM) -> None:
    with broken("windows_forget_where_they_begin"), pytest.raises(AssertionError):
        test_the_tokens_of_a_topic_spell_its_text(encoder)


def test_every_window_is_full_but_the_last_of_its_topic_and_stands_between_marks(encoder: MiniLM) -> None:
    parts = documentation.windows(chosen(), encoder.tokenizer)
    assert list(dict.fromkeys(part.topic for part in parts)) == sorted(CHOSEN)
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        assert (part.tokens[0], part.tokens[-1]) == ("[CLS]", "[SEP]")
        assert part.ids == [encoder.tokenizer.token_to_id(token) for token in part.tokens]
        last = after is None or after.topic != part.topic
        assert 2 < len(part.ids) <= WINDOW if last else len(part.ids) == WINDOW


def test_a_row_of_the_table_is_a_token_of_a_window(encoder: MiniLM) -> None:
    parts = documentation.windows(chosen(), encoder.tokenizer)
    table = columns(parts)
    assert table.height == sum(len(part.ids) for part in parts)
    for number, rows in table.group_by("example"):
        part = parts[int(str(number[0]))]
        assert rows["position"].to_list() == list(range(len(part.ids)))
        assert rows["token"].to_list() == part.tokens
        assert rows["topic"].unique().to_list() == [part.topic]


def test_batches_hold_every_window_once_in_order_and_none_is_padded(encoder: MiniLM) -> None:
    parts = documentation.windows(chosen(), encoder.tokenizer)
    shown = batches(parts)
    assert [number for batch in shown for number in batch["example"]] == list(range(len(parts)))
    for batch in shown:
        ids: torch.Tensor = batch["input_ids"]
        assert len(ids) <= 8
        assert ids.tolist() == [parts[number].ids for number in batch["example"]]
    assert max(len(batch["example"]) for batch in shown) > 1


def test_of_every_third_window_the_number_stays(encoder: MiniLM) -> None:
    parts = documentation.windows(chosen(), encoder.tokenizer)
    shown = batches(parts, every=3)
    assert [number for batch in shown for number in batch["example"]] == list(range(0, len(parts), 3))
    for batch in shown:
        assert batch["input_ids"].tolist() == [parts[number].ids for number in batch["example"]]


def test_topics_are_the_first_by_name() -> None:
    assert list(texts(3)) == sorted(texts())[:3]
    assert len(texts()) > 70
