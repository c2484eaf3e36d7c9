"""What the document's own reader finds in a run is what was put in, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import lamina
from tests.faults import broken
from tests.runs.test_states import STATES, views
from tests.store import reader
from tests.store.alike import assert_same, assert_same_state, put_together
from tests.store.planted import CONFIG, Planted, plant


def test_the_reader_finds_the_configuration(read: reader.Recorded) -> None:
    assert read.info["config"] == CONFIG


def test_the_reader_finds_every_cell_and_every_bit_of_every_site(read: reader.Recorded, planted: Planted) -> None:
    found = []
    for group in (group for group in read.groups if group.record[2] == 0):
        for at, uid in enumerate(group.columns["uid"]):
            cells = {name: values[at] for name, values in group.columns.items() if values[at] is not None}
            assert_same(cells | {"writer": group.writer}, planted.cells[uid], uid)
            assert {name: block[at].tobytes() for name, block in group.sites.items()} == planted.bits[uid]
            found.append(uid)
    assert sorted(found) == sorted(planted.cells)


def test_the_reader_finds_every_declared_site(read: reader.Recorded, planted: Planted) -> None:
    declared = {name: (dtype, shape) for name, dtype, shape in read.sites.values()}
    assert declared == {name: (dtype, shape) for name, (dtype, shape, _) in planted.sites.items()}


def test_the_groups_of_a_writer_number_their_rows_without_a_gap(read: reader.Recorded) -> None:
    following = {writer: writer << 40 for writer in read.writers}
    for group in read.groups:
        assert group.record[5] == following[group.writer]
        following[group.writer] += group.record[6]


def test_the_reader_finds_the_metrics(read: reader.Recorded, planted: Planted) -> None:
    found = [row[:1] + row[2:] for row in read.metrics]
    assert list(map(repr, found)) == list(map(repr, planted.metrics))


def test_the_reader_finds_of_each_example_what_was_written_last(read: reader.Recorded, planted: Planted) -> None:
    found = reader.examples(read)
    assert found.keys() == planted.examples.keys()
    for key, row in found.items():
        assert_same(dict.fromkeys(("example", "label", "weight", "hard")) | row, planted.examples[key], key)


def test_the_reader_finds_the_checkpoints(read: reader.Recorded, planted: Planted) -> None:
    found = {
        (step, part): put_together(*state) for step, parts in read.checkpoints.items() for part, state in parts.items()
    }
    assert found.keys() == planted.states.keys()
    for key, state in found.items():
        assert_same_state(state, planted.states[key], str(key))


def test_the_reader_finds_views_scalars_and_containers_of_every_kind(tmp_path: Path) -> None:
    with lamina.Run.create(tmp_path / "run").writer() as writer:
        writer.save({"views": views(), **STATES}, step=0)
    found = {part: put_together(*state) for part, state in reader.read(tmp_path / "run").checkpoints[0].items()}
    assert_same_state(found["views"], views(), "views")
    assert_same_state(found["scalars"], STATES["scalars"], "scalars")
    assert_same_state(found["bytes"], STATES["bytes"], "bytes")
    assert {key: list(value) for key, value in found["containers"].items()} == {
        key: list(value) for key, value in STATES["containers"].items()
    }
    assert found["torch"] == [(2, 0, 3), "bfloat16", "cuda:1", ()]
    assert found["numpy"][:3] == STATES["numpy"][:3]


def test_the_reader_finds_checkpoints_that_are_coded(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    random = np.random.default_rng(0)
    weight, states = 0.02 * random.standard_normal(300_000), []
    with run.writer() as writer:
        for step in range(9):
            states.append(
                {
                    "f32": weight.astype(np.float32),
                    "f16": weight.astype(np.float16),
                    "i32": np.arange(step, 9e4, dtype=np.int32),
                }
            )
            writer.save({"model": states[-1]}, step=step)
            weight = weight + 2e-6 * random.standard_normal(300_000)
    run.compact(progress=False)
    run.gc(grace=0, progress=False)
    run.gc(grace=0, progress=False)
    found = reader.read(tmp_path / "run")
    assert {step: set(parts) for step, parts in found.checkpoints.items()} == {step: {"model"} for step in range(9)}
    for step, state in enumerate(states):
        assert_same_state(put_together(*found.checkpoints[step]["model"]), state, str(step))
    stored = sum(file.stat().st_size for file in (tmp_path / "run" / "chunks").iterdir())
    assert stored < 0.8 * sum(value.nbytes for state in states for value in state.values())  # deltas, not planes alone


def test_the_reader_finds_what_became_of_each_writer(read: reader.Recorded) -> None:
    assert [writer["rank"] for writer in read.writers.values()] == [None, 3, None]
    assert [writer["error"] for writer in read.writers.values()] == [None, None, "RuntimeError('loss is NaN')"]


def test_the_comparison_notices_columns_that_lose_digits(tmp_path: Path) -> None:
    with broken("columns_are_rounded_to_single"):
        planted = plant(tmp_path / "run")
    with pytest.raises(AssertionError):
        test_the_reader_finds_every_cell_and_every_bit_of_every_site(reader.read(tmp_path / "run"), planted)


def test_the_comparison_notices_states_that_lose_digits(tmp_path: Path) -> None:
    with broken("scalars_are_printed_short"):
        planted = plant(tmp_path / "run")
    with pytest.raises(AssertionError):
        test_the_reader_finds_the_checkpoints(reader.read(tmp_path / "run"), planted)


@pytest.mark.parametrize(
    "file", ["segments/000001-000000.safetensors", "chunks/000001-000000.pack", "logs/000000.0000"]
)
def test_the_reader_notices_a_flipped_bit(path: Path, planted: Planted, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "run"))
    data = bytearray((copy / file).read_bytes())
    data[1 << 20 if file.startswith("segments") else 100] ^= 1
    (copy / file).write_bytes(data)
    with pytest.raises(reader.BrokenError, match=file):
        reader.read(copy)


def test_the_reader_finds_what_was_said_of_a_run(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    run.note("of all").note("of three", step=3).attach("w", np.arange(3)).attach("w", [np.arange(4.0), "x"]).attach(
        "b", b"ab"
    )
    run.rewind(0)
    found = reader.read(run.path)
    assert found.notes == [(time, step, text) for time, step, text in run._snapshot.notes()]
    assert [(step, text) for _, step, text in found.notes] == [(None, "of all"), (3, "of three")]
    assert found.attachments.keys() == {"w", "b"}
    assert not found.checkpoints
    tree, scalars, (array,) = found.attachments["w"]
    assert (tree, scalars) == ({"l": [{"n": 0}, {"s": 0}]}, ["x"])
    assert np.array_equal(array, np.arange(4.0))
    assert found.attachments["b"][2][0].tobytes() == b"ab"
