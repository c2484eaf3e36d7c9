"""Small models of Transformers with random weights, and statistics of the weights that they return themselves."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 0}
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 4}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", TEXT),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 50}),
    "neox": ("GPTNeoXConfig", TEXT),
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "gemma2": ("Gemma2Config", GROUPED | {"sliding_window": 4, "attn_logit_softcapping": 0.5}),
    "vit": ("ViTConfig", SIZES | {"image_size": 8, "patch_size": 4}),
}

# Of each family, the first module that attends.
FIRST = {
    "bert": "encoder.layer.0.attention.self",
    "gpt2": "h.0.attn",
    "neox": "layers.0.attention",
    "llama": "layers.0.self_attn",
    "qwen2": "layers.0.self_attn",
    "gemma2": "layers.0.self_attn",
    "vit": "layers.0.attention",
}


def build(family: str, implementation: str | None = "sdpa", *, layers: int = 2) -> Any:
    """Return a model whose scores spread widely enough to tell its keys apart."""
    import transformers

    torch.manual_seed(0)
    name, options = CONFIGS[family]
    config = getattr(transformers, name)(**options | {"n_layer" if family == "gpt2" else "num_hidden_layers": layers})
    if family == "gemma2":
        implementation = "eager"
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.5)
    return model.eval()


def batch(family: str, *, padded: bool = False) -> dict[str, torch.Tensor]:
    """Return a batch of two items; the second one may be padded on the right."""
    g = torch.Generator().manual_seed(1)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=g)}
    given = {"input_ids": torch.randint(1, 50, (2, 9), generator=g)}
    if padded:
        given["attention_mask"] = (torch.arange(9) < torch.tensor([[9], [6]])).long()
    return given


def outputs(model: nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**given).last_hidden_state


def of_weights(p: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the statistics that weights [B, H, T, S] tell."""
    p = p.double()
    own, keys = torch.arange(p.shape[2])[:, None] + p.shape[3] - p.shape[2], torch.arange(p.shape[3])
    found = {
        "entropy": torch.special.entr(p).sum(-1),
        "participation_ratio": 1 / p.square().sum(-1),
        "max_key": p.argmax(-1),
        "distance": (p * (own - keys).abs()).sum(-1),
        "previous": (p * (keys == own - 1)).sum(-1),
        "sink": p[..., 0],
        "self": (p * (keys == own)).sum(-1),
        "next": (p * (keys == own + 1)).sum(-1),
        "received": p.sum(2),
    }
    return {name: value.transpose(1, 2) for name, value in found.items()}


TOLD = ("entropy", "participation_ratio", "max_key", "distance", "previous", "sink", "self", "next", "received")


def check(found: dict[str, torch.Tensor], p: torch.Tensor, prefix: str) -> None:
    """Compare what was received from a module with the weights that it returned in float32."""
    for name, value in of_weights(p).items():
        close = functools.partial(torch.testing.assert_close, rtol=2e-5, atol=2e-5)
        close(found[f"{prefix}.{name}"].double(), value.double())
