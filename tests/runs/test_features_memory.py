"""What questions about features, and indexes of them, need at their peak: memory for what is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import lamina
from lamina import _core
from lamina.errors import StorageError
from tests.meter import peak_bytes

SITE = "mlp.output/sae"
WIDEST = 2**31 - 1
ROWS = 13 << 20
"""Rows of one feature: more than are sorted at once."""

MEASURED = """
import ctypes
from pathlib import Path
import numpy as np, polars as pl, torch
import lamina
from lamina import _core
run = lamina.open({path!r}, io="pread")
frame = run.features({site!r})
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
{measured}
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
assert int(peak.split()[1]) * 1024 - before < {most}, peak
"""


def check(path: Path, measured: str, most: int) -> None:
    peak_bytes(MEASURED.format(path=str(path), site=SITE, measured=measured, most=most))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> lamina.Run:
    """Few rows of as many features as there may be, of which the first and the last are active; indexed."""
    run = lamina.Run.create(tmp_path_factory.mktemp("wide") / "run")
    values, ids = torch.arange(1.0, 601).reshape(200, 3), torch.tensor([[0, 40_000, WIDEST - 1]]).expand(200, 3)
    with run.writer() as writer:
        writer.features(SITE, (values, ids), width=WIDEST, step=0)
    run.refresh().index(progress=False)
    return run.refresh()


QUESTIONS = f"""
last = {WIDEST - 1}
assert run.rows({SITE!r}, features=[last]).gather(range(200)).ravel().tolist() == list(range(3, 601, 3))
rows = run.rows({SITE!r}, features=[last, 7])
for _ in range(9):  # by the index at the end
    assert torch.equal(rows.gather([199, 0]), torch.tensor([[600.0, 0.0], [3.0, 0.0]]))
(codes,) = run.rows({SITE!r}).codes(500)
assert codes.width == {WIDEST} and codes.ids[:3].tolist() == [0, 40_000, last]
(codes,) = rows.codes(500)
assert codes.width == 2 and codes.values[-1].item() == 600
assert frame.filter(pl.col("feature") == last).collect()["value"].to_list() == list(range(3, 601, 3))
assert run.top_examples({SITE!r}, last, k=2)["value"].to_list() == [600, 597]
assert run.coactivations({SITE!r}, [(0, last), (1, 2)]).collect()["count"].to_list() == [200, 0]
try:
    run.feature_stats({SITE!r}).collect()
except Exception as error:  # of which there would be a row for each
    assert "{WIDEST:,} features do not fit" in str(error), error
else:
    raise AssertionError
"""


@pytest.mark.timeout(240)
def test_questions_cost_what_they_find_however_many_features_there_are(wide: lamina.Run) -> None:
    # parts of torch and Polars that are imported then among it; a byte a feature would be 2,147 MB
    check(wide.path, QUESTIONS, 200 << 20)


@pytest.mark.timeout(240)
def test_a_feature_of_very_many_rows_is_indexed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = lamina.Run.create(path)
    values = ((np.arange(ROWS, dtype=np.int32) % 1000) + 1).astype(np.float16)[:, None]
    with run.writer(index=False) as writer:
        for at in range(0, ROWS, 1 << 20):
            some = values[at : at + (1 << 20)]
            writer.features(SITE, (some, np.zeros(some.shape, np.uint16)), width=4, step=at)
    built = "assert _core.build_feature_index(run._snapshot, {site!r}, run.indexes()['file'][0], 1) > 0"
    # 2 bytes of a value and little more, beside 8 MB of codes at a time; sorted together they took 24
    check(path, built.format(site=SITE), 4 * ROWS + (80 << 20))
    assert run.refresh().verify(progress=False).problems.is_empty()
    stats = run.feature_stats(SITE).collect()
    assert stats["count"].to_list() == [ROWS, 0, 0, 0]
    assert stats.row(0, named=True)["mean"] == values.astype(np.float64).mean()
    assert (stats["max"][0], stats["last_step"][0]) == (1000, (ROWS - 1) >> 20 << 20)
    shown = run.top_examples(SITE, 0, k=3)
    assert (shown["row"] & (1 << 40) - 1).to_list() == [999, 1999, 2999]


def test_a_run_that_was_removed_does_not_come_back_by_its_index(wide: lamina.Run, tmp_path: Path) -> None:
    path = shutil.copytree(wide.path, tmp_path / "run")
    shutil.rmtree(path / "index")
    run = lamina.open(path)
    list(run.features(SITE).collect())  # what it reads is open
    shutil.rmtree(path)
    with pytest.raises(StorageError):
        run.index(progress=False)
    with pytest.raises(StorageError):
        _core.build_feature_index(run._snapshot, SITE, run.indexes()["file"][0], 1)
    assert not list(tmp_path.iterdir())
