"""Folders that the real `datasets` 5.2 saved (tests/interchange/real/make.py), and imports that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lamina
from lamina import interchange
from lamina.errors import SchemaError
from tests.interchange.planted import held, same_bits
from tests.interchange.real import make


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with tarfile.open(Path(make.__file__).with_name("saved.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize(("name", "order"), [("shards", 1), ("turned", -1), ("splits", 1)])
def test_what_datasets_saved_comes_in_bit_for_bit(saved: Path, tmp_path: Path, name: str, order: int) -> None:
    rows = interchange.from_datasets(tmp_path / "run", saved / name, progress=False)
    run = lamina.open(tmp_path / "run")
    planted = make.values()
    assert rows == 4 * make.ROWS, "a row an example of h, and three of acts"
    assert same_bits(held(run, "h"), planted["h"][::order])
    assert same_bits(held(run, "acts"), planted["acts"][::order].reshape(-1, 4))
    frame = run.activations("h").collect()
    numbers = list(range(make.ROWS))[::order]
    assert frame["label"].to_list() == [k % 2 for k in numbers]
    assert frame["when"].to_list() == [make.START + timedelta(seconds=k) for k in numbers]
    tokens = run.activations("acts").collect()["tokens"]
    assert tokens.to_list() == [k + at for k in numbers for at in range(3)]
    if name == "splits":
        assert frame["split"].to_list() == ["train"] * 8 + ["test"] * 4


def test_a_dataset_without_rows_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no rows"):
        interchange.from_datasets(tmp_path / "run", saved / "nothing", progress=False)
    assert not list(tmp_path.iterdir())


def test_an_import_that_is_killed_is_not_there_or_is_whole(tmp_path: Path) -> None:
    values = np.arange(400_000, dtype=np.float32).reshape(-1, 4)
    table = pa.table({"h": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)})
    with pa.OSFile(str(tmp_path / "in.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=100)
    program = (
        "import sys; from lamina import interchange; print('.', flush=True);"
        "interchange.from_datasets(sys.argv[2], sys.argv[1], progress=False)"
    )
    absent = 0
    for attempt in range(5):
        target = tmp_path / f"run-{attempt}"
        arguments = [sys.executable, "-c", program, str(tmp_path / "in.arrow"), str(target)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            time.sleep(0.1 * attempt)
            os.kill(process.pid, signal.SIGKILL)
        if target.exists():
            assert same_bits(held(lamina.open(target, strict=True), "h"), values)
        else:
            absent += 1
        assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} <= {
            "in.arrow",
            *(f"run-{k}" for k in range(attempt + 1)),
        }
    assert absent > 0
