"""A damaged or missing index of sparse codes: answers stay exact, a warning says so, behind them the index is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import polars as pl
import pytest

import lamina
from lamina import _core
from lamina.errors import LaminaWarning
from lamina.runs import indexing

SITE, WIDTH = "mlp.output/sae", 90

Leave = Callable[..., bool]


def planted(seed: int) -> np.ndarray:
    """The first feature is always active, the others in one row of thirty."""
    draw = np.random.default_rng(seed)
    dense = np.where(draw.random((60, WIDTH)) < 1 / 30, draw.lognormal(size=(60, WIDTH)), 0).astype(np.float32)
    dense[:, 0] = 1
    return dense


DENSE = np.concatenate([planted(0), planted(1)])


@pytest.fixture
def indexed(run: lamina.Run) -> lamina.Run:
    """Two small segments, with an index each."""
    for part in np.split(DENSE, 2):
        with run.writer() as writer:
            writer.features(SITE, part, threshold=0, step=0)
    run.refresh().index(progress=False)
    return run.refresh()


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was to run in the background, instead of running."""
    begun: list[Any] = []

    def leave(path: Path, **which: Any) -> bool:
        begun.append(lambda: indexing.main(str(path), **which))
        return True

    monkeypatch.setattr(indexing, "_leave", leave)
    return begun


def files(run: lamina.Run) -> list[Path]:
    return sorted((run.path / "index").iterdir())


def histogram(data: bytes) -> int:
    body = cbor2.loads(data[-36 - int.from_bytes(data[-36:-32], "little") : -36])
    part = body[4][0]
    return part[4] + 52 * part[2]


def flip(data: bytearray, at: int) -> None:
    data[at] ^= 0x10


DAMAGES: dict[str, Callable[[bytearray], Any]] = {
    "in a list": lambda data: flip(data, 10),
    "in the histograms": lambda data: flip(data, histogram(bytes(data))),
    "in the description": lambda data: flip(data, len(data) - 40),
    "cut short": lambda data: data.__delitem__(slice(-7, None)),
    "emptied": lambda data: data.clear(),
}


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    DAMAGES[how](data)
    file.write_bytes(data)


def newer(file: Path) -> None:
    file.write_bytes(b"LAMFEAT2" + file.read_bytes()[8:])


def check(run: lamina.Run) -> None:
    """The answers are those of the dense codes."""
    of_few = run.features(SITE).filter(pl.col("feature").is_in([0, 3])).collect()
    rows, ids = DENSE[:, [0, 3]].nonzero()
    assert of_few["feature"].to_list() == (3 * ids).tolist()
    assert of_few["value"].to_list() == DENSE[rows, 3 * ids].tolist()
    top = run.top_examples(SITE, 3, k=4, context=0)
    assert top["value"].to_list() == sorted(DENSE[:, 3].tolist(), reverse=True)[:4]
    counts = run.feature_stats(SITE).select("count").collect().to_series()
    assert counts.to_list() == np.count_nonzero(DENSE, axis=0).tolist()


def told(run: lamina.Run) -> list[str]:
    """Asks, and returns what was warned of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        check(run)
    assert {warning.category for warning in found} <= {LaminaWarning}
    return [str(warning.message) for warning in found]


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two features of ninety are half of the units here, and asked of the index all the same."""
    monkeypatch.setattr("lamina.runs.scan.indexes._SHARE", 1)


@pytest.mark.parametrize("how", DAMAGES)
def test_it_is_told_once_and_built_anew(
    indexed: lamina.Run, left: list[Any], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    victim, other = files(indexed)
    whole, untouched = victim.read_bytes(), other.stat()
    damage(victim, how)
    assert not indexed.verify(progress=False).ok
    (text,) = told(indexed.refresh())
    assert "segments/000000-000000.safetensors is damaged" in text
    assert "built in the background" in text
    assert told(indexed) == []
    # it may take a while: until then nobody begins again, whoever asks
    (text,) = told(lamina.open(indexed.path))
    assert "was begun in the background, and `lamina index`" in text
    assert len(left) == 1

    left[0]()
    assert victim.read_bytes() == whole
    assert (other.stat().st_mtime_ns, other.stat().st_ino) == (untouched.st_mtime_ns, untouched.st_ino)
    assert told(indexed.refresh()) == []
    assert indexed.indexes()["state"].to_list() == ["ready", "ready"]
    assert indexed.problems == []
    assert indexed.verify(progress=False).ok
    monkeypatch.setattr(_core, "codes_at", None)  # nothing is scanned
    assert indexed.features(SITE).filter(pl.col("feature") == 3).collect().height == np.count_nonzero(DENSE[:, 3])


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_a_missing_one_of_a_large_segment_is_told_and_built(
    indexed: lamina.Run, left: list[Any], monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    victim, other = files(indexed)
    whole, untouched = victim.read_bytes(), other.stat()
    units = indexed.indexes()["units"].to_list()
    assert units[0] > units[1]
    monkeypatch.setattr(indexing, "UNASKED", units[0])
    if gone == "file":
        victim.unlink()
    else:
        shutil.rmtree(indexed.path / "index")
    (text,) = told(indexed.refresh())
    assert "segments/000000-000000.safetensors is missing: codes are scanned; it is built in the background" in text
    assert "was begun in the background, and `lamina index`" in told(lamina.open(indexed.path))[0]
    assert len(left) == 1
    left[0]()
    assert victim.read_bytes() == whole
    assert (indexed.path / "index" / other.name).exists() == (gone == "file"), "scanning a small one is quick"
    assert gone == "folder" or other.stat().st_mtime_ns == untouched.st_mtime_ns
    assert told(indexed.refresh()) == []


def test_one_that_another_process_has_built_is_left_alone(indexed: lamina.Run, left: list[Any]) -> None:
    indexing.on_demand(indexed.path, SITE, dict.fromkeys(indexed.indexes()["file"], "missing"))
    before = [file.stat().st_mtime_ns for file in files(indexed)]
    left[0]()
    assert [file.stat().st_mtime_ns for file in files(indexed)] == before


def test_who_indexes_in_the_background_waits_for_another_who_does(indexed: lamina.Run) -> None:
    names = indexed.indexes()["file"].to_list()
    for file in files(indexed):
        file.unlink()
    other = threading.Thread(target=indexing.main, args=(str(indexed.path),), kwargs={"site": SITE, "files": names})
    with indexing.turn(str(indexed.path)):
        other.start()
        other.join(0.5)
        assert other.is_alive()
        assert files(indexed) == []
    other.join()
    assert indexed.refresh().indexes()["state"].to_list() == ["ready", "ready"]


def test_several_are_built_by_one_process(indexed: lamina.Run, left: list[Any]) -> None:
    for file in files(indexed):
        damage(file, "cut short")
    assert len(told(indexed.refresh())) == 2
    assert len(left) == 1
    left[0]()
    assert told(indexed.refresh()) == []


def test_one_of_a_newer_lamina_is_left_to_it(indexed: lamina.Run, left: list[Any]) -> None:
    first, second = files(indexed)
    newer(first)
    damage(second, "in a list")
    texts = told(indexed.refresh())
    assert [("newer Lamina" in text, "`lamina index`" in text) for text in texts] == [(True, True), (False, False)]
    kept = first.read_bytes()
    # the damaged one is replaced by a newer one before its turn comes
    newer(second)
    left[0]()
    assert first.read_bytes() == kept
    assert indexed.refresh().indexes()["state"].to_list() == ["newer", "newer"]


@pytest.mark.parametrize("case", ["may not be written", "no shell"])
def test_where_nothing_can_be_begun_it_is_told_and_answered(
    indexed: lamina.Run, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    if case == "no shell":
        monkeypatch.setenv("PATH", "")
    else:
        # root may write everywhere: see test_read_only.py
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        monkeypatch.setattr(indexing, "_leave", None)
    damage(files(indexed)[0], "in a list")
    (text,) = told(indexed.refresh())
    assert "codes are scanned; `lamina index` builds it" in text


def test_codes_that_are_damaged_too_do_not_keep_others_from_their_index(indexed: lamina.Run, left: list[Any]) -> None:
    for file in files(indexed):
        damage(file, "in a list")
    indexed.refresh()
    with pytest.warns(LaminaWarning, match="built in the background"):
        indexed.features(SITE).filter(pl.col("feature") == 0).collect()
    segment = indexed.path / "segments/000000-000000.safetensors"
    data = bytearray(segment.read_bytes())
    flip(data, 1 << 20)
    segment.write_bytes(data)
    left[0]()
    assert [path.name[0] for path in files(indexed)] == ["0", "0"], "no draft is left"
    found = {problem["file"].partition("/")[0] for problem in indexed.verify(progress=False).problems.to_dicts()}
    assert found == {"index", "segments"}
    units = np.array([0]).view(np.uint8)
    answered, *_ = _core.indexed_units(_core.Snapshot(str(indexed.path)), SITE, units, 1)
    assert answered == [1]


@pytest.mark.parametrize("how", DAMAGES)
def test_indexing_by_hand_finds_it_wherever_it_lies(indexed: lamina.Run, how: str) -> None:
    damage(files(indexed)[1], how)
    done = indexed.refresh().index(progress=False)
    assert done.segments["state"].to_list() == ["ready", "damaged"]
    assert (done.segments["bytes"] > 0).to_list() == [False, True]
    assert indexed.verify(progress=False).ok
    assert str(indexed.refresh().index(progress=False)) == "2 segments ready before"


ASKED = """
import sys, polars as pl, lamina
from lamina.runs.scan import indexes
indexes._SHARE = 1
print(lamina.open(sys.argv[1]).features(sys.argv[2]).filter(pl.col("feature") == 0).collect().height)
"""


def test_a_program_that_ends_at_once_leaves_it_behind(indexed: lamina.Run) -> None:
    victim, _ = names = files(indexed)
    whole = victim.read_bytes()
    damage(victim, "in a list")
    command = [sys.executable, "-W", "always", "-c", ASKED, str(indexed.path), SITE]
    # it would not return before what runs in the background, if that had its pipes
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert int(done.stdout) == len(DENSE)
    assert done.stderr.count("built in the background") == 1
    until = time.monotonic() + 60
    while (victim.read_bytes() != whole or files(indexed) != names) and time.monotonic() < until:
        time.sleep(0.05)
    assert files(indexed) == names
    assert told(indexed.refresh()) == []
    assert indexed.verify(progress=False).ok
