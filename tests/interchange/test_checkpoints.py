"""Checkpoints from elsewhere and back: what torch and safetensors say of the files is the truth."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lamina
from lamina.errors import DamagedError, LaminaWarning, NotFoundError, SchemaError, StorageError
from lamina.interchange import from_checkpoints, to_checkpoint
from lamina.interchange.checkpoint_steps import step_of
from tests.faults import broken
from tests.interchange.planted import DTYPES, stored


def weights(step: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of every dtype with the odd values among them, and of odd shapes."""
    odd: dict[str, Any] = {dtype: stored(dtype, (7, 5), step) for dtype in DTYPES}
    odd |= {
        "scalar": np.float32(step).reshape(()),
        "empty": np.zeros((0, 3)),
        "large": stored("f32", (700, 1000), step),
    }
    return {f"layers.{name}.weight": torch.as_tensor(value) for name, value in odd.items()}


def same(found: Any, expected: Any) -> bool:
    """Equal to the bit, in nested containers of the same kinds."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(found, torch.Tensor) or (found.dtype, found.shape) != (expected.dtype, expected.shape):
            return False
        as_bytes = [one.contiguous().reshape(-1).view(torch.uint8) for one in (found, expected)]
        return torch.equal(*as_bytes)
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        alike = type(found) is type(expected) and len(found) == len(expected)
        return alike and all(same(one, other) for one, other in zip(found, expected, strict=True))
    return type(found) is type(expected) and found == expected


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_a_safetensors_file_comes_in_bit_for_bit_and_goes_out_again(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "x.safetensors")
    assert from_checkpoints(tmp_path / "run", tmp_path / "x.safetensors", step=3) == [3]
    run = lamina.open(tmp_path / "run")
    assert same(dict(sorted(run.load(3).items())), dict(sorted(weights().items())))
    assert run.config == {"imported": "x.safetensors"}
    assert run.verify(progress=False).ok
    assert to_checkpoint(run, tmp_path / "back.safetensors", progress=False) == [3]
    assert same(dict(sorted(load_file(tmp_path / "back.safetensors").items())), dict(sorted(weights().items())))


def test_a_lost_block_is_noticed(tmp_path: Path) -> None:
    with broken("import_skips_a_block"), pytest.raises((AssertionError, SchemaError)):
        test_a_safetensors_file_comes_in_bit_for_bit_and_goes_out_again(tmp_path)


def test_what_torch_saved_comes_in_with_its_containers(tmp_path: Path) -> None:
    model, optimizer = trained()
    state = {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "step": 3,
        "name": "ä",
        "odd": (1, None),
    }
    torch.save(state, tmp_path / "x.pt")
    from_checkpoints(tmp_path / "run", tmp_path / "x.pt", step=3)
    assert same(lamina.open(tmp_path / "run").load(3), state)
    # entries of the file as parts
    from_checkpoints(tmp_path / "apart", tmp_path / "x.pt", step=3, parts={"model": "weights", "optimizer": "adam"})
    run = lamina.open(tmp_path / "apart")
    assert same(run.load(3, part="weights"), state["model"])
    assert same(run.load(3, part="adam"), state["optimizer"])
    assert to_checkpoint(run, tmp_path / "adam.pt", parts="adam") == [3]
    assert same(torch.load(tmp_path / "adam.pt", weights_only=True), state["optimizer"])
    optimizer.load_state_dict(run.load(3, part="adam"))


def test_what_torch_saved_of_old_comes_in(tmp_path: Path) -> None:
    state = {"a": torch.arange(5.0), "b": [1, 2.5]}
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    from_checkpoints(tmp_path / "run", tmp_path / "x.pth", step=0)
    assert same(lamina.open(tmp_path / "run").load(0), state)


class _Harmful:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize("writes", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickles_are_never_opened(tmp_path: Path, writes: Any) -> None:
    writes({"a": _Harmful()}, tmp_path / "x.pt")
    with pytest.raises((SchemaError, DamagedError)):
        from_checkpoints(tmp_path / "run", tmp_path / "x.pt", step=0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"], "nothing is left of the import"


def test_a_pickle_beside_weights_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    torch.save({"b": _Harmful()}, folder / "extra.pt")
    (folder / "training_args.bin").write_bytes(pickle.dumps(_Harmful()))
    with pytest.warns(LaminaWarning, match=r"part 'extra' is left out.*nothing else is unpickled"):
        assert from_checkpoints(tmp_path / "run", folder) == [7]
    assert list(lamina.open(tmp_path / "run").load(7, part=None)) == ["model"]
    with pytest.raises(SchemaError, match="nothing else is unpickled"):
        from_checkpoints(tmp_path / "other", folder, parts=["model", "extra"])


@pytest.mark.parametrize("library", ["safetensors", "torch"])
def test_shards_with_an_index_are_one_part(tmp_path: Path, library: str) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    names, ending = list(weights()), {"safetensors": "safetensors", "torch": "bin"}[library]
    stem = "model" if library == "safetensors" else "pytorch_model"
    files = [f"{stem}-0000{k}-of-00002.{ending}" for k in (1, 2)]
    halves = [{name: weights()[name] for name in names[k::2]} for k in (0, 1)]
    for file, half in zip(files, halves, strict=True):
        (save_file if library == "safetensors" else torch.save)(half, folder / file)
    index = {"metadata": {}, "weight_map": {name: files[at % 2] for at, name in enumerate(names)}}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"layers": 2, "eps": 1e-05, "names": ["a", null]}')
    from_checkpoints(tmp_path / "run", folder, step=1)
    run = lamina.open(tmp_path / "run")
    assert same(dict(sorted(run.load(1).items())), dict(sorted(weights().items())))
    assert run.load(1, part="config") == {"layers": 2, "eps": 1e-05, "names": ["a", None]}
    if library == "safetensors":
        (folder / f"{stem}.{ending}.index.json").unlink()
        from_checkpoints(tmp_path / "again", folder, step=1)
        assert lamina.open(tmp_path / "again").load(1).keys() == weights().keys()
    (folder / files[0]).unlink()
    with pytest.raises((DamagedError, StorageError)):
        from_checkpoints(tmp_path / "lost", folder, step=1)


def test_an_index_cannot_point_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(DamagedError, match="not beside it"):
        from_checkpoints(tmp_path / "run", folder, step=0)


def test_a_folder_goes_out_in_shards_and_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    parts = {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "config": {"hidden": [4, 2], "act": "none"},
    }
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.save(parts, step=5)
    assert to_checkpoint(run.refresh(), tmp_path / "out", shard_bytes=70) == [5]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "model-00001-of-00003.safetensors" in names
    assert {"config.json", "model.safetensors.index.json", "optimizer.pt"} <= {*names}
    from_checkpoints(tmp_path / "back", tmp_path / "out", step=5)
    back = lamina.open(tmp_path / "back").load(5, part=None)
    back["model"] = {name: back["model"][name] for name in parts["model"]}
    assert same(dict(sorted(back.items())), dict(sorted(parts.items())))


_NAMES = {
    "step_100": 100,
    "step1000-tokens4B": 1000,
    "global_step512": 512,
    "checkpoint-500": 500,
    "iter_0001000": 1000,
    "model_step_7.safetensors": 7,
    "epoch=3-step=1200.ckpt": 1200,
    "epoch_2.pt": 2,
    "ckpt-9.pth": 9,
    "000042.pt": 42,
    "revision-3": 3,
    "final": None,
    "last.ckpt": None,
    "bestep3x": None,
    "v2": None,
}


@pytest.mark.parametrize(("name", "step"), _NAMES.items())
def test_names_tell_steps(name: str, step: int | None) -> None:
    assert step_of(name) == step


@pytest.mark.parametrize("kind", ["step_{}.pt", "iter_{:07}.safetensors", "checkpoint-{}"])
def test_a_suite_comes_in_step_by_step(tmp_path: Path, kind: str) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    for step in (0, 20, 100):
        path = suite / kind.format(step)
        if kind.startswith("checkpoint"):
            path.mkdir()
            path /= "pytorch_model.bin"
        (save_file if path.suffix == ".safetensors" else torch.save)({"w": torch.full((3,), step)}, path)
    (suite / "readme.txt").write_text("no checkpoint")
    assert from_checkpoints(tmp_path / "run", suite, progress=False) == [0, 20, 100]
    run = lamina.open(tmp_path / "run")
    assert [run.load(step)["w"].tolist() for step in (0, 20, 100)] == [[0] * 3, [20] * 3, [100] * 3]
    # some of them, into a run that is there
    assert from_checkpoints(tmp_path / "some", suite, step=slice(20, None)) == [20, 100]
    assert from_checkpoints(lamina.open(tmp_path / "some"), suite, step=0) == [0]
    assert lamina.open(tmp_path / "some").load(0)["w"].tolist() == [0] * 3
    with pytest.raises(SchemaError, match="holds a part 'model' at step 0 already"):
        from_checkpoints(tmp_path / "some", suite)
    with pytest.raises(NotFoundError, match="no checkpoint of step 21"):
        from_checkpoints(tmp_path / "none", suite, step=[20, 21])
    assert to_checkpoint(run, tmp_path / "out", step=[0, 100], format="torch") == [0, 100]
    assert torch.load(tmp_path / "out" / "step_100.pt")["w"].tolist() == [100] * 3
    assert from_checkpoints(tmp_path / "back", tmp_path / "out") == [0, 100]


def test_revisions_in_the_cache_of_hugging_face(tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--suite"
    for step in (1, 2):
        (cache / "snapshots" / f"hash{step}").mkdir(parents=True)
        save_file({"w": torch.full((2,), step)}, cache / "snapshots" / f"hash{step}" / "model.safetensors")
    (cache / "refs").mkdir()
    for name, commit in {"step1": "hash1", "step2": "hash2", "main": "hash2"}.items():
        (cache / "refs" / name).write_text(commit)
    with pytest.warns(LaminaWarning, match="tell no step: main"):
        assert from_checkpoints(tmp_path / "run", cache) == [1, 2]
    assert lamina.open(tmp_path / "run").load(1)["w"].tolist() == [1, 1]


def test_a_failed_import_is_not_to_be_seen(tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    for step in (1, 2):
        save_file({"w": torch.full((300_000,), step)}, suite / f"step_{step}.safetensors")
    data = (suite / "step_2.safetensors").read_bytes()
    (suite / "step_2.safetensors").write_bytes(data[:-1])
    run = lamina.Run.create(tmp_path / "run")
    with pytest.raises(DamagedError, match="ends at byte"):
        from_checkpoints(run, suite)
    assert run.refresh().checkpoints().collect().is_empty()
    assert run.status.writers[-1].state == "failed"
    (suite / "step_2.safetensors").write_bytes(data)
    assert from_checkpoints(run, suite) == [1, 2]
    assert run.verify(progress=False).ok
    assert "chunks/000000-000000.pack" in run.gc(grace=0, progress=False).removed, "what the failed import left goes"
    assert run.load(1)["w"][0] == 1


def test_what_the_run_holds_is_not_stored_again(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.save({"model": {"w": torch.arange(600_000.0)}}, step=0)
    save_file({"w": torch.arange(600_000.0), "v": torch.ones(3)}, tmp_path / "x.safetensors")
    from_checkpoints(run.refresh(), tmp_path / "x.safetensors", step=1)
    assert run.checkpoints().filter(step=1).select("stored").sum().collect().item() == 12
    assert run.gc(grace=0, progress=False).removed == ()
    assert run.load(1)["w"].equal(torch.arange(600_000.0))


_MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"path": "none.safetensors"}, StorageError, "does not exist"),
    ({"path": "text.txt", "step": 0}, SchemaError, "no ending of a checkpoint"),
    ({"path": "x.safetensors"}, SchemaError, "at which step"),
    ({"path": "empty", "step": 0}, SchemaError, "no checkpoint that is known"),
    ({"path": "text.pt", "step": 0}, DamagedError, "no file of torch.save"),
    ({"path": "x.safetensors", "step": 0, "parts": {"modle": "a"}}, NotFoundError, "model"),
    ({"path": "twice"}, SchemaError, "are both of step 1"),
]


@pytest.mark.parametrize(("given", "kind", "text"), _MISTAKES)
def test_what_cannot_come_in_is_told(tmp_path: Path, given: dict[str, Any], kind: type[Exception], text: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice" / "step_1").mkdir(parents=True)
    (tmp_path / "twice" / "step_01").mkdir()
    with pytest.raises(kind, match=text):
        from_checkpoints(tmp_path / "run", tmp_path / given.pop("path"), **given)
    assert not (tmp_path / "run").exists()


def test_what_a_format_cannot_hold_is_told(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        tied = torch.ones(2)
        writer.save(
            {"model": OrderedDict(a=tied, b=tied), "other": {"lr": 0.1}, "c": {"z": torch.ones(1) * 1j}}, step=0
        )
    run.refresh()
    assert to_checkpoint(run, tmp_path / "m.safetensors") == [0]
    assert load_file(tmp_path / "m.safetensors").keys() == {"a", "b"}, "a tied tensor stands under each of its names"
    with pytest.raises(SchemaError, match="holds a float at lr"):
        to_checkpoint(run, tmp_path / "o.safetensors", parts="other")
    with pytest.raises(SchemaError, match="complex"):
        to_checkpoint(run, tmp_path / "c.safetensors", parts="c")
    with pytest.raises(SchemaError, match="none of Lightning's"):
        to_checkpoint(run, tmp_path / "x.ckpt")
    with pytest.raises(NotFoundError, match="no part 'nodel'"):
        to_checkpoint(run, tmp_path / "n.pt", parts="nodel")
    with pytest.raises(NotFoundError, match="no checkpoint at step 3"):
        to_checkpoint(run, tmp_path / "n.pt", step=3)
    with pytest.raises(StorageError, match="exists"):
        to_checkpoint(run, tmp_path / "m.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "run"]


def test_what_is_more_than_its_bytes_goes_out_too(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    whole = torch.arange(12.0)
    state = {
        "whole": whole, "view": whole[2:8].view(2, 3), "turned": torch.arange(6.0).view(2, 3).t(),
        "parameter": nn.Parameter(torch.ones(2)), "array": np.arange(3, dtype=np.int16), "scalar": torch.tensor(2.5),
    }  # fmt: skip
    with run.writer() as writer:
        writer.save({"model": state}, step=0)
    to_checkpoint(run.refresh(), tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], torch.as_tensor(value)) for name, value in state.items())


def test_damage_stops_an_export_and_names_the_tensor(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.save({"model": {"a": torch.ones(10), "b": torch.arange(300_000.0)}}, step=0)
    (pack,) = (run.path / "chunks").iterdir()
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    with pytest.raises(DamagedError, match='chunk 1 of tensor "b"'):
        to_checkpoint(lamina.open(run.path), tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()
