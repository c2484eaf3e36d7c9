"""Edits where the name of a site, or the order of its dimensions, is not the plain one."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

import lamina
from lamina.errors import RecordingError
from lamina.recording.aliases import aliases
from tests.faults import broken
from tests.recording import families


@torch.no_grad()
def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found: Any = model(x)
    return found.logits


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3", "bert"])
def test_names_of_transformer_lens_are_edited_by_rows_and_by_functions(family, tmp_path):
    model = families.model(family)
    x = families.batch(family)
    other = x.flip(0)
    sites = [name for name, one in aliases(model).items() if name.startswith("blocks.1.") and not one.passes]
    run = lamina.Run.create(tmp_path / "run")
    lamina.capture(model, run, x, sites=sites, progress=False)
    plain = logits(model, x)

    def check() -> None:
        for name in sites:
            with lamina.edit(model, {name: run.rows(name)}):
                assert torch.equal(logits(model, x), plain)
            with lamina.edit(model, {name: lambda value: value * 0.5 + 1}):
                assert not torch.equal(logits(model, x), plain)

    check()
    with lamina.edit(model, {"blocks.1.hook_resid_post": run.rows("blocks.1.hook_resid_post")}):
        assert torch.equal(logits(model, other), plain)
    if family.startswith("gpt"):
        with broken("edits_put_parts_first"), pytest.raises(AssertionError):
            check()


def test_a_part_of_a_projection_is_edited_and_the_others_stay():
    model = families.model("gpt2")
    seen: dict[str, torch.Tensor] = {}

    def check() -> None:
        with (
            lamina.edit(model, {"blocks.0.attn.hook_k": lambda value: value * 0}, where=pl.col("position") > 2),
            lamina.edit(model, {"transformer.h.0.attn.c_attn.output": lambda value: seen.update(whole=value) or value}),
        ):
            logits(model, families.batch("gpt2"))
        q, k, v = seen["whole"].split(32, -1)
        assert not k[:, 3:].any()
        assert k[:, :3].all()
        assert q.all()
        assert v.all()

    check()
    with broken("edits_put_parts_first"), pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(
    ("family", "name", "site"),
    [
        ("gpt2", "hook_resid_mid", "transformer.h.0.ln_2.input"),
        ("bert", "mlp.hook_in", "bert.encoder.layer.0.attention.output.LayerNorm.output"),
    ],
)
def test_a_name_whose_tensor_flows_past_the_site_raises(family, name, site):
    model = families.model(family)

    def check() -> None:
        with pytest.raises(RecordingError, match=rf"blocks.0.{name}' can be recorded and not edited.* {site}"):
            lamina.edit(model, {f"blocks.*.{name}": torch.tensor(0.0)})

    check()
    lamina.edit(model, {site: torch.tensor(0.0)})
    with broken("edits_pass_by_what_has_the_name"), pytest.raises(pytest.fail.Exception):
        check()


class Reads(nn.Module):
    """Positions before the batch, as recurrent layers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.GRU(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(x.transpose(0, 1))[0]).transpose(0, 1)


def test_a_layout_says_which_dimension_is_the_batch(tmp_path):
    torch.manual_seed(0)
    model, site, layout = Reads(), "read.output[0]", "position batch width"
    run = lamina.Run.create(tmp_path / "run")
    # As many items as positions: nothing but the layout tells them apart.
    x, other = torch.randn(4, 4, 2), torch.randn(4, 4, 2)
    lamina.capture(model, run, x, sites={site: lamina.Site(layout=layout)}, progress=False)
    plain, others = model(x).detach(), model(other).detach()

    def check() -> None:
        with torch.no_grad():
            with lamina.edit(model, {site: run.rows(site)}, layout=layout):
                assert torch.equal(model(other), plain)
            late = pl.col("position") > 1
            for change in (run.rows(site), lambda value: run.rows(site).gather(range(16)).view(4, 4, 4)):
                with lamina.edit(model, {site: change}, layout=layout, where=late):
                    found = model(other)
                assert torch.equal(found[:, 2:], plain[:, 2:])
                assert torch.equal(found[:, :2], others[:, :2])

    check()
    with broken("edits_ignore_layouts"), pytest.raises(AssertionError):
        check()
    with pytest.raises(RecordingError, match=r"4 items, and the site .* 5"), lamina.edit(model, {site: run.rows(site)}):
        model(torch.randn(4, 5, 2))


def test_places_of_an_image_are_edited_one_by_one(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 3)).eval()
    site, layout = "0.output", "batch channel height width"
    x, other = torch.randn(5, 1, 6, 6), torch.randn(5, 1, 6, 6)
    run = lamina.Run.create(tmp_path / "run")
    lamina.capture(model, run, x, sites={site: lamina.Site(layout=layout)}, progress=False)
    plain = model(x).detach()
    for memory in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad(), lamina.edit(model, {site: run.rows(site)}, layout=layout):
            assert torch.equal(model(other.to(memory_format=memory)), plain)
    seen: list[torch.Tensor] = []
    with (
        lamina.edit(model, {site: torch.tensor(0.0)}, layout=layout, where=pl.col("position") != 6),
        lamina.edit(model, {site: lambda value: seen.append(value) or value}),
    ):
        model(x)
    assert seen[0].any(1).nonzero()[:, 1:].unique(dim=0).tolist() == [[1, 2]]
    with (
        pytest.raises(RecordingError, match=r"4 numbers each.*\(give the layout="),
        lamina.edit(model, {site: run.rows(site)}),
    ):
        model(x)


def test_a_wrapper_around_the_model_leaves_sites_and_numbering_as_they_are(tmp_path):
    class Wraps(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any) -> Any:
            return self.module(*args)

    torch.manual_seed(0)
    model, x = Wraps(nn.Sequential(nn.Linear(2, 3), nn.Tanh())), torch.randn(4, 2)
    run = lamina.Run.create(tmp_path / "run")
    lamina.capture(model.module, run, x, sites="0.output", progress=False)
    with lamina.edit(model, {"module.0.output": run.rows("0.output")}):
        assert torch.equal(model(torch.zeros(4, 2)), model.module(x))
