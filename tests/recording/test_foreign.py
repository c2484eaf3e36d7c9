"""Architectures that Lamina has no table for: every site of them is what plain hooks see."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import lamina
from lamina import Site
from lamina.recording.aliases import aliases
from tests.faults import broken
from tests.recording.fakes import fake_run

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(2))


@dataclass(frozen=True)
class Foreign:
    """An architecture: how it is made, what it is called with, and what the documentation records of it.

    `rows` are the rows that each of these sites has for a batch.
    """

    make: Callable[[], nn.Module]
    batch: dict[str, torch.Tensor]
    sites: dict[str, Site]
    rows: dict[str, int] = field(default_factory=dict)


def convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=10)


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4))


def mamba() -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=32, state_size=4, num_hidden_layers=2))


def mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(vocab_size=50, num_local_experts=4, pad_token_id=0, **sizes, **heads))


def clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPModel(
        CLIPConfig(
            text_config={**tower, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 49},
            vision_config={**tower, "image_size": 32, "patch_size": 8},
            projection_dim=24,
        )
    )


TEXT = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
ARCHITECTURES = {
    "ConvNeXt": Foreign(
        convnext,
        {"x": IMAGES},
        {"features.*.output": Site(layout="batch channel height width"), "avgpool.output": Site()},
        {"features.0.output": 2 * 64, "features.3.output": 2 * 16, "avgpool.output": 2},
    ),
    "VisionTransformer": Foreign(
        vision_transformer,
        {"x": IMAGES},
        {"encoder.layers.*.output": Site(), "heads.output": Site()},
        {"encoder.layers.encoder_layer_1.output": 2 * 17, "heads.output": 2},
    ),
    "T5": Foreign(
        t5,
        TEXT | {"decoder_input_ids": TOKENS[:, :5]},
        {"encoder.block.*.output[0]": Site(), "decoder.block.*.output[0]": Site()},
        {"encoder.block.1.output[0]": 2 * 7, "decoder.block.0.output[0]": 2 * 5},
    ),
    "Mamba": Foreign(
        mamba, {"input_ids": TOKENS}, {"backbone.layers.*.mixer.output": Site()}, {"backbone.layers.1.mixer.output": 14}
    ),
    "Mixtral": Foreign(
        mixtral,
        TEXT,
        {"model.layers.*.mlp.gate.output[0]": Site(layout="token width"), "model.layers.*.output": Site()},
        {"model.layers.0.mlp.gate.output[0]": 14, "model.layers.1.output": 14},
    ),
    "CLIP": Foreign(
        clip,
        TEXT | {"pixel_values": IMAGES},
        {"text_model.encoder.layers.*.output": Site(), "vision_model.encoder.layers.*.output": Site()},
        {"text_model.encoder.layers.0.output": 2 * 7, "vision_model.encoder.layers.1.output": 2 * 17},
    ),
}


@pytest.fixture(params=ARCHITECTURES)
def foreign(request) -> Foreign:
    return ARCHITECTURES[request.param]


def made(foreign: Foreign) -> nn.Module:
    torch.manual_seed(0)
    return foreign.make().eval()


def inside(value: Any) -> list[torch.Tensor]:
    """Return the tensors in what a module takes or gives."""
    if isinstance(value, torch.Tensor):
        return [value]
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for one in nested for tensor in inside(one)]


def hooked(model: nn.Module, sites: list[str], batch: dict[str, torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """Return what hooks of the test's own see: for each site the tensors of each call."""
    seen: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    with ExitStack() as stack:
        for site in sites:
            read = re.fullmatch(r"(?:(.*)\.)?(input|output)((?:\[.*\])?)", site)
            assert read is not None
            path, kind, elements = read.groups()
            keys = [int(key) if key.isdigit() else key for key in re.findall(r"\[(.*?)\]", elements)]

            def keep(value: Any, site: str = site, keys: list[int | str] = keys) -> None:
                for key in keys:
                    value = value[key]
                [tensor] = inside(value)
                seen[site].append(tensor.detach().clone())

            module = model.get_submodule(path or "")
            if kind == "output":
                handle = module.register_forward_hook(lambda _m, _a, output, keep=keep: keep(output))
            else:
                handle = module.register_forward_pre_hook(
                    lambda _m, args, kwargs, keep=keep: keep(dict(enumerate(args)) | kwargs), with_kwargs=True
                )
            stack.callback(handle.remove)
        model(**batch)
    return seen


def check_that_every_site_is_what_hooks_see(foreign: Foreign) -> None:
    model, run = made(foreign), fake_run()
    frame = lamina.sites(model, foreign.batch).frame
    names = {name for name, _ in model.named_parameters()}
    # Single numbers and masks of no rows are no sites; whole caches of other tensors stand under their elements.
    sites = [site for site, shape in frame.select("site", "shape").rows() if site not in names and shape != "1"]
    with (
        lamina.record(model, run, sites=sites) as recorder,
        pytest.warns(lamina.LaminaWarning, match="no example="),
        recorder.step(0),
    ):
        model(**foreign.batch)
    assert set(recorder.sites) == set(sites)
    expected = hooked(model, sites, foreign.batch)
    for site in sites:
        stored = [append.sites[site] for append in run.written.appends if site in append.sites]
        assert len(stored) == len(expected[site]) > 0, site
        assert all(torch.equal(a, b) for a, b in zip(stored, expected[site], strict=True)), site


def test_every_site_is_what_hooks_see(foreign):
    check_that_every_site_is_what_hooks_see(foreign)


def test_a_recorder_that_keeps_references_is_found_out():
    with broken("recorder_keeps_references"), pytest.raises(AssertionError):
        check_that_every_site_is_what_hooks_see(ARCHITECTURES["ConvNeXt"])


def test_three_lines_record_it(foreign, tmp_path):
    model = made(foreign)

    run = lamina.Run.create(tmp_path / "run")
    with lamina.record(model, run, sites=foreign.sites) as recorder, recorder.step(0, example=range(2)):
        model(**foreign.batch)

    found = dict(run.sites().select("site", "rows").rows())
    assert foreign.rows.items() <= found.items()
    for site, [value] in hooked(model, list(foreign.rows), foreign.batch).items():
        stored = torch.cat(list(run.rows(site).blocks(1024)))
        value = value.flatten(2).transpose(1, 2) if value.ndim == 4 and site.startswith("features") else value
        assert torch.equal(stored, value.reshape(len(stored), -1)), site


def test_they_are_none_that_the_project_knows(foreign):
    assert aliases(made(foreign)) == {}
