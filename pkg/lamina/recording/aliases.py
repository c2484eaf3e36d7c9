"""The names that TransformerLens gives to tensors, as other names of sites."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.modules.wrappers import plain_modules

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Alias:
    """Where the tensor of a name is.

    Attributes:
        site: The site whose tensor it is, or is a part of.
        part: What makes it of the site's tensor, by selecting entries and without computing any; None if it is the
            whole. Heads stand side by side in the last dimension. Parts of the same kind are equal.
        passes: Whether an edit of the site would be no edit of what has the name, which goes to other places than the
            site's tensor.
    """

    site: str
    part: Callable[[torch.Tensor], torch.Tensor] | None = None
    passes: bool = False


@dataclass(frozen=True)
class Third:
    """One of queries, keys and values that share the last dimension: side by side, or side by side in each head."""

    index: int
    heads: int = 1

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the third, a view if all heads stand together."""
        return tensor.unflatten(-1, (self.heads, 3, -1))[..., self.index, :].flatten(-2)


@dataclass(frozen=True)
class Heads:
    """Heads that have a dimension of their own, behind batch and position."""

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the heads side by side."""
        return tensor.flatten(2) if tensor.ndim == 4 else tensor


PARTS: dict[str, Callable[[Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "query": lambda config: Third(0),
    "key": lambda config: Third(1),
    "value": lambda config: Third(2),
    "query of each head": lambda config: Third(0, config.num_attention_heads),
    "key of each head": lambda config: Third(1, config.num_attention_heads),
    "value of each head": lambda config: Third(2, config.num_attention_heads),
    "heads": lambda config: Heads(),
}
"""The parts that the table names, made from a model's configuration."""

_IN_HEADS = {"hook_q", "hook_k", "hook_v", "hook_z"}


def aliases(model: nn.Module) -> dict[str, Alias]:
    """Return every TransformerLens name that a model offers, with the site that it stands for.

    A name means what TransformerLens 4 caches under it for the same weights, without folded or centered ones, in
    evaluation mode. Only tensors that a module takes or gives, or parts of them, have a name: nothing is
    computed for one. Several names may stand for one tensor.

    Args:
        model: A model of Transformers, the bare one or with any head, also compiled or inside of one other module, or
            a model of TransformerLens, where every hook point has its name.

    Returns:
        The aliases by name, in the order in which a forward pass reaches their tensors; none if the table does not
        know the model, or if it is not clear which of several is meant.

    Example:
        >>> from transformers import GPT2Config, GPT2Model
        >>> from lamina.recording.aliases import aliases
        >>> aliases(GPT2Model(GPT2Config(n_layer=2, n_embd=32, n_head=4)))["blocks.1.hook_resid_post"].site
        'h.1.output'
    """
    modules = _modules(model)
    return _hook_points(modules) or _of_transformers(modules)


def families() -> list[str]:
    """Return the models that the table knows, by the `model_type` of their configurations."""
    return sorted(map(str, _families()))


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules by their paths, as sites write them."""
    return dict(plain_modules(model))


def _hook_points(modules: dict[str, nn.Module]) -> dict[str, Alias]:
    points = getattr(modules[""], "hook_dict", None)
    if not isinstance(points, dict):
        return {}
    paths: dict[int, str] = {}
    for path, module in modules.items():
        if id(module) not in paths or len(path) < len(paths[id(module)]):
            paths[id(module)] = path
    return {
        name: Alias(f"{paths[id(point)]}.output", Heads() if name.split(".")[-1] in _IN_HEADS else None)
        for name, point in points.items()
        if id(point) in paths
    }


def _of_transformers(modules: dict[str, nn.Module]) -> dict[str, Alias]:
    found = [path for path, module in modules.items() if _family(module) is not None]
    # A base model inside of the model that was found is a part of it; one beside it is another model.
    root = found[0] if found else ""
    if not found or any(not _is_inside(path, root) for path in found):
        return {}
    whole = modules[root]
    prefix = str(getattr(whole, "base_model_prefix", ""))
    base = _joined(root, prefix) if prefix and _joined(root, prefix) in modules else root
    family: dict[str, Any] = _family(whole) or {}
    config: Any = whole.config
    absent = {name for name, flag in family.get("unless", {}).items() if getattr(config, flag, False)}
    passing = set(family.get("passes", ()))
    offered: dict[str, Alias] = {}
    for name, place, part in _rows(family, modules, root, base):
        if name.split(".", 2)[-1] not in absent and place.rpartition(".")[0] in modules:
            short = name.split(".", 2)[-1]
            offered[name] = Alias(place, PARTS[part](config) if part else None, short in passing)
    return offered


def _rows(
    family: dict[str, Any], modules: dict[str, nn.Module], root: str, base: str
) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the site and the part of each entry of a family's table."""
    blocks = _joined(base, family["blocks"])
    enters = _joined(base, family["enters"])
    yield from _section(family["embed"], base)
    for index in range(len(list(modules[blocks].children())) if blocks in modules else 0):
        block = f"{blocks}.{index}"
        for name, place, part in _section(family["block"], block):
            yield f"blocks.{index}.{name}", enters if place == f"{block}.enters" else place, part
        enters = f"{block}.output"
    yield from _section(family["final"], base)
    yield from _section(family["head"], root)


def _section(section: dict[str, list[str]], prefix: str) -> Iterator[tuple[str, str, str]]:
    for entry, names in section.items():
        site, _, part = entry.partition(":")
        for name in names:
            yield name, _joined(prefix, site), part


def _family(module: nn.Module) -> dict[str, Any] | None:
    # Attention and other inner modules have the configuration too, but only models have this attribute.
    if not isinstance(getattr(module, "base_model_prefix", None), str):
        return None
    return _families().get(getattr(getattr(module, "config", None), "model_type", None))


@cache
def _families() -> dict[Any, dict[str, Any]]:
    table = tomllib.loads((Path(__file__).parent / "aliases.toml").read_text(encoding="utf-8"))
    return {model: family for family in table.values() for model in family["models"]}


def _is_inside(path: str, root: str) -> bool:
    return not root or path == root or path.startswith(f"{root}.")


def _joined(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix else path
