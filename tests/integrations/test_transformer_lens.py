"""Models of TransformerLens train for real; each hook point's rows are what `run_with_cache` holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lamina
from tests.integrations.truth import rows, same, weights

lens: Any = pytest.importorskip("transformer_lens", exc_type=ImportError)

IDS = torch.randint(0, 32, (8, 6), generator=torch.Generator().manual_seed(1))
NAMES = [
    "hook_embed",
    "blocks.0.hook_resid_pre",
    "blocks.0.attn.hook_z",
    "blocks.1.mlp.hook_post",
    "blocks.1.hook_resid_post",
]


def bridge() -> Any:
    """A model with weights of its own, as TransformerLens 4 makes it in the place of HookedTransformer."""
    from transformer_lens.model_bridge import TransformerBridge

    config = {
        "n_layers": 2, "d_model": 16, "n_ctx": 8, "d_head": 8, "n_heads": 2, "d_mlp": 32, "d_vocab": 32,
        "act_fn": "gelu", "seed": 0,
    }  # fmt: skip
    return TransformerBridge.boot_native(config)  # pyright: ignore[reportAttributeAccessIssue]


def hooked() -> Any:
    """A model of one's own out of hook points."""
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.HookedRootModule import HookedRootModule

    class Own(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.hook_embed = nn.Embedding(32, 16), HookPoint()
            self.mlp, self.hook_post = nn.Linear(16, 16), HookPoint()
            self.unembed = nn.Linear(16, 32)
            self.setup()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.hook_embed(self.embed(ids))
            return self.unembed(x + self.hook_post(self.mlp(x).relu_()))

    torch.manual_seed(0)
    return Own()


MODELS = {"TransformerBridge": (bridge, NAMES), "HookedRootModule": (hooked, ["hook_embed", "hook_post"])}


def train(make: Any, names: list[str], run: lamina.Run | None) -> tuple[Any, list[dict[str, torch.Tensor]]]:
    """Train three steps, of which each begins with TransformerLens' own cache."""
    model = make()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    caches = []

    def step() -> None:
        logits = model(IDS)
        logits = getattr(logits, "logits", logits)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def cache() -> None:
        with torch.no_grad():
            _, cached = model.run_with_cache(IDS, names_filter=names)
        caches.append({name: cached[name].clone() for name in names})

    if run is None:
        for _ in range(3):
            cache()
            step()
        return model, caches
    with lamina.record(model, run, sites=names, optimizer=optimizer) as recorder:
        for number in range(3):
            cache()
            with recorder.step(number, example=range(8)):
                step()
    return model, caches


@pytest.mark.parametrize("kind", MODELS)
def test_hook_points_are_recorded_as_the_cache_holds_them(run, kind):
    make, names = MODELS[kind]
    plain, _ = train(make, names, None)
    recorded, caches = train(make, names, run)
    assert same(weights(recorded), weights(plain))
    run.refresh()
    for name in names:
        expected = torch.cat([cached[name].flatten(2).flatten(0, 1) for cached in caches])
        assert torch.equal(rows(run, name), expected), name
    assert not torch.equal(caches[0][names[-1]], caches[2][names[-1]])
