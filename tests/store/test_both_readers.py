"""What `lamina.open` answers is what was put in, and what the document's own reader says, bit for bit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import lamina
from tests.faults import broken
from tests.store import reader
from tests.store.alike import assert_same, assert_same_state
from tests.store.planted import CONFIG, Planted, bits, wide


def test_lamina_finds_every_cell(run: lamina.Run, planted: Planted) -> None:
    names = [name for name in run.activations().collect_schema() if name not in planted.sites]
    frame = run.activations().select(names).collect()
    assert frame.height == len(planted.cells)
    for row in frame.iter_rows(named=True):
        cells = {name: value for name, value in row.items() if value is not None}
        name = cells.pop("row")
        assert_same(cells | {"writer": name >> 40}, planted.cells[cells["uid"]], name)


def test_row_names_are_those_of_the_document(run: lamina.Run, read: reader.Recorded) -> None:
    found = dict(run.activations().select("uid", "row").collect().iter_rows())
    groups = [group for group in read.groups if group.record[2] == 0]
    assert found == {uid: group.record[5] + at for group in groups for at, uid in enumerate(group.columns["uid"])}


def test_lamina_gives_every_site_bit_for_bit(run: lamina.Run, planted: Planted) -> None:
    for site, (_, shape, _) in planted.sites.items():
        frame = run.activations(site).select("uid").collect()
        rows = run.rows(site)
        block = rows.gather(range(len(rows)))
        assert rows.shape == (frame.height, int(np.prod(shape)))
        for at, uid in enumerate(frame["uid"]):
            assert bits(block[at]) == planted.bits[uid][site], (site, uid)
        assert sum(site in found for found in planted.bits.values()) == frame.height


def test_frames_widen_bf16_and_f8_and_leave_the_rest(run: lamina.Run, planted: Planted) -> None:
    for site, (dtype, shape, _) in planted.sites.items():
        series = run.activations(site).collect()[site]
        found = series.to_numpy().reshape(len(series), int(np.prod(shape)))
        block = run.rows(site).gather(range(len(series)))
        expected = (wide(block) if dtype in ("bf16", "f8_e4m3", "f8_e5m2") else block).numpy()
        np.testing.assert_array_equal(found, expected, err_msg=site)
        assert found.dtype == expected.dtype, site


def test_lamina_counts_what_the_reader_counts(run: lamina.Run, planted: Planted) -> None:
    for row in run.sites().iter_rows(named=True):
        dtype, shape, bad = planted.sites[row["site"]]
        held = [found[row["site"]] for found in planted.bits.values() if row["site"] in found]
        assert (row["dtype"], tuple(row["shape"]), row["non_finite"]) == (dtype, shape, bad)
        assert (row["rows"], row["bytes"]) == (len(held), sum(map(len, held)))


def test_lamina_and_the_reader_agree_about_metrics(run: lamina.Run, read: reader.Recorded) -> None:
    found = run.metrics().with_columns(pl.col("time").dt.epoch("us")).collect().rows()
    assert list(map(repr, found)) == list(map(repr, read.metrics))


def test_lamina_and_the_reader_agree_about_examples(run: lamina.Run, planted: Planted) -> None:
    rows = run.examples().collect().rows(named=True)
    assert len(rows) == len(planted.examples)
    for row in rows:
        assert_same(row, planted.examples[row["example"], None], row["example"])


def test_lamina_loads_the_states_that_were_saved(run: lamina.Run, planted: Planted) -> None:
    for (step, part), state in planted.states.items():
        assert_same_state(run.load(step, part=part), state, f"{step}.{part}")


def test_lamina_and_the_reader_agree_about_how_the_run_stands(run: lamina.Run, read: reader.Recorded) -> None:
    assert (run.id, run.config) == (read.info["id"], CONFIG)
    assert run.status.state == "failed"
    assert [(writer.rank, writer.error) for writer in run.status.writers] == [
        (writer["rank"], writer["error"]) for writer in read.writers.values()
    ]


def test_the_comparison_notices_examples_that_are_not_replaced(run: lamina.Run, planted: Planted) -> None:
    with broken("examples_keep_what_came_first"), pytest.raises(AssertionError):
        # a run that was asked before has put its examples together
        test_lamina_and_the_reader_agree_about_examples(lamina.open(run.path), planted)
