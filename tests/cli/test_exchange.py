from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

import lamina


@pytest.mark.parametrize("ending", [".npy", ".npz", ".safetensors", ".parquet", ".arrow"])
def test_the_ending_names_the_format(command: Callable, tmp_path: Path, ending: str) -> None:
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = tmp_path / f"h{ending}"
    match ending:
        case ".npy":
            np.save(path, values)
        case ".npz":
            np.savez(path, h=values)
        case ".safetensors":
            save_file({"h": torch.from_numpy(values)}, path)
        case ".parquet":
            pl.DataFrame({"h": values}).write_parquet(path)
        case ".arrow":
            table = pa.table({"h": values.tolist()})
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    done = command("import", path, tmp_path / "run", "--step", "7")
    assert (done.code, done.out) == (0, f"4 rows in {tmp_path / 'run'}\n")
    assert lamina.open(tmp_path / "run").rows("h", step=7).gather([3]).tolist() == [[6.0, 7.0]]


def test_names_are_chosen_and_changed(command: Callable, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), y=np.zeros((3, 2)), doc=np.array([5, 5, 6]))
    command(
        "import", tmp_path / "a.npz", tmp_path / "run", "--site", "x=mlp.output", "--example", "doc", "--source", ""
    )
    run = lamina.open(tmp_path / "run")
    assert run.sites()["site"].to_list() == ["mlp.output"]
    assert run.rows("mlp.output").metadata(["example"])["example"].to_list() == [5, 5, 6]
    assert "source" not in run.activations().collect_schema()


def test_a_raw_file_needs_its_shape(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(24))
    done = command("import", tmp_path / "x.bin", tmp_path / "run")
    assert done.code == 1
    assert "x.bin does not show its format\nhint: give --format: npy, npz, raw" in done.err
    done = command("import", tmp_path / "x.bin", tmp_path / "run", "--format", "raw", "--shape", "-1,4")
    assert "give --shape and --dtype" in done.err
    options = ["--format", "raw", "--shape", "-1,4", "--dtype", "bf16", "--site", "h"]
    assert command("import", tmp_path / "x.bin", tmp_path / "run", *options).code == 0
    assert lamina.open(tmp_path / "run").rows("h").shape == (3, 4)


@pytest.mark.parametrize("ending", ["safetensors", "parquet", "zarr"])
def test_a_run_is_exported(command: Callable, tmp_path: Path, recorded: Path, ending: str) -> None:
    target = tmp_path / f"x.{ending}"
    arguments = ["--site", "mlp.*", "--step", "0", "--step", "10", "--where", "example < 2"]
    done = command("export", recorded, target, *arguments)
    assert (done.code, done.out) == (0, f"4 rows in {target}\n")
    assert target.exists()
    if ending == "safetensors":
        assert load_file(target)["mlp.output"].shape == (4, 3)
    done = command("export", recorded, target)
    assert done.code == 1
    assert "exists" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.csv"], "no ending that names a format"),
        (["x.zarr", "--bits"], "--bits is for Parquet"),
        (["x.zarr", "--shard-bytes", "5"], "--shard-bytes is for safetensors"),
        (["x.zarr", "--where", "example <"], "--where example <"),
        (["x.zarr", "--where", "exampl < 1"], "exampl"),
        (["x.zarr", "--site", "none"], "no site matches 'none'"),
    ],
)
def test_what_cannot_be_exported_says_why(
    command: Callable, tmp_path: Path, recorded: Path, arguments: list[str], message: str
) -> None:
    done = command("export", recorded, tmp_path / arguments[0], *arguments[1:])
    assert done.code == 1
    assert message in done.err
    assert not (tmp_path / arguments[0]).exists()


def test_checkpoints_come_in_and_go_out(command: Callable, tmp_path: Path, recorded: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    for step in (5, 10, 20):
        torch.save({"model": {"w": torch.full((2,), step)}}, suite / f"step_{step}.pt")
    done = command("import", suite, tmp_path / "run", "--step", "10:20", "--part", "model=weights")
    assert (done.code, done.out) == (0, f"2 checkpoints in {tmp_path / 'run'}\n")
    run = lamina.open(tmp_path / "run")
    assert run.load(20, part="weights")["w"].tolist() == [20, 20]
    # a run of checkpoints alone, and one with rows beside them
    done = command("export", run.path, tmp_path / "w.safetensors", "--part", "weights")
    assert (done.code, done.out) == (0, f"step 20 in {tmp_path / 'w.safetensors'}\n")
    assert load_file(tmp_path / "w.safetensors")["w"].tolist() == [20, 20]
    assert command("export", recorded, tmp_path / "r.safetensors", "--step", "10", "--part", "model").code == 0
    assert load_file(tmp_path / "r.safetensors")["weight"].tolist() == [[10, 10], [10, 10]]
    assert command("export", recorded, tmp_path / "r.pt", "--step", "0").code == 0
    assert (torch.load(tmp_path / "r.pt", weights_only=False)["weight"] == 0).all()
    done = command("export", recorded, tmp_path / "out", "--step", "all", "--format", "folder")
    assert done.out == f"3 steps, 0 to 20, in {tmp_path / 'out'}\n"
    assert command("import", tmp_path / "out", tmp_path / "again").code == 0
    assert lamina.open(tmp_path / "again").load(20)["weight"].tolist() == [[20, 20], [20, 20]]
    for arguments, message in {
        ("export", recorded, tmp_path / "x.pt", "--site", "mlp"): "checkpoints have no sites",
        ("export", recorded, tmp_path / "x.zarr", "--part", "model"): "checkpoints are not exported to zarr",
        ("export", recorded, tmp_path / "x.pt", "--step", "4"): "no checkpoint at step 4",
        ("import", suite, tmp_path / "x", "--site", "a"): "checkpoints have no sites",
        ("import", suite, tmp_path / "x", "--step", "a"): "give a step",
        ("import", tmp_path / "suit", tmp_path / "x"): f"there is nothing at {tmp_path / 'suit'}",
    }.items():
        done = command(*arguments)
        assert (done.code, message in done.err) == (1, True), done.err


def test_folders_of_distributed_checkpoints_go_out_and_come_in(
    command: Callable, tmp_path: Path, recorded: Path
) -> None:
    done = command("export", recorded, tmp_path / "dcp", "--format", "dcp", "--step", "10")
    assert (done.code, done.out) == (0, f"step 10 in {tmp_path / 'dcp'}\n")
    assert command("import", tmp_path / "dcp", tmp_path / "again", "--step", "12").out.startswith("1 checkpoint in ")
    loaded = lamina.open(tmp_path / "again").load(12, part="model")
    assert loaded["weight"].tolist() == [[10, 10], [10, 10]]
    assert command("import", tmp_path / "dcp", tmp_path / "whole", "--step", "0", "--part", "all").code == 0
    assert set(lamina.open(tmp_path / "whole").load(0, part=None)) == {"all"}
    for arguments, message in {
        ("export", recorded, tmp_path / "x", "--format", "dcp", "--step", "all"): "holds one step",
        ("import", tmp_path / "dcp", tmp_path / "x", "--site", "a"): "has no sites",
        ("import", tmp_path / "dcp", tmp_path / "x"): "does not tell at which step it was taken\nhint: give --step",
    }.items():
        done = command(*arguments)
        assert (done.code, message in done.err) == (1, True), done.err


def test_what_is_imported_is_told_by_its_name_however_it_reads(command: Callable, tmp_path: Path) -> None:
    np.save(tmp_path / "h.npy", np.ones((3, 2), np.float32))
    done = command("import", tmp_path / "h.npy", tmp_path / "run[bold] :smile:")
    assert (done.code, done.out) == (0, f"3 rows in {tmp_path}/run[bold] :smile:\n")
