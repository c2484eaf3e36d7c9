"""The demo's autoencoder finds what was planted, and its run says how it came to it."""

from __future__ import annotations

import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import normalize

import lamina
from lamina.demo import features
from lamina.demo.autoencoder import Autoencoder, learn
from lamina.errors import LaminaWarning
from lamina.rows import Rows
from lamina.sweeps.threads import torch_threads
from tests.faults import broken, fault

DIRECTIONS, WIDTH, ACTIVE = 48, 24, 3


@fault
def atoms_are_not_learnt(patch: pytest.MonkeyPatch) -> None:
    """What an update makes of the atoms is undone."""
    patch.setattr(Autoencoder, "normalize", lambda self: self.atoms.data.copy_(self.encoder.data.new_zeros(1)))


@pytest.fixture(autouse=True)
def _one_thread():
    """Steps are small: threads that wait for each other on a busy machine take seconds for nothing."""
    with torch_threads(1):
        yield


def superposed(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """More directions than there are dimensions, and rows that are sums of a few of them, around a common point."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(DIRECTIONS, WIDTH, generator=generator))
    chosen = torch.rand(rows, DIRECTIONS, generator=generator).topk(ACTIVE, dim=1).indices
    sizes = 0.5 + torch.rand(rows, ACTIVE, generator=generator)
    return directions, (sizes[:, :, None] * directions[chosen]).sum(1) + 3 * torch.ones(WIDTH)


def trained(steps: int, seed: int = 0) -> tuple[Autoencoder, list[float], torch.Tensor]:
    directions, x = superposed(16_384)
    model = Autoencoder(x[:1024], units=2 * DIRECTIONS, k=ACTIVE, seed=seed)
    explained = [found.explained.item() for found in
                 learn(model, Rows.of(x), steps=steps, batch=256, seed=seed, learning_rate=1e-2)]  # fmt: skip
    return model, explained, directions


def check_directions(steps: int = 150) -> None:
    model, explained, directions = trained(steps)
    atoms = model.atoms.detach()
    assert (directions @ atoms.T).amax(1).mean() > 0.95
    assert explained[-1] > 0.9 > explained[0]
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(len(atoms)))


def test_planted_directions_are_found() -> None:
    check_directions()


def test_atoms_that_do_not_learn_are_noticed() -> None:
    with broken("atoms_are_not_learnt"), pytest.raises(AssertionError):
        check_directions(20)


def test_a_seed_gives_the_same_weights_again_and_another_one_others() -> None:
    once, again, other = (trained(10, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["atoms"], other["atoms"])


def test_dead_units_learn_and_the_others_do_not() -> None:
    _, x = superposed(64)
    model = Autoencoder(x, units=20, k=ACTIVE, seed=0)
    model.revived(model.codes(x), x, torch.arange(15, 20)).backward()
    for weight in (model.atoms, model.encoder):
        assert weight.grad is not None
        assert weight.grad[15:].abs().sum() > 0 == weight.grad[:15].abs().sum()


@pytest.fixture
def read(tmp_path: Path) -> lamina.Run:
    """A run in which a layer of 40 windows was recorded."""
    _, x = superposed(40 * 16)
    run = lamina.Run.create(tmp_path / "read")
    with run.writer() as writer:
        writer.append({features.SITE: x.view(40, 16, WIDTH).numpy()}, step=0, example=np.arange(40))
        writer.examples({"example": np.arange(40), "topic": ["a", "b"] * 20})
    return run.refresh()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autoencoders of a few units, and a few rows at a time."""
    for name, value in {"UNITS": 32, "ACTIVE": 3, "BATCH": 64, "_BLOCK": 100}.items():
        monkeypatch.setattr(features, name, value)


@pytest.mark.usefixtures("small")
def test_a_training_is_a_run_and_its_codes_join_the_layer(read: lamina.Run, tmp_path: Path) -> None:
    steps = features.updates(read)
    assert steps == features.PASSES * 9  # 35 windows of 16 rows, 64 at a time
    assert len(list(features.explain(read, tmp_path / "learnt", seed=0))) == steps
    training = lamina.open(tmp_path / "learnt")
    assert training.status.state == "finished"
    codes = training.features("sae.output")
    kept = [0, 1, 2, 4, 8, 16, steps]
    assert codes.select("step").unique().sort("step").collect()["step"].to_list() == kept
    assert codes.select(pl.col("example").unique().sort()).collect()["example"].to_list() == [0, 8, 16, 24, 32]
    logged = training.metrics().filter(name="validation/explained variance").sort("step").collect()["value"]
    assert len(logged) == len(kept)
    assert logged[-1] > logged[0]
    features.attach(read, training)
    joined = read.features(features.CODES)
    assert read.rows(features.CODES).shape == (640, 32)
    # what was attached are the codes of the weights that were kept last
    keys = ["example", "position", "feature"]
    last = codes.filter(step=steps).select(*keys, "value").sort(keys).collect()
    same = joined.filter(features.HELD_OUT).select(*keys, "value").sort(keys).collect()
    assert last.select(keys).equals(same.select(keys))
    np.testing.assert_allclose(last["value"], same["value"], rtol=1e-5)


def as_killed(path: Path, site: str, rows: int) -> Path:
    """Copy what a kill leaves once so many rows are durable, within a second: the files, and nobody who writes."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        run = lamina.open(path)
        if site in run.sites()["site"] and len(run.rows(site)) == rows:
            break
        time.sleep(0.05)
    return shutil.copytree(path, path.with_name("killed"))


def codes_of(run: lamina.Run, site: str) -> pl.DataFrame:
    return run.features(site).select(pl.exclude("row")).collect()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("killed", [False, True])
def test_a_training_that_is_stopped_opens_and_the_next_one_ends_alike(
    read: lamina.Run, tmp_path: Path, killed: bool
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert len(list(features.explain(read, whole, seed=0))) == features.updates(read)
    stage = features.explain(read, stopped, seed=0)
    for _ in range(6):
        next(stage)
    if killed:
        stopped = as_killed(stopped, "sae.output", 4 * 5 * 16)
    stage.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LaminaWarning)  # the log's end may be cut off
        found = lamina.open(stopped)
    assert found.status.state != "finished"
    kept = codes_of(found, "sae.output")
    assert kept["step"].unique().sort().to_list() == [0, 1, 2, 4]
    done = lamina.open(whole)
    assert kept.equals(codes_of(done, "sae.output").filter(pl.col("step") <= 4))
    assert len(list(features.explain(read, tmp_path / "again", seed=0))) == features.updates(read)
    assert codes_of(lamina.open(tmp_path / "again"), "sae.output").equals(codes_of(done, "sae.output"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("killed", [False, True])
def test_codes_that_are_half_attached_are_gone_on_with(
    read: lamina.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    assert len(list(features.explain(read, tmp_path / "learnt", seed=0)))
    training = lamina.open(tmp_path / "learnt")
    whole = lamina.open(shutil.copytree(read.path, tmp_path / "whole"))
    features.attach(whole, training)
    encode, blocks = Autoencoder.codes, 0

    def stopped(self: Autoencoder, x: torch.Tensor) -> Any:
        nonlocal blocks
        blocks += 1
        if blocks <= 4:  # the first call is of the new model itself
            return encode(self, x)
        if killed:
            as_killed(read.path, features.CODES, 300)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Autoencoder, "codes", stopped)
        with pytest.raises(KeyboardInterrupt):
            features.attach(read, training)
    run = lamina.open(read.path.with_name("killed")) if killed else read.refresh()
    assert run.status.state != "finished"
    assert len(run.rows(features.CODES)) == 300
    features.attach(run, training)
    assert len(run.rows(features.CODES)) == 640
    assert codes_of(run, features.CODES).equals(codes_of(whole, features.CODES))
    features.attach(run, training)  # nothing is left to do
    assert codes_of(run.refresh(), features.CODES).height == codes_of(whole, features.CODES).height
