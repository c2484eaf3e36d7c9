"""The index of sparse codes by feature answers what NumPy computes from the codes, whatever became of it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import google_crc32c
import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch

import lamina
from lamina import _core
from lamina.errors import LaminaError, NotFoundError, SchemaError
from tests.store import forge

SITE, OTHER = "mlp.output/sae", "attn.output/sae"
QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


class Shown(NamedTuple):
    """What a run shows of a site: the dense codes (NaN and infinities too), names and steps of the rows."""

    dense: np.ndarray
    names: np.ndarray
    steps: np.ndarray


def planted(rows: int, width: int, seed: int) -> np.ndarray:
    """Feature 0 is active everywhere, 1 in one row of five with few values, 2 never; others more and more rarely."""
    draw = np.random.default_rng(seed)
    often = 0.6 / np.arange(1, width + 1)
    dense = np.where(draw.random((rows, width)) < often, draw.normal(size=(rows, width)), 0)
    dense[:, 0] = np.round(draw.normal(size=rows), 1) + 0.05
    dense[:, 1] = np.where(np.arange(rows) % 5 == 1, 1.5, 0)
    dense[:, 2] = 0
    if rows > 9:
        dense[3], dense[5, 3:6] = 0, [np.nan, np.inf, -np.inf]
    return dense.astype(np.float16).astype(np.float32)


def write(run: lamina.Run, dense: np.ndarray, steps: Any = 0, *, cut: int = 1, row: Any = None) -> None:
    """Codes by a writer of their own: a call a run of equal steps, and a group for so many calls."""
    steps = np.broadcast_to(steps, len(dense))
    starts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(dense)]
    with run.writer() as writer:
        for number, (start, stop) in enumerate(pairwise(starts), 1):
            codes = scipy.sparse.csr_array(dense[start:stop])
            given: dict[str, Any] = {"step": int(steps[start])} if row is None else {"row": row}
            ticket = writer.features(SITE, codes, **given)
            if number % cut == 0:
                ticket.wait()


def files(snapshot: _core.Snapshot, site: str = SITE) -> dict[str, str]:
    return {file: state for file, _, _, state in _core.feature_indexes(snapshot, site)}


def build(run: lamina.Run, site: str = SITE, threads: int = 2) -> _core.Snapshot:
    snapshot = _core.Snapshot(str(run.path))
    for file, state in files(snapshot, site).items():
        if state != "ready":
            size = _core.build_feature_index(snapshot, site, file, threads)
            stem = Path(file).name.removesuffix(".safetensors")
            assert size in [path.stat().st_size for path in (run.path / "index").glob(f"{stem}.*.features")]
    assert set(files(snapshot, site).values()) <= {"ready"}
    return snapshot


def long(shown: Shown, features: list[int]) -> list[tuple[int, int, str]]:
    rows, ids = shown.dense.nonzero()
    wanted = np.isin(ids, features)
    rows, ids = rows[wanted], ids[wanted]
    return list(zip(shown.names[rows].tolist(), ids.tolist(), map(repr, shown.dense[rows, ids].tolist()), strict=True))


def units(frame: pl.DataFrame) -> list[tuple[int, int, str]]:
    return sorted(
        zip(frame["row"].to_list(), frame["feature"].to_list(), map(repr, frame["value"].to_list()), strict=True)
    )


def named(snapshot: _core.Snapshot, groups: pl.Series, positions: pl.Series) -> list[int]:
    names = {number: np.frombuffer(snapshot.names(number), np.int64) for number in groups.unique()}
    return [int(names[group][position]) for group, position in zip(groups, positions, strict=True)]


def check_units(snapshot: _core.Snapshot, shown: Shown, features: list[int], site: str = SITE) -> None:
    answered, sizes, batch = _core.indexed_units(snapshot, site, np.array(features, np.int64).view(np.uint8), 2)
    frame = pl.DataFrame(batch)
    assert answered == sorted(answered)
    names = {group: np.frombuffer(snapshot.names(group), np.int64).tolist() for group in answered}
    lies = [
        (group, names[group].index(row), feature)
        for group, row, feature in zip(np.repeat(answered, sizes).tolist(), frame["row"], frame["feature"], strict=True)
    ]
    assert lies == sorted(set(lies))
    assert units(frame) == sorted(long(shown, features))


def check_top(snapshot: _core.Snapshot, shown: Shown, feature: int, k: int, site: str = SITE) -> None:
    _, batch = _core.top_units(snapshot, site, feature, k)
    frame = pl.DataFrame(batch)
    column = shown.dense[:, feature]
    at = np.flatnonzero(column != 0)
    strength = [(math.isnan(column[row]), -column[row], shown.names[row]) for row in at]
    strength = [(nan, 0.0 if nan else value, name) for nan, value, name in strength]
    order = sorted(range(at.size), key=lambda number: strength[number])[:k]
    wanted = [(int(shown.names[at[number]]), repr(float(column[at[number]]))) for number in order]
    assert list(zip(frame["row"].to_list(), map(repr, frame["value"].to_list()), strict=True)) == wanted
    assert named(snapshot, frame["group"], frame["position"]) == frame["row"].to_list()


def check_stats(snapshot: _core.Snapshot, shown: Shown, site: str = SITE) -> pl.DataFrame:
    stats = pl.DataFrame(_core.feature_stats(snapshot, site, 2))
    assert stats["feature"].to_list() == list(range(shown.dense.shape[1]))
    for row in stats.iter_rows(named=True):
        column = shown.dense[:, row["feature"]].astype(np.float64)
        values, steps = column[column != 0], shown.steps[column != 0]
        assert row["count"] == values.size
        if not values.size:
            assert all(row[name] is None for name in ("mean", "max", *QUANTILES, "first_step", "last_step"))
            continue
        with np.errstate(invalid="ignore"):
            assert np.isclose(row["mean"], values.mean(), rtol=1e-12, atol=1e-12, equal_nan=True)
        assert np.array_equal(row["max"], values.max(), equal_nan=True)
        assert (row["first_step"], row["last_step"]) == (steps.min(), steps.max())
        for name, part in QUANTILES.items():
            finite = values[np.isfinite(values)]
            # half a bin: 2^(1/16)
            wanted = [np.quantile(finite, part, method="inverted_cdf")] if finite.size else []
            assert (row[name] is None) == (not wanted)
            assert all(math.isclose(row[name], value, rel_tol=0.0443) for value in wanted)
    return stats


def check(snapshot: _core.Snapshot, shown: Shown, site: str = SITE) -> None:
    width = shown.dense.shape[1]
    for features in ([0], [2], [5, 1, 3, 1], [-1, width, width - 1], list(range(width)), []):
        check_units(snapshot, shown, [f for f in features if 0 <= f < width], site)
    for feature in (0, 1, 2, 3, width - 1):
        for k in (0, 1, 7, 10_000):
            check_top(snapshot, shown, feature, k, site)
    check_stats(snapshot, shown, site)


def of_writer(ordinal: int, rows: int) -> np.ndarray:
    return (ordinal << 40) + np.arange(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[lamina.Run, Shown]:
    """Two segments of two writers, in several groups; steps fall within one, and are one in the other."""
    run = lamina.Run.create(tmp_path_factory.mktemp("index") / "run")
    dense = planted(700, 24, 0)
    steps = np.r_[np.arange(400)[::-1] // 30, np.full(300, 7)]
    write(run, dense[:400], steps[:400], cut=5)
    write(run, dense[400:], 7)
    return run.refresh(), Shown(dense, np.r_[of_writer(0, 400), of_writer(1, 300)], steps)


def test_answers_are_those_of_the_dense_codes(whole: tuple[lamina.Run, Shown], tmp_path: Path) -> None:
    run, shown = whole
    before = _core.Snapshot(str(run.path))
    scanned = check_stats(before, shown)
    assert set(files(before).values()) <= {"missing", "ready"}
    snapshot = build(run)
    assert [(rows, state) for _, rows, _, state in _core.feature_indexes(snapshot, SITE)] == [
        (400, "ready"),
        (300, "ready"),
    ]
    assert sum(units for _, _, units, _ in _core.feature_indexes(snapshot, SITE)) == np.count_nonzero(shown.dense)
    check(snapshot, shown)
    indexed = pl.DataFrame(_core.feature_stats(snapshot, SITE, 1))
    assert indexed.drop("mean").equals(scanned.drop("mean"))
    check(_core.Snapshot(str(run.path), io="pread"), shown)
    check(_core.Snapshot(str(run.path), io="mmap", verify="always"), shown)
    check(_core.Snapshot(str(run.path), verify="never"), shown)


def test_an_index_has_the_same_bytes_whatever_the_threads(whole: tuple[lamina.Run, Shown]) -> None:
    run, _ = whole
    build(run)
    written = {path.name: path.read_bytes() for path in (run.path / "index").iterdir()}
    snapshot = _core.Snapshot(str(run.path), io="pread")
    for file in files(snapshot):
        _core.build_feature_index(snapshot, SITE, file, 1)
    assert {path.name: path.read_bytes() for path in (run.path / "index").iterdir()} == written


def test_segments_without_an_index_are_left_to_others(whole: tuple[lamina.Run, Shown], tmp_path: Path) -> None:
    run, shown = whole
    build(run)
    copy = lamina.open(shutil.copytree(run.path, tmp_path / "run"))
    first, second = files(_core.Snapshot(str(copy.path)))
    (copy.path / "index" / (Path(first).name.removesuffix(".safetensors") + ".0.features")).unlink()
    snapshot = _core.Snapshot(str(copy.path))
    assert files(snapshot) == {first: "missing", second: "ready"}
    rest = Shown(*(part[400:] for part in shown))
    check_units(snapshot, rest, [0, 1, 3])
    check_top(snapshot, rest, 0, 5)
    check_stats(snapshot, shown)
    build(copy)
    check(_core.Snapshot(str(copy.path)), shown)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [9, 2**16 + 5, 2**31 - 1])
def test_values_and_ids_of_any_type(run: lamina.Run, dtype: torch.dtype, width: int) -> None:
    draw = np.random.default_rng(1)
    dense = torch.from_numpy(draw.normal(size=(300, 3)) * (draw.random((300, 3)) < 0.5)).to(dtype)
    dense[7] = torch.tensor([float("nan"), -float("inf"), float("inf")])
    features = [0, width // 2, width - 1]
    with run.writer() as writer:
        ids = torch.where(dense == 0, -1, torch.tensor(features))
        writer.features(SITE, (dense, ids), width=width, step=3).wait()
    snapshot = build(run.refresh())
    *_, batch = _core.indexed_units(snapshot, SITE, np.array(features, np.int64).view(np.uint8), 2)
    frame = pl.DataFrame(batch)
    rows, columns = (part.numpy() for part in torch.nonzero(dense, as_tuple=True))
    assert frame["row"].to_list() == rows.tolist()
    assert frame["feature"].to_list() == [features[column] for column in columns]
    assert np.array_equal(
        frame["value"].cast(pl.Float32).to_numpy(), dense.float().numpy()[rows, columns], equal_nan=True
    )
    for column, feature in enumerate(features):
        values = np.sort(dense[:, column].float().numpy())
        values = values[values != 0]
        values = np.r_[values[~np.isnan(values)][::-1], values[np.isnan(values)]]
        _, top = _core.top_units(snapshot, SITE, feature, 4)
        assert np.array_equal(pl.DataFrame(top)["value"].cast(pl.Float32).to_numpy(), values[:4], equal_nan=True)


def test_hidden_rows_and_values_that_do_not_count_never_appear(run: lamina.Run) -> None:
    dense = planted(200, 12, 3)
    write(run, dense, np.arange(200) // 20, cut=3)
    late = planted(60, 12, 4)
    # rows 200 to 259 have codes that were attached later, by one writer and by another; those of the first count
    with run.writer() as writer:
        for step in range(6):
            writer.append({"x": np.ones((10, 1), np.float32)}, step=step)
    names = of_writer(1, 60)
    write(run.refresh(), late[::-1], row=names[::-1].copy())
    write(run.refresh(), planted(30, 12, 5), row=names[:30])
    # of a row with codes of its own another value does not count either
    write(run.refresh(), planted(10, 12, 6), row=of_writer(0, 200)[:10])
    shown = Shown(np.r_[dense, late], np.r_[of_writer(0, 200), names], np.r_[np.arange(200) // 20, np.arange(60) // 10])
    snapshot = build(run.refresh())
    check(snapshot, shown)
    run.delete(SITE, steps=[2, 3], rows=[range(50)])
    run.delete(steps=[4])
    run.delete(SITE, rows=[range((1 << 40) + 3, (1 << 40) + 9)])
    at = np.arange(260)
    gone = ((shown.steps >= 2) & (shown.steps <= 3) & (at < 50)) | (shown.steps == 4) | ((at >= 203) & (at < 209))
    left = Shown(*(part[~gone] for part in shown))
    snapshot = _core.Snapshot(str(run.path))
    assert set(files(snapshot).values()) == {"ready"}
    check(snapshot, left)
    run.rewind(5)
    snapshot = _core.Snapshot(str(run.path))
    check(snapshot, Shown(*(part[left.steps < 5] for part in left)))
    check(_core.Snapshot(str(run.path), hidden=True), shown)


def test_compaction_makes_an_index_garbage_and_cold_codes_have_one(run: lamina.Run) -> None:
    dense = planted(300, 30, 7)
    shown = Shown(dense, of_writer(0, 300), np.repeat([0, 1, 2], 100))
    write(run, dense, shown.steps)
    build(run.refresh())
    (old,) = (run.path / "index").iterdir()
    run = run.refresh()
    run.compact(cold=[SITE], progress=False)
    snapshot = _core.Snapshot(str(run.path))
    assert list(files(snapshot).values()) == ["missing"]
    check_units(snapshot, Shown(dense[:0], shown.names[:0], shown.steps[:0]), [0])
    check_stats(snapshot, shown)
    removed = run.refresh().gc(grace=0, progress=False).removed
    assert f"index/{old.name}" in removed
    assert not old.exists()
    snapshot = build(run.refresh())
    check(snapshot, shown)
    assert run.refresh().gc(grace=0, progress=False).removed == ()
    check(_core.Snapshot(str(run.path)), shown)


def test_several_sites_of_a_segment_have_an_index_each(run: lamina.Run) -> None:
    dense, other = planted(50, 8, 8), planted(50, 9, 9)
    with run.writer() as writer:
        writer.features(SITE, scipy.sparse.csr_array(dense), step=1).wait()
        writer.features(OTHER, scipy.sparse.csr_array(other), step=2).wait()
        writer.append({"x": np.ones((3, 1), np.float32)}, step=0).wait()
        snapshot = _core.Snapshot(str(run.path))
        with pytest.raises(SchemaError, match="still being written"):
            _core.build_feature_index(snapshot, SITE, next(iter(files(snapshot))), 2)
        assert set(files(snapshot).values()) == {"open"}
    names = of_writer(0, 100)
    check(build(run), Shown(dense, names[:50], np.full(50, 1)))
    check(build(run, OTHER), Shown(other, names[50:], np.full(50, 2)), OTHER)
    assert len(list((run.path / "index").iterdir())) == 2
    with pytest.raises(SchemaError, match="no sparse codes"):
        _core.feature_indexes(_core.Snapshot(str(run.path)), "x")
    with pytest.raises(NotFoundError):
        _core.build_feature_index(_core.Snapshot(str(run.path)), SITE, "segments/000007-000000.safetensors", 2)


def flipped(data: bytearray, at: int) -> None:
    data[at] ^= 0x10


def newer(data: bytearray) -> None:
    data[7] = ord("2")


ATTACKS: dict[str, tuple[Callable[[bytearray], Any], str]] = {
    "another_magic": (lambda data: flipped(data, 0), "damaged"),
    "a_newer_version": (newer, "newer"),
    "a_changed_hash": (lambda data: flipped(data, len(data) - 1), "damaged"),
    "a_changed_description": (lambda data: flipped(data, len(data) - 60), "damaged"),
    "a_changed_length": (lambda data: flipped(data, len(data) - 33), "damaged"),
    "cut_short": (lambda data: data.__delitem__(slice(len(data) // 2, None)), "damaged"),
    "cut_to_nothing": (lambda data: data.clear(), "damaged"),
    "longer": (lambda data: data.extend(b"more"), "damaged"),
}


def victim_of(whole: tuple[lamina.Run, Shown], folder: Path) -> tuple[Path, Path, Shown]:
    """Return a copy of the indexed run, the index of its first segment, and what the run shows."""
    run, shown = whole
    build(run)
    path = shutil.copytree(run.path, folder / "run")
    return path, sorted((path / "index").iterdir())[0], shown


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_index_that_lies_is_told_and_not_used(whole: tuple[lamina.Run, Shown], tmp_path: Path, attack: str) -> None:
    path, victim, shown = victim_of(whole, tmp_path)
    data = bytearray(victim.read_bytes())
    change, state = ATTACKS[attack]
    change(data)
    victim.write_bytes(data)
    snapshot = _core.Snapshot(str(path))
    rest = Shown(*(part[400:] for part in shown))
    check_units(snapshot, rest, [0, 1])
    check_stats(snapshot, shown)
    assert list(files(snapshot).values()) == [state, "ready"]
    (problem,) = snapshot.problems
    assert state in problem[0]
    assert "lamina index" in problem[0]
    assert problem[1] == f"index/{victim.name}"
    build(lamina.open(path))
    check(_core.Snapshot(str(path)), shown)


Description = dict[int, Any]


def put(data: bytearray, at: int, number: int) -> None:
    data[at : at + 4] = number.to_bytes(4, "little")


def table(change: Callable[[bytearray, int], None]) -> Callable[[bytearray, Description], None]:
    """Changes the first entry of the first table, with its checksum."""

    def apply(data: bytearray, body: Description) -> None:
        part = body[4][0]
        change(data, part[4])
        part[5] = google_crc32c.value(bytes(data[part[4] : part[4] + 52 * part[2]]))

    return apply


def head(at: int, content: bytes) -> Callable[[bytearray, Description], None]:
    """Changes the first block of the first list, with the checksums that cover it."""

    def change(data: bytearray, entry: int) -> None:
        start, stop = (int.from_bytes(data[place : place + 8], "little") for place in (entry, entry + 52))
        data[start + at : start + at + len(content)] = content
        put(data, entry + 40, google_crc32c.value(bytes(data[start:stop])))

    return table(change)


def histograms(data: bytearray, body: Description) -> None:
    part = body[4][0]
    start = part[4] + 52 * part[2]
    data[start : start + 3] = b"\xff\xff\x7f"
    part[7] = google_crc32c.value(bytes(data[start : start + part[6]]))


LIES: dict[str, tuple[Callable[[bytearray, Description], Any], str]] = {
    "wider": (lambda data, body: body.update({2: 25}), "stale"),
    "another_dtype": (lambda data, body: body.update({1: "bf16"}), "stale"),
    "no_dtype_of_codes": (lambda data, body: body.update({1: "f64"}), "damaged"),
    "another_site": (lambda data, body: body.update({0: 5}), "stale"),
    "other_rows": (lambda data, body: body[3][0].update({1: 3}), "stale"),
    "other_codes": (lambda data, body: body[3][0].update({3: 3}), "stale"),
    "a_group_twice": (lambda data, body: body[3].append(body[3][-1]), "damaged"),
    "rows_without_end": (lambda data, body: body[3].append({0: 99, 1: 2**32 - 1, 2: 0, 3: 0}), "damaged"),
    "a_part_beyond_the_file": (lambda data, body: body[4][0].update({4: 2**64 - 60}), "damaged"),
    "features_without_end": (lambda data, body: body[4][0].update({2: 2**32 - 1, 1: 2**32 - 1}), "damaged"),
    "parts_left_out": (lambda data, body: body[4].clear(), "damaged"),
    "no_description": (lambda data, body: body.clear(), "damaged"),
    "units_without_end": (table(lambda data, at: put(data, at + 36, 2**32 - 1)), "damaged"),
    "a_list_elsewhere": (table(lambda data, at: put(data, at, 2**32 - 1)), "damaged"),
    "a_feature_that_is_none": (table(lambda data, at: put(data, at + 32, 2**32 - 1)), "damaged"),
    "histograms_beyond_theirs": (table(lambda data, at: put(data, at + 44, 2**32 - 1)), "damaged"),
    "a_bin_beyond_the_bins": (histograms, "damaged"),
    "a_row_that_there_is_not": (head(0, b"\xfe\xff\xff\xff"), "damaged"),
    "bits_without_end": (head(4, b"\xff"), "damaged"),
    "bits_that_do_not_fit": (head(4, b"\x20"), "damaged"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_under_valid_checksums_lead_nowhere(whole: tuple[lamina.Run, Shown], tmp_path: Path, lie: str) -> None:
    path, victim, shown = victim_of(whole, tmp_path)
    data = bytearray(victim.read_bytes())
    start = len(data) - 36 - int.from_bytes(data[-36:-32], "little")
    body = cbor2.loads(bytes(data[start:-36]))
    change, state = LIES[lie]
    change(data, body)
    encoded = forge.encode(body)
    sealed = forge.sealed(encoded + len(encoded).to_bytes(4, "little"))
    victim.write_bytes(bytes(data[:start]) + sealed)
    for access in ("mmap", "pread"):
        snapshot = _core.Snapshot(str(path), io=access)
        check_stats(snapshot, shown)
        rest = Shown(*(part[400:] for part in shown))
        check_units(snapshot, rest, list(range(24)))
        check_top(snapshot, rest, 0, 9)
        assert list(files(snapshot).values()) == [state, "ready"]


def test_any_damaged_byte_changes_no_answer(whole: tuple[lamina.Run, Shown], tmp_path: Path) -> None:
    path, victim, shown = victim_of(whole, tmp_path)
    data = victim.read_bytes()
    draw = np.random.default_rng(5)
    for at in draw.integers(8, len(data), 25).tolist():
        changed = bytearray(data)
        flipped(changed, at)
        victim.write_bytes(changed)
        snapshot = _core.Snapshot(str(path))
        answered, _, batch = _core.indexed_units(snapshot, SITE, np.arange(24).view(np.uint8), 2)
        frame = pl.DataFrame(batch)
        states = list(files(snapshot).values())
        part = shown if states[0] == "ready" else Shown(*(part[400:] for part in shown))
        assert len(answered) == (4 if states[0] == "ready" else 1)
        assert units(frame) == sorted(long(part, list(range(24))))
        check_stats(snapshot, shown)
        (damage,) = lamina.open(path).verify(progress=False).problems.rows(named=True)
        assert damage["file"] == f"index/{victim.name}"
        assert "rebuild" in damage["affected"]


def test_an_index_of_another_segment_is_stale(run: lamina.Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        write(run, planted(40, 8, seed))
    build(run.refresh())
    first, second = sorted((run.path / "index").iterdir())
    first.write_bytes(second.read_bytes())
    snapshot = _core.Snapshot(str(run.path))
    assert list(files(snapshot).values()) == ["stale", "ready"]
    check(
        build(run),
        Shown(
            np.r_[planted(40, 8, 1), planted(40, 8, 2)], np.r_[of_writer(0, 40), of_writer(1, 40)], np.zeros(80, int)
        ),
    )


def test_a_build_that_fails_leaves_nothing_and_drafts_are_garbage(run: lamina.Run, tmp_path: Path) -> None:
    write(run, planted(40, 8, 1))
    run = run.refresh()
    (run.path / "index").mkdir()
    draft = run.path / "index" / ".0123456789abcdef"
    draft.write_bytes(b"half")
    snapshot = build(run)
    assert files(snapshot)
    assert run.gc(grace=0, progress=False).removed == (f"index/{draft.name}",)
    assert len(list((run.path / "index").iterdir())) == 1
    (segment,) = (run.path / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    flipped(data, 1 << 20)
    segment.write_bytes(data)
    for index in (run.path / "index").iterdir():
        index.unlink()
    snapshot = _core.Snapshot(str(run.path))
    with pytest.raises(LaminaError):
        _core.build_feature_index(snapshot, SITE, f"segments/{segment.name}", 2)
    assert list((run.path / "index").iterdir()) == []
    assert set(files(snapshot).values()) == {"missing"}
