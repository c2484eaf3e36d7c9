"""The Trainer saves into a run, and resumes from what the run exports as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lamina
from lamina.interchange import from_checkpoints, to_checkpoint
from lamina.recording import saving
from tests.faults import broken
from tests.integrations.truth import same, weights

transformers = pytest.importorskip("transformers", exc_type=ImportError)
pytest.importorskip("accelerate", exc_type=ImportError)
from transformers.training_args import ParallelMode  # noqa: E402

from lamina.recording.integrations.transformers_checkpoints import LaminaCheckpoints  # noqa: E402
from tests.integrations.test_transformers import model, trainer  # noqa: E402

PARTS = ["model", "optimizer", "scheduler", "trainer_state", "rng_state", "config"]


def train(tmp_path: Path, trained: Any, callback: Any = None, resume: Any = None, **options: Any) -> Any:
    made = trainer(tmp_path, trained, callback, named=False, **options)
    made.train(resume_from_checkpoint=resume)
    return trained


def test_steps_that_are_due_are_in_the_run_and_so_is_the_end(run: lamina.Run, tmp_path: Path) -> None:
    seen = train(tmp_path, model(), LaminaCheckpoints(run, every=3))
    run.refresh()
    assert run.checkpoints().select("step").unique().collect()["step"].sort().to_list() == [0, 3, 4]
    assert same(list(run.load(4).values()), list(seen.state_dict().values()))
    assert same(list(run.load(0).values()), list(model().state_dict().values()))
    assert sorted(run.load(3, part=None)) == sorted(PARTS)
    assert run.load(3, part="config")["n_embd"] == 16
    assert run.status.state == "finished"
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_training_goes_on_from_an_export_as_if_never_stopped(run: lamina.Run, tmp_path: Path) -> None:
    whole = train(tmp_path, model(), LaminaCheckpoints(run, every=2))
    to_checkpoint(run.refresh(), tmp_path / "checkpoint-2", step=2)
    torch.manual_seed(99)
    again = train(tmp_path, model(), resume=str(tmp_path / "checkpoint-2"))
    assert same(weights(again), weights(whole))
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "checkpoint-2")
    assert same(list(loaded.state_dict().values()), list(run.load(2).values()))


def test_it_saves_where_the_trainer_does_and_its_folders_come_in(run: lamina.Run, tmp_path: Path) -> None:
    train(tmp_path, model(), LaminaCheckpoints(run), save_strategy="steps", save_steps=2)
    assert run.refresh().checkpoints().select("step").unique().collect()["step"].sort().to_list() == [2, 4]
    imported = tmp_path / "imported"
    assert from_checkpoints(imported, tmp_path / "out") == [2, 4]
    back = lamina.open(imported)
    state = run.load(2, part=None)
    loaded = back.load(2, part=None)
    assert {"model", "optimizer", "scheduler", "rng_state", "trainer_state", "config"} <= loaded.keys()
    assert all(torch.equal(loaded["model"][name], state["model"][name]) for name in loaded["model"])
    first = state["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], first)
    assert loaded["trainer_state"]["global_step"] == state["trainer_state"]["global_step"] == 2
    assert torch.equal(loaded["rng_state"]["cpu"], state["rng_state"]["cpu"])


def check_that_the_second_of_two_ranks_saves_nothing(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    callback, trained = LaminaCheckpoints(run, every=1), model()
    arguments: Any = type("Arguments", (), {"parallel_mode": ParallelMode.DISTRIBUTED})
    monkeypatch.setattr(saving, "own_rank", lambda: 1)
    callback.on_train_begin(arguments, transformers.TrainerState(), transformers.TrainerControl(), model=trained)
    callback.on_train_end(arguments, transformers.TrainerState(), transformers.TrainerControl(), model=trained)
    assert run.refresh().checkpoints().collect().is_empty()


def test_what_ranks_share_is_saved_by_the_first(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    check_that_the_second_of_two_ranks_saves_nothing(run, monkeypatch)


def test_a_second_rank_that_saves_the_same_is_noticed(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("ranks_never_share_a_model"), pytest.raises(AssertionError):
        check_that_the_second_of_two_ranks_saves_nothing(run, monkeypatch)
