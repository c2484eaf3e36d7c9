"""`row=`: a further site for rows that exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import SchemaError
from tests.store import reader


@pytest.fixture
def recorded(run: lamina.Run) -> lamina.Run:
    """Steps 0 to 3, four rows each: x is the step, thrice."""
    with run.writer() as writer:
        for step in range(4):
            writer.append({"x": np.full((4, 3), step, np.float32)}, step=step, example=list(range(4)))
    return run.refresh()


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor, pl.Series])
def test_attached_values_stand_beside_their_rows(recorded: lamina.Run, kind: Any) -> None:
    ids = recorded.rows("x", step=slice(1, 3)).ids
    order = np.random.default_rng(0).permutation(len(ids))
    given = ids[order]
    with recorded.writer() as writer:
        ticket = writer.append({"code": given.astype(np.float64)[:, None]}, row=kind(given.tolist()))
        assert ticket.wait()
    frame = recorded.refresh().activations().collect()
    assert frame.height == 16, "no row is new"
    held = frame.filter(pl.col("row").is_in(ids.tolist()))
    assert held["code"].to_list() == [[float(name)] for name in held["row"]]
    assert frame.filter(~pl.col("row").is_in(ids.tolist()))["code"].null_count() == 16 - len(ids)
    (group,) = [group for group in reader.read(recorded.path).groups if "code" in group.sites]
    assert group.names.tolist() == given.tolist()
    assert recorded.activations("code").filter(pl.col("step") == 2).select("example").collect().height == 4


def test_positions_attach_in_order(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"tokens": np.ones((2, 3, 4))}, step=0)
    ids = run.refresh().rows("tokens").ids
    with run.writer() as writer:
        writer.append({"code": np.arange(12.0).reshape(2, 3, 2)}, row=np.asarray(ids).reshape(2, 3))
    assert run.refresh().activations("code").collect()["code"].to_list() == np.arange(12.0).reshape(6, 2).tolist()


def test_what_cannot_be_attached_is_refused_and_nothing_is_staged(recorded: lamina.Run) -> None:
    ids = np.asarray(recorded.rows("x").ids)
    ones = np.ones((2, 1))
    with recorded.writer() as writer:
        own = np.full((2, 3), 9, np.float32)
        writer.append({"x": own}, step=9).wait()
        mine = np.asarray(recorded.refresh().rows("x", step=9).ids)
        writer.append({"code": ones}, row=ids[:2])
        for sites, row, says in (
            ({"code": ones}, [ids[0], 2**39], f"no row {2**39}"),
            ({"code": ones}, [-1, ids[0]], "no row -1"),
            ({"code": ones}, [ids[3], ids[3]], f"row {ids[3]} is given twice"),
            ({"code": ones}, [ids[3], ids[1]], f'row {ids[1]} has a value of site "code" already'),
            ({"x": own}, mine, f'row {mine[0]} has a value of site "x" already'),
            ({"code": ones}, ids[:3], "'code' has 2 rows, row= names 3"),
            ({"code": ones}, [0.5, 1.5], "row= is given as list"),
            ({"code": ones}, 7, "row= is given as int"),
            ({}, ids[:2], "at least one site"),
        ):
            with pytest.raises(SchemaError, match=says):
                writer.append(sites, row=row)
        extras: list[dict[str, Any]] = [{"step": 1}, {"mask": [True, True]}, {"label": 1}]
        for extra in extras:
            with pytest.raises(SchemaError, match="beside row="):
                writer.append({"code": ones}, row=ids[3:5], **extra)
        with pytest.raises(SchemaError, match="step"):
            writer.append({"code": ones})
        writer.append({"code": ones}, row=ids[4:6])
        writer.append({"other": ones}, row=ids[:2])
        writer.append({"other": ones}, row=mine)
    codes = recorded.refresh().activations("code").collect()
    assert sorted(codes["row"]) == sorted(ids[[0, 1, 4, 5]].tolist())
    assert sorted(recorded.activations("other").collect()["row"]) == sorted([*ids[:2].tolist(), *mine.tolist()])


def test_rows_that_are_not_durable_have_no_names_yet(recorded: lamina.Run) -> None:
    with recorded.writer(durable_seconds=None) as writer:
        ticket = writer.append({"x": np.ones((1, 3), np.float32)}, step=5)
        name = [1 << 40]
        with pytest.raises(SchemaError, match="before it is durable"):
            writer.append({"code": np.ones((1, 1))}, row=name)
        ticket.wait()
        writer.append({"code": np.ones((1, 1))}, row=name)
    assert recorded.refresh().activations("code").collect()["row"].to_list() == name


def test_values_that_were_attached_are_deleted_by_the_steps_of_their_rows(recorded: lamina.Run) -> None:
    rows = recorded.rows("x").ids
    with recorded.writer() as writer:
        writer.append({"code": np.arange(len(rows), dtype=np.int32)}, row=rows)
    recorded.refresh()
    kept = recorded.activations("code").filter(pl.col("step") != 1).select("row", "code").collect()
    assert 0 < kept.height < len(rows)
    recorded.delete("code", steps=1)
    assert recorded.activations("code").select("row", "code").collect().equals(kept)
    recorded.compact()
    assert recorded.activations("code").select("row", "code").collect().equals(kept)
    assert recorded.activations("x").collect().height == len(rows)


def test_nothing_is_attached_to_a_row_that_was_deleted(recorded: lamina.Run) -> None:
    first, second = recorded.rows("x").ids[:2]
    recorded.delete(rows=[first])
    with recorded.writer() as writer:
        with pytest.raises(lamina.errors.SchemaError, match=f"no row {first}"):
            writer.append({"code": np.zeros(1, np.int32)}, row=[first])
        writer.append({"code": np.zeros(1, np.int32)}, row=[second])
