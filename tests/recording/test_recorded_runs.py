"""Recording into the real store, and asking it back."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lamina
from lamina.errors import SchemaError
from tests.recording.models import Net, linear


@pytest.fixture
def run(tmp_path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


def rows(run: lamina.Run, site: str, **where) -> torch.Tensor:
    """Return the rows of a site as one tensor."""
    return torch.cat(list(run.rows(site, **where).blocks(1024)))


def outputs(model: nn.Module, sites: list[str], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what modules return in one forward pass, by hooks of the test's own."""
    seen: dict[str, torch.Tensor] = {}

    def keep(site: str, output: Any) -> None:
        seen[site] = output[0] if isinstance(output, tuple) else output

    handles = []
    for site in sites:
        module = model.get_submodule(site.removesuffix(".output"))
        handles.append(module.register_forward_hook(lambda module, args, output, site=site: keep(site, output)))
    model(x)
    for handle in handles:
        handle.remove()
    return seen


class Tokens(nn.Module):
    """A transformer layer with positions, and a pooled head: sites of three and of two dimensions."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, dtype=dtype)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=dtype)
        self.head = nn.Linear(8, 3, dtype=dtype)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(ids)).mean(1))


class Images(nn.Module):
    """A convolution with batch statistics: a site of four dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def train(model: nn.Module, run: lamina.Run, data: list[torch.Tensor], **options) -> None:
    """Train for one step a batch; item i of batch b is the example 100 b + i."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    with lamina.record(model, run, optimizer=optimizer, **options) as recorder:
        for step, x in enumerate(data):
            example = torch.arange(len(x)) + 100 * step
            with recorder.step(step, example=example, epoch=step // 2):
                target = example % 3
                loss = nn.functional.cross_entropy(model(x), target, reduction="none")
                optimizer.zero_grad()
                loss.mean().backward()
                optimizer.step()
                recorder.put("loss", loss)
            recorder.log({"train/loss": loss.mean()})


def test_a_recorded_training_can_be_asked(run):
    model = Net()
    data = [torch.randn(5, 4) for _ in range(6)]
    train(model, run, data, sites=["blocks.*.mlp.output", "output"], every=2, checkpoint_every=4)
    assert run.status.state == "finished"
    assert run.steps() == [0, 2, 4]
    sites = run.sites().sort("site")
    assert sites["site"].to_list() == ["blocks.0.mlp.output", "blocks.1.mlp.output", "loss", "output"]
    assert sites["rows"].to_list() == [15, 15, 15, 15]
    assert sites["kind"].to_list() == ["output", "output", "value", "output"]
    frame = run.activations().sort("row").collect()
    assert frame["example"].to_list() == [100 * step + item for step in (0, 2, 4) for item in range(5)]
    assert frame["source"].unique().to_list() == ["train"]
    assert frame["epoch"].to_list() == 5 * [0] + 5 * [1] + 5 * [2]
    assert frame.null_count().sum_horizontal().item() == 0
    assert run.metrics().collect()["step"].to_list() == list(range(6))
    assert run.checkpoints().select(pl.col("step").unique().sort()).collect()["step"].to_list() == [0, 4, 6]
    for step in (0, 4, 6):
        assert list(run.load(step=step, part=None)) == ["model", "optimizer"]
        assert (len(run.load(step=step, part="optimizer")["state"]) > 0) == (step > 0)
    final = run.load(step="last")
    assert all(torch.equal(value, final[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "sites", "batch"),
    [
        (Tokens, ["layer.self_attn.output", "layer.output", "head.output"], lambda: torch.randint(0, 11, (4, 6))),
        (Images, ["conv.output", "norm.output", "head.output"], lambda: torch.randn(4, 1, 7, 7)),
    ],
)
def test_the_checkpoint_of_a_step_gives_its_recorded_rows_bit_for_bit(run, make, sites, batch):
    torch.manual_seed(0)
    data = [batch() for _ in range(5)]
    train(make(), run, data, sites=sites, checkpoint_every=1)
    again = make()
    for step in range(5):
        again.load_state_dict(run.load(step=step))
        for site, output in outputs(again, sites, data[step]).items():
            recorded = rows(run, site, step=step)
            assert torch.equal(recorded, output.reshape(len(recorded), -1)), (site, step)


def test_replayed_checkpoints_give_the_rows_of_the_live_probe_bit_for_bit(run):
    model = Net()
    probe = DataLoader(TensorDataset(torch.randn(10, 4)), batch_size=4)
    train(
        model,
        run,
        [torch.randn(5, 4) for _ in range(4)],
        sites="blocks.*.output",
        every=2,
        checkpoint_every=2,
        probes={"validation": probe},
    )
    lamina.capture(model, run, probe, sites="blocks.*.output", steps=[0, 2, 4], progress=False)
    for step in (0, 2, 4):
        live = run.activations("blocks.*.output", step=step, source="validation").sort("example").collect()
        replayed = run.activations("blocks.*.output", step=step, source="capture").sort("example").collect()
        assert live.height == 10
        assert live.drop("row", "source").equals(replayed.drop("row", "source"))


def test_tokens_become_rows_with_positions_and_the_mask_drops_padding(run):
    model, ids = Tokens(), torch.randint(0, 11, (3, 4))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    sites = ["layer.output", "head.output"]
    with lamina.record(model, run, sites=sites) as recorder, recorder.step(0, example=[7, 8, 9], mask=mask, token=ids):
        model(ids)
    tokens = run.activations("layer.output").sort("row").collect()
    assert list(zip(tokens["example"], tokens["position"], strict=True)) == [
        (7, 0), (7, 1), (7, 2), (7, 3), (8, 0), (8, 1), (9, 0),
    ]  # fmt: skip
    assert tokens["token"].to_list() == ids[mask].tolist()
    assert run.activations("head.output").sort("row").collect()["example"].to_list() == [7, 8, 9]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_dtype_comes_back_bit_for_bit(run, dtype):
    model, ids = Tokens(dtype), torch.randint(0, 11, (3, 4))
    with (
        lamina.record(model, run, sites=["embed.input", "layer.output"]) as recorder,
        recorder.step(0, example=range(3)),
        torch.no_grad(),
    ):
        expected = model.layer(model.embed(ids))
    stored = run.rows("layer.output")
    assert stored.dtype == dtype
    assert torch.equal(rows(run, "layer.output"), expected.flatten(0, 1))
    assert torch.equal(rows(run, "embed.input"), ids)


def test_many_steps_do_not_overwrite_each_other(run):
    # The same buffers serve every step, while the store writes behind the training.
    model = linear(64)
    data = [torch.full((50, 64), float(step)) for step in range(200)]
    with lamina.record(model, run, sites="output") as recorder:
        for step, x in enumerate(data):
            with recorder.step(step, example=range(50)):
                model(x)
    found = run.activations("output").select(
        "step", pl.col("output").arr.min().alias("least"), pl.col("output").arr.max()
    )
    assert found.unique().sort("step").collect().rows() == [(step, 2.0 * step, 2.0 * step) for step in range(200)]


def test_calls_of_a_shared_module_are_told_apart(run):
    shared = linear()
    model, x = nn.Sequential(shared, shared), torch.ones(3, 2)
    with lamina.record(model, run, sites="0.output") as recorder, recorder.step(0, example=range(3)):
        model(x)
    found = run.activations("0.output").sort("row").select("call", "example", pl.col("0.output").arr.first()).collect()
    assert found.rows() == [(0, i, 2.0) for i in range(3)] + [(1, i, 4.0) for i in range(3)]


def test_a_second_recording_numbers_its_items_behind_the_first(run):
    model = linear()
    for start in (0, 2):
        with lamina.record(model, run, sites="output") as recorder:
            for step in (start, start + 1):
                if step == start:
                    with pytest.warns(lamina.LaminaWarning, match="no example="), recorder.step(step):
                        model(torch.ones(3, 2))
                else:
                    with recorder.step(step):
                        model(torch.ones(3, 2))
    found = run.activations("output").sort("step", "example").select("step", "example").collect()
    assert found.rows() == [(step, 3 * step + item) for step in range(4) for item in range(3)]


@pytest.mark.parametrize("error", [FloatingPointError("loss is nan"), KeyboardInterrupt()])
def test_a_run_whose_training_raised_opens_with_what_was_recorded(run, error):
    model = linear()

    def interrupted():
        with lamina.record(model, run, sites="output") as recorder:
            for step in range(3):
                with recorder.step(step, example=range(3)):
                    model(torch.ones(3, 2))
                    if step == 2:
                        raise error

    with pytest.raises(type(error)):
        interrupted()
    again = lamina.open(run.path, strict=True)
    assert again.status.state == "failed"
    assert type(error).__name__ in str(again.status.writers)
    assert again.steps() == [0, 1]


def test_what_the_store_refuses_is_an_error_of_the_step(run):
    model = linear()

    def widen():
        with lamina.record(model, run, sites="input") as recorder:
            with recorder.step(0, example=range(3)):
                model(torch.ones(3, 2))
            with recorder.step(1, example=["a", "b", "c"]):
                model(torch.ones(3, 2))

    with pytest.raises(SchemaError, match="example"):
        widen()
    assert run.refresh().steps() == [0]


def test_capture_writes_a_run_that_can_be_asked(run):
    model, x = Net().eval(), torch.randn(10, 4)
    lamina.capture(model, run, [(x[:6], None), (x[6:], None)], sites="**.output", progress=False)
    assert run.status.state == "finished"
    with torch.no_grad():
        expected = torch.cat([model(x[:6]), model(x[6:])])
    assert torch.equal(rows(run, "output"), expected)
    frame = run.activations("output").collect()
    assert frame["example"].to_list() == list(range(10))
    assert frame["source"].unique().to_list() == ["capture"]
    assert np.isfinite(frame["output"].to_numpy()).all()
