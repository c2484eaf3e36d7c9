"""What was computed is not computed again, and what changed is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import lamina
from lamina import sweeps
from lamina.errors import SchemaError, StorageError
from lamina.measures import Estimate
from lamina.sweeps.cache import Cache
from tests.faults import broken
from tests.sweeps.conftest import EXAMPLES, SITES, STEPS, make, vectors
from tests.sweeps.counting import CALLS, by_label, mean_of, product_of

CELLS = len(SITES) * len(STEPS)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    CALLS.since()


def computed(run: Any, measure: Any = mean_of, **given: Any) -> int:
    """How many cells a sweep computes."""
    lamina.sweep(measure, run, **given)
    return CALLS.since()


def test_a_cell_is_computed_once(run: lamina.Run) -> None:
    first = lamina.sweep(mean_of, run)
    assert CALLS.since() == CELLS
    again = lamina.sweep(mean_of, lamina.open(run.path))
    assert CALLS.since() == 0
    assert again.equals(first)


def test_only_what_is_missing_is_computed(run: lamina.Run) -> None:
    assert computed(run, steps=0) == len(SITES)
    assert computed(run) == CELLS - len(SITES)


def test_other_options_are_other_cells(run: lamina.Run) -> None:
    assert computed(run) == CELLS
    assert computed(run, options={"power": 2.0}) == CELLS
    assert computed(run, options={"weights": torch.ones(3)}) == CELLS
    assert computed(run, options={"weights": torch.zeros(3)}) == CELLS
    assert computed(run, options={"weights": torch.ones(3), "power": 1.0}) == CELLS
    assert computed(run, options={"power": 1.0, "weights": torch.ones(3)}) == 0


def test_functions_as_options_are_known_by_their_code(run: lamina.Run) -> None:
    assert computed(run, options={"weights": lambda x: x + 1}) == CELLS
    assert computed(run, options={"weights": lambda x: x + 1}) == 0
    assert computed(run, options={"weights": lambda x: x + 2}) == CELLS


def check_rows_that_come_or_go(run: lamina.Run) -> None:
    assert computed(run) == CELLS
    with run.writer() as writer:
        writer.append({SITES[0]: torch.ones(5, 4)}, step=10, example=range(100, 105), source="validation")
    run.refresh()
    assert computed(run) == 1, "rows of one site and step came"
    run.delete(SITES[1], steps=0)
    assert computed(run) == 0, "what is left was computed"
    run.delete(SITES[2], rows=run.rows(SITES[2], step=0).ids[:3])
    frame = lamina.sweep(mean_of, run, sites=SITES[2])
    assert CALLS.since() == 1
    assert frame["n"].to_list() == [EXAMPLES - 3, EXAMPLES]


def test_rows_that_come_or_go(run: lamina.Run) -> None:
    check_rows_that_come_or_go(run)


def test_a_cache_that_looks_at_names_alone_is_noticed(run: lamina.Run) -> None:
    with broken("sweeps_know_rows_by_site_and_step"), pytest.raises(AssertionError, match="rows of one site"):
        check_rows_that_come_or_go(run)


def test_rows_that_are_recorded_again(run: lamina.Run) -> None:
    computed(run)
    run.rewind(10)
    with run.writer() as writer:
        writer.append({SITES[0]: vectors(SITES[0], 10) + 1}, step=10, example=range(EXAMPLES), source="validation")
    frame = lamina.sweep(mean_of, run.refresh(), sites=SITES[0], steps=10)
    assert CALLS.since() == 1
    assert frame["value"].item() == pytest.approx(float((vectors(SITES[0], 10) + 1).double().mean()))


def test_a_site_that_is_deleted_and_attached_again(run: lamina.Run) -> None:
    ids = run.rows(SITES[0], step=0).ids
    for value in (1.0, 2.0):
        with run.writer() as writer:
            writer.append({"codes": torch.full((EXAMPLES, 2), value)}, row=ids)
        frame = lamina.sweep(mean_of, run.refresh(), sites="codes")
        assert frame["value"].to_list() == [value]
        assert CALLS.since() == 1
        assert computed(run, sites="codes") == 0
        run.delete("codes")


def test_compaction_and_other_rows_change_nothing(run: lamina.Run) -> None:
    computed(run)
    with run.writer() as writer:
        writer.append({SITES[0]: torch.ones(5, 4)}, step=30, example=range(5), source="validation")
    run.refresh().compact(progress=False)
    assert computed(run, steps=STEPS) == 0
    assert run.verify(progress=False).ok
    assert not list(run.copy(run.path.parent / "copy", progress=False).path.glob("cache"))


def test_labels_that_change(run: lamina.Run) -> None:
    assert computed(run, by_label, labels="topic") == CELLS
    with run.writer() as writer:
        writer.examples({"example": [0], "topic": [7]})
    assert computed(run.refresh(), by_label, labels="topic") == CELLS


def test_columns_of_examples_that_a_measure_of_ours_does_not_read(run: lamina.Run) -> None:
    from lamina import geometry

    given = {"labels": "topic", "sites": SITES[0], "steps": 0}
    lamina.sweep(geometry.neural_collapse, run, **given)
    before = sorted(run.path.glob("cache/*/*"))
    with run.writer() as writer:
        writer.examples({"example": range(EXAMPLES), "text": ["a"] * EXAMPLES})
    lamina.sweep(geometry.neural_collapse, run.refresh(), **given)
    assert sorted(run.path.glob("cache/*/*")) == before


def test_weights_of_a_checkpoint(run: lamina.Run) -> None:
    for value in (1.0, 2.0):
        with run.writer() as writer:
            writer.save({"model": {"weight": torch.full((2, 2), value)}}, step=5)
        assert lamina.sweep(mean_of, run.refresh(), sites="weight")["value"].to_list() == [value]
        CALLS.since()
        assert computed(run, sites="weight") == 0
        run.rewind(0)


def check_edits(run: lamina.Run) -> None:
    source = """
    from lamina.measures import Estimate
    from tests.sweeps.counting import CALLS

    def scaled(x):
        return FACTOR * float(x.gather(slice(None)).mean())

    def mean(x):
        CALLS.count += 1
        return Estimate("mean", scaled(x), 0.0, n=len(x), estimator="mean")
    """
    for text, expected in [("FACTOR = 1", CELLS), ("FACTOR = 2", CELLS), ("# a remark\nFACTOR = 2", 0)]:
        names: dict[str, Any] = {"__name__": "own_measure"}
        exec(text + "\n" + textwrap.dedent(source), names)
        assert computed(run, names["mean"]) == expected, text


def test_an_edited_measure_is_another(run: lamina.Run) -> None:
    check_edits(run)


def test_a_cache_that_forgets_the_code_is_noticed(run: lamina.Run) -> None:
    with broken("sweeps_forget_the_code"), pytest.raises(AssertionError, match="FACTOR = 2"):
        check_edits(run)


def test_a_folder_keeps_what_runs_cannot(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"seed-{seed}", seed) for seed in range(2)]
    (runs[0].path / "cache").write_text("in the way, as in a run that is for reading only")
    with pytest.raises(StorageError, match=r"seed-0/cache.*cache= names another folder"):
        lamina.sweep(mean_of, runs[0])
    assert CALLS.since() == 0, "said before anything is computed"
    assert computed(runs, cache=tmp_path / "kept") == 2 * CELLS
    assert computed(runs, cache=str(tmp_path / "kept")) == 0
    assert not (runs[1].path / "cache").exists()


def test_nothing_is_kept_where_nothing_shall_be(run: lamina.Run) -> None:
    assert [computed(run, cache=False) for _ in range(2)] == [CELLS, CELLS]
    assert computed(run, cache=False, options={"weights": object()}) == CELLS
    assert not (run.path / "cache").exists()


def test_a_sweep_that_stops_goes_on_where_it_was(run: lamina.Run) -> None:
    def stops(x: lamina.Rows) -> Estimate:
        CALLS.count += 1
        if CALLS.count == 4:
            raise KeyboardInterrupt
        return Estimate("stops", float(len(x)), 0.0, estimator="count")

    with pytest.raises(KeyboardInterrupt):
        lamina.sweep(stops, run)
    assert lamina.sweep(stops, run).height == CELLS
    assert CALLS.since() == 4 + CELLS - 3


def test_errors_are_tried_again(run: lamina.Run) -> None:
    def fails(x: lamina.Rows) -> Estimate:
        CALLS.count += 1
        raise SchemaError("no")

    for _ in range(2):
        with pytest.warns(lamina.LaminaWarning, match="6 of 6"):
            assert lamina.sweep(fails, run, errors="null")["value"].null_count() == CELLS
    assert CALLS.since() == 2 * CELLS
    assert not list(run.path.glob("cache/*/*")), "an empty file does not stay"


def test_a_process_that_is_killed_loses_at_most_the_cell_it_was_at(run: lamina.Run) -> None:
    script = f"""
    import os, signal, lamina
    from tests.sweeps.counting import CALLS, mean_of
    def dies(x):
        if CALLS.count == 4 and "DIES" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return mean_of(x)
    lamina.sweep(dies, {str(run.path)!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    given = [{**os.environ, "DIES": "1"}, os.environ]
    codes = [subprocess.run(command, check=False, env=each).returncode for each in given]
    assert codes == [-signal.SIGKILL, 0]
    (folder,) = run.path.glob("cache/*")
    assert folder.name.startswith("dies-")
    assert sorted(len(path.read_bytes().splitlines()) for path in folder.iterdir()) == [2, 4]


@pytest.mark.parametrize("damage", ["cut", "flipped", "glued", "empty", "not text"])
def test_lines_that_are_not_whole_are_computed_again(run: lamina.Run, damage: str) -> None:
    first = lamina.sweep(mean_of, run)
    CALLS.since()
    (path,) = run.path.glob("cache/*/*")
    data = path.read_bytes()
    end = data.index(b"\n", len(data) // 2)
    damaged = {
        "cut": data[: end - 7],
        "flipped": data[:end].replace(b"0", b"1", 3) + data[end:],
        "glued": data[:end] + data[end + 1 :],
        "empty": b"",
        "not text": os.urandom(4096),
    }
    path.write_bytes(damaged[damage])
    assert lamina.sweep(mean_of, run).equals(first)
    assert 0 < CALLS.since() <= CELLS
    assert computed(run) == 0


def test_both_sides_tell_a_comparison(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"seed-{seed}", seed) for seed in range(2)]
    given = {"pairs": "same-site-across-runs", "steps": 10}
    assert computed(runs, product_of, **given) == 2 * len(SITES)
    runs[1].delete(SITES[0], rows=runs[1].rows(SITES[0], step=10).ids[:1])
    assert computed(runs, product_of, **given) == 2
    assert computed(runs, product_of, **given) == 0


def test_a_run_that_was_removed_does_not_come_back(run: lamina.Run) -> None:
    cache = Cache(run.path / "cache" / "mean-0123", parents=False)
    shutil.rmtree(run.path)
    with pytest.raises(StorageError, match="cannot be kept"):
        cache.open()
    assert not run.path.exists()


def test_an_estimate_comes_back_as_it_was(tmp_path: Path) -> None:
    from lamina import geometry, similarity

    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
    kept = [
        similarity.cka(x, x[:, :2], kernel="rbf", groups=[f"text {row // 3}" for row in range(90)]),
        geometry.neural_collapse(x, [row % 3 for row in range(90)]),
        Estimate("nothing", float("nan"), float("inf"), estimator="none", options={"dtype": torch.float32}),
    ]
    cache = Cache(tmp_path / "new" / "folder", parents=True)
    for number, estimate in enumerate(kept):
        cache.put(bytes([number] * 16), estimate)
    cache.close()
    again = Cache(tmp_path / "new" / "folder", parents=True)
    found = [again.get(bytes([number] * 16)) for number in range(3)]
    assert found[:2] == kept[:2]
    assert found[2]
    assert str(found[2].options["dtype"]) == "torch.float32"
    assert str(found[2].value) == "nan"
    assert again.get(b"?" * 16) is None


def test_a_disk_that_is_full(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda file, data: len(data) - 1)
    with pytest.raises(StorageError, match=r"cannot be kept in .*No space left"):
        lamina.sweep(mean_of, run)


def test_estimates_are_kept_for_sweeps_and_back(run: lamina.Run) -> None:
    found = sweeps.estimates(mean_of, run)
    assert CALLS.since() == CELLS
    assert computed(run) == 0
    assert [each.estimate.value for each in found if each.estimate] == lamina.sweep(mean_of, run)["value"].to_list()
