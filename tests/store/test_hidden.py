"""What rewinds and deletes hide: Lamina shows what the document's own reader says, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from tests.faults import broken
from tests.store import reader

SITES = ("a.output", "b.output")


def record(run: lamina.Run, seed: int) -> None:
    """Rows of mixed steps in one group, and a group a step."""
    draws = np.random.default_rng(seed)
    with run.writer() as writer:
        for step in range(4):
            sites = {name: draws.normal(size=(3, 2)).astype(np.float32) for name in SITES[: 1 + seed % 2]}
            writer.append(sites, step=step, example=range(3))
            writer.log({"loss": step}, step=step)
            if step % 2:
                writer.flush()
            writer.save({"model": {"w": draws.normal(size=2)}}, step=step)


def cells(run: lamina.Run) -> dict[tuple[int, str], bytes]:
    """The bytes of every value that Lamina shows."""
    frame = run.activations().collect()
    named = [name for name in SITES if name in frame.columns]
    assert frame.height == frame.select(pl.any_horizontal(pl.col(named).is_not_null()).sum()).item()
    return {
        (row["row"], name): np.array(row[name], np.float32).tobytes()
        for row in frame.iter_rows(named=True)
        for name in named
        if row[name] is not None
    }


def document(read: reader.Recorded) -> dict[tuple[int, str], bytes]:
    """The same, by the document."""
    return {
        (int(row), name): group.sites[name][at].tobytes()
        for group in read.groups
        for at, row in enumerate(group.names)
        for name in group.sites
        if not group.hidden[name][at]
    }


@pytest.mark.parametrize("seed", range(6))
def test_both_readers_show_the_same(tmp_path: Path, seed: int) -> None:
    draws = random.Random(seed)
    run = lamina.Run.create(tmp_path / "run")
    for turn in range(5):
        record(run, seed + turn)
        run.refresh()
        rows = sorted({row for row, _ in cells(run)})
        match draws.randrange(4):
            case 0:
                run.rewind(draws.randrange(1, 4))
            case 1:
                run.delete(steps=draws.choice(run.steps()))
            case 2:
                run.delete(draws.choice(SITES[:1]), steps=slice(0, 2))
            case 3:
                run.delete(rows=draws.sample(rows, 4))
        read = reader.read(run.path)
        shown = cells(run)
        assert shown == document(read)
        assert run.metrics().select("step").collect()["step"].to_list() == [step for step, *_ in read.metrics]
        assert run.checkpoints().select("step").unique().collect().height == len({save[0] for save in read.saves})
        found = run.sites()
        counted = {name: sum(1 for _, site in shown if site == name) for name in found["site"]}
        assert dict(zip(found["site"], found["rows"], strict=True)) == counted
        for name in SITES:
            if counted.get(name):
                taken = run.rows(name)
                assert taken.shape == (counted[name], 2)
                block = taken.gather(range(len(taken))).numpy()
                assert [row.tobytes() for row in block] == [shown[int(at), name] for at in taken.ids]


def test_a_reader_that_forgets_what_is_hidden_is_noticed(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    record(run, 1)
    run.refresh().delete(steps=2)
    with broken("scan_shows_what_is_hidden"), pytest.raises(AssertionError):
        assert cells(run) == document(reader.read(run.path))
