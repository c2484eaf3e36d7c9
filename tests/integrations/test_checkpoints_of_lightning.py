"""Lightning saves into a run: it loads what it would have written, and a training goes on as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.interchange import from_checkpoints, to_checkpoint
from tests.integrations.truth import same, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
L: Any = pytest.importorskip("lightning.pytorch", exc_type=ImportError)
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from lamina.recording.integrations.lightning_checkpoints import LaminaCheckpointIO  # noqa: E402
from tests.integrations.test_lightning import Module, loader  # noqa: E402


def fit(module: Module, folder: Path | None = None, *, run: Any = None, ckpt_path: Any = None, **options: Any) -> None:
    """Train; with a folder, save every step."""
    torch.manual_seed(7)
    module.model[2].p = 0.0  # Lightning keeps no random states, so that dropout would be another after resuming
    given: dict[str, Any] = {"save_top_k": -1} | options
    each = [] if folder is None else [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, **given)]
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=folder is not None, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=2, accumulate_grad_batches=2, callbacks=each,
        plugins=[] if run is None else [LaminaCheckpointIO(run)],
    )  # fmt: skip
    trainer.fit(module, loader(), loader(), ckpt_path=ckpt_path)


@pytest.fixture
def trained(run: lamina.Run, tmp_path: Path) -> Module:
    module = Module()
    fit(module, tmp_path / "notes", run=run)
    return module


def test_every_step_is_in_the_run(run: lamina.Run, tmp_path: Path, trained: Module) -> None:
    assert same(list(run.refresh().load(4).values()), weights(trained))
    assert run.checkpoints().select("step").unique().collect()["step"].sort().to_list() == [1, 2, 3, 4]
    assert run.load(4, part="trainer")["global_step"] == 4
    assert run.status.state == "finished"
    assert {path.stat().st_size < 1000 for path in (tmp_path / "notes").iterdir()} == {True}


def test_a_training_goes_on_as_if_never_stopped(run: lamina.Run, tmp_path: Path, trained: Module) -> None:
    again = Module()
    fit(again, run=run, ckpt_path=tmp_path / "notes" / "step=2.ckpt")
    assert same(weights(again), weights(trained))


def test_it_loads_what_lightning_would_have_written(run: lamina.Run, tmp_path: Path) -> None:
    plain = Module()
    fit(plain, tmp_path / "plain")
    fit(Module(), tmp_path / "notes", run=run)
    written = torch.load(tmp_path / "plain" / "step=3.ckpt", weights_only=True)
    loaded = LaminaCheckpointIO(run).load_checkpoint(tmp_path / "notes" / "step=3.ckpt")
    assert loaded.keys() == written.keys()
    assert same(list(loaded["state_dict"].values()), list(written["state_dict"].values()))
    assert loaded["loops"] == written["loops"]
    assert loaded["optimizer_states"][0]["param_groups"] == written["optimizer_states"][0]["param_groups"]
    # files that Lightning wrote load too
    assert LaminaCheckpointIO(run).load_checkpoint(tmp_path / "plain" / "step=3.ckpt")["loops"] == written["loops"]
    # and its files come in as the same parts
    from_checkpoints(tmp_path / "imported", tmp_path / "plain", step=3)
    assert list(lamina.open(tmp_path / "imported").load(3, part=None)) == ["model", "optimizer", "trainer"]


def test_an_export_needs_no_run(run: lamina.Run, tmp_path: Path, trained: Module) -> None:
    to_checkpoint(run.refresh(), tmp_path / "two.ckpt", step=2)
    again = Module()
    fit(again, ckpt_path=tmp_path / "two.ckpt")
    assert same(weights(again), weights(trained))


def test_what_lightning_removes_stays_in_the_run(run: lamina.Run, tmp_path: Path) -> None:
    fit(Module(), tmp_path / "notes", run=run, save_top_k=1)
    assert len(list((tmp_path / "notes").iterdir())) == 1
    assert run.refresh().checkpoints().select("step").unique().collect().height == 4


def test_a_note_finds_a_run_that_has_moved_and_no_other(run: lamina.Run, tmp_path: Path) -> None:
    saver = LaminaCheckpointIO(run)
    saver.save_checkpoint({"any": torch.ones(2), "epoch": 1}, tmp_path / "step_7.ckpt")
    assert saver.load_checkpoint(tmp_path / "step_7.ckpt")["any"].tolist() == [1, 1], "before it is durable, too"
    saver.teardown()
    moved = tmp_path / "moved"
    run.path.rename(moved)
    assert LaminaCheckpointIO(lamina.open(moved)).load_checkpoint(tmp_path / "step_7.ckpt")["epoch"] == 1
    other = lamina.Run.create(run.path)
    with pytest.raises(NotFoundError, match="another run"):
        LaminaCheckpointIO(lamina.Run.create(tmp_path / "third")).load_checkpoint(tmp_path / "step_7.ckpt")
    with pytest.raises(SchemaError, match="tells no step"):
        LaminaCheckpointIO(other).save_checkpoint({"any": 1}, tmp_path / "last.ckpt")
    with pytest.raises(SchemaError, match="nothing else is unpickled"):
        from_checkpoints(tmp_path / "x", tmp_path / "step_7.ckpt")
