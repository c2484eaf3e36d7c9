from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina.cli.query import answer, shown_answer


def records(done) -> list[dict]:
    assert done.code == 0, done.err
    return json.loads(done.out)


QUESTIONS = {
    "select step, value from metrics where name = 'train/loss' and step = 10": [{"step": 10, "value": 1 / 11}],
    "select site, rows from sites order by site": [{"site": "loss", "rows": 12}, {"site": "mlp.output", "rows": 12}],
    "select label, count(*) as n from examples group by label order by label": [
        {"label": "a", "n": 2},
        {"label": "b", "n": 2},
    ],
    "select step, part, tensor from checkpoints where step = 20": [{"step": 20, "part": "model", "tensor": "weight"}],
    "select step, max(loss) as worst from activations where source = 'validation' "
    "group by step order by step limit 1": [{"step": 0, "worst": 4.0}],
    "select label, sum(loss) as total from activations join examples using (example) where step = 0 "
    "group by label order by label": [{"label": "a", "total": 6.0}, {"label": "b", "total": 4.0}],
    "select step from metrics where step > 1000": [],
}


@pytest.mark.parametrize(("sql", "answer"), QUESTIONS.items())
def test_every_table_answers(command: Callable, recorded: Path, sql: str, answer: list[dict]) -> None:
    assert records(command("query", recorded, sql, "--json")) == answer


def test_json_has_null_for_nan_and_iso_dates(command: Callable, recorded: Path) -> None:
    (record,) = records(
        command("query", recorded, "select time, value from metrics where name = 'train/odd' limit 1", "--json")
    )
    assert record["value"] is None
    assert record["time"].endswith("+00:00")
    assert record["time"][10] == "T"


def test_json_prints_vectors_as_lists(command: Callable, recorded: Path) -> None:
    sql = 'select "mlp.output" from activations where step = 0 and example = 1'
    assert records(command("query", recorded, sql, "--json")) == [{"mlp.output": [3.0, 4.0, 5.0]}]


def test_a_table_shows_the_shape_of_vectors_in_their_place(command: Callable, recorded: Path) -> None:
    done = command("query", recorded, "select * from activations where step = 0 order by example")
    assert done.code == 0
    assert done.out.count("[3 x f32]") == 4


def test_a_table_does_not_read_vectors(recorded: Path) -> None:
    opened = lamina.open(recorded)
    frame, more = shown_answer(opened, 'select example, "mlp.output" from activations')
    assert (frame.height, more) == (12, False)
    assert frame["mlp.output"].unique().to_list() == ["[3 x f32]"]
    only, _ = shown_answer(opened, 'select "mlp.output" from activations where example = 2')
    assert only.height == 3
    _, read = opened._snapshot.bytes_read
    assert read == 0
    answer(opened, 'select "mlp.output" from activations')
    assert opened._snapshot.bytes_read[1] > 0


def test_a_damaged_block_is_an_error_that_names_the_file(command: Callable, recorded: Path) -> None:
    (segment,) = (recorded / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    values = np.arange(12, dtype=np.float32).tobytes()
    data[data.index(values) + 5] ^= 1
    segment.write_bytes(data)
    done = command("query", recorded, 'select "mlp.output" from activations', "--json")
    assert done.code == 1
    assert segment.name in done.err
    assert "Traceback" not in done.err


def test_a_long_answer_is_cut_and_says_so(command: Callable, tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "long")
    with run.writer() as writer:
        writer.append({"x": np.zeros(150)}, step=0)
    done = command("query", tmp_path / "long", "select row, x from activations")
    assert "first 100 rows" in done.err
    assert len(done.out.splitlines()) < 110
    assert len(records(command("query", tmp_path / "long", "select row from activations", "--json"))) == 150


@pytest.mark.parametrize("target", ["{}", "{}/*", "{}/seed-?"])
def test_several_runs_answer_with_a_column_run(command: Callable, several: Path, target: str) -> None:
    sql = "select run, value from metrics where step = 0 and name = 'train/loss' order by run"
    answer = records(command("query", target.format(several), sql, "--json"))
    assert [record["value"] for record in answer] == [1.0, 2.0]
    assert [Path(record["run"]).name for record in answer] == ["seed-0", "seed-1"]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("select * from metric", "metric"),
        ("select vallue from metrics", "vallue"),
        ("selec step from metrics", "selec"),
    ],
)
def test_wrong_sql_names_the_tables_and_their_columns(command: Callable, recorded: Path, sql: str, named: str) -> None:
    done = command("query", recorded, sql)
    assert done.code == 1
    assert done.out == ""
    assert named in done.err
    assert done.err.startswith("error: the query cannot be answered: ")
    assert "\N{REPLACEMENT CHARACTER}" not in done.err
    assert "metrics(" in done.err
    assert '"mlp.output"' in done.err
    assert "Traceback" not in done.err


def test_text_from_a_run_cannot_steer_the_terminal(command: Callable, tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "odd")
    with run.writer() as writer:
        writer.examples({"example": [0], "label": ["\x1b[31m[bold]red"]})
    done = command("query", tmp_path / "odd", "select label from examples")
    assert "\x1b" not in done.out
    assert "[31m[bold]red" in done.out
