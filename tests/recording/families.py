"""Models of Transformers with random weights, two layers of width 32, for tests of names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lamina.recording.elements import select

FAMILIES = ["gpt2", "gpt_neox", "gpt_neox sequential", "llama", "qwen2", "qwen3", "gemma", "gemma2", "bert", "vit"]


def config(family: str) -> Any:
    """Return a configuration in which no two sizes are equal that need not be, with grouped keys where they exist."""
    import transformers

    common: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    text: dict[str, Any] = {"vocab_size": 50, "max_position_embeddings": 16, "pad_token_id": 0}
    match family:
        case "gpt2":
            return transformers.GPT2Config(
                vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4, n_inner=48, pad_token_id=0
            )
        case "gpt_neox" | "gpt_neox sequential":
            return transformers.GPTNeoXConfig(**common, **text, use_parallel_residual=family == "gpt_neox")
        case "bert":
            return transformers.BertConfig(**common, **text)
        case "vit":
            return transformers.ViTConfig(**common, image_size=8, patch_size=4)
    grouped = {**common, **text, "num_key_value_heads": 2}
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma", "gemma2": "Gemma2"}[family]
    head = {} if family in ("llama", "qwen2") else {"head_dim": 8}
    return getattr(transformers, f"{name}Config")(**grouped, **head)


def model(family: str, head: str = "AutoModelForCausalLM") -> Any:
    """Return a model in evaluation mode, with weights that make every tensor tell itself from every other."""
    import transformers

    if head == "AutoModelForCausalLM":
        head = {"bert": "AutoModelForMaskedLM", "vit": "AutoModelForImageClassification"}.get(family, head)
    torch.manual_seed(0)
    made = getattr(transformers, head).from_config(config(family), attn_implementation="eager").eval()
    with torch.no_grad():
        # New norms and biases do nothing, and new weights very little.
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made


def batch(family: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if family == "vit":
        return torch.randn(2, 3, 8, 8, generator=generator)
    return torch.randint(1, 50, (2, 6), generator=generator)


def tensors(model: nn.Module, sites: Iterable[str], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what plain hooks see at sites during one pass; a site that does not fire is missing."""
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for site in set(sites):
        path, _, kind = site.rpartition(".")
        module = model.get_submodule(path)

        def after(_module: nn.Module, _args: Any, output: Any, site: str = site) -> None:
            seen[site] = select(output, (), site).clone()

        def before(_module: nn.Module, args: Any, kwargs: Any, site: str = site) -> None:
            seen[site] = select(dict(enumerate(args)) | kwargs, (), site).clone()

        if kind == "output":
            handles.append(module.register_forward_hook(after))
        else:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen
