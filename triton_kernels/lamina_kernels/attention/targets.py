"""Keys that somebody asks the weight of: at an offset, at an index, or a set of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lamina_kernels.attention.places import in_window, places
from lamina_kernels.attention.problem import Problem
from lamina_kernels.attention.reference import scored

MOST_SETS = 16

Target = int | torch.Tensor


@dataclass(frozen=True)
class Targets:
    """Targets in the order they were named.

    Attributes:
        names: All of them.
        keys: By name, the rows of k, int64 [1 or B, 1 or H, Nq], and whether the query sees that key, [B, H, Nq].
        sets: Names of sets of keys, in the order of the columns.
        columns: [1 or B, 1 or H, Nk, sets] float32, 1 for the keys of a set, or None.
    """

    names: tuple[str, ...]
    keys: dict[str, tuple[torch.Tensor, torch.Tensor]]
    sets: tuple[str, ...]
    columns: torch.Tensor | None


def resolve(p: Problem, targets: Mapping[str, Target] | None) -> Targets:
    """Check targets and say which keys they are; `attend` documents them."""
    if targets is not None and not isinstance(targets, Mapping):
        raise TypeError(f"attend: targets is {type(targets).__name__}, expected a dictionary of names")
    keys, sets = {}, {}
    for name, target in (targets or {}).items():
        if isinstance(target, int) and not isinstance(target, bool):
            keys[name] = _at(p, places(p).queries[None, None] + target)
        elif not isinstance(target, torch.Tensor):
            raise TypeError(
                f"attend: targets[{name!r}] is {type(target).__name__}, expected an offset (int), an index (int64 "
                "tensor) or a set of keys (bool tensor)"
            )
        elif target.dtype == torch.bool:
            sets[name] = _fitted(p, name, target, p.k.shape[2], "keys")
        elif target.dtype == torch.int64:
            keys[name] = _at(p, _fitted(p, name, target, p.q.shape[2], "queries"))
        else:
            raise ValueError(f"attend: targets[{name!r}] is {target.dtype}, expected int64 (an index) or bool (a set)")
    if len(sets) > MOST_SETS:
        raise ValueError(f"attend: targets has {len(sets)} sets of keys, expected at most {MOST_SETS}")
    columns = None
    if sets:
        columns = torch.stack(torch.broadcast_tensors(*sets.values()), -1).float()
    return Targets(tuple(targets or {}), keys, tuple(sets), columns)


def masses(
    p: Problem, targets: Targets, lse: torch.Tensor | None, columns: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Return the weight on each target, [B, H, Nq], differentiable.

    Args:
        p: The problem.
        targets: What `resolve` returned.
        lse: [B, H, Nq], with the sink; None for a sigmoid.
        columns: [B, H, Nq, sets]: the weight on each set of keys, from the pass that computed the output.
    """
    found = {}
    for name in targets.names:
        if name in targets.keys:
            found[name] = _weight(p, *targets.keys[name], lse)
        elif columns is not None:
            found[name] = columns[..., targets.sets.index(name)]
    return found


def _fitted(p: Problem, name: str, target: torch.Tensor, length: int, rows: str) -> torch.Tensor:
    """Return the target as [1 or B, 1 or H, length]."""
    B, H = p.q.shape[:2]
    shape = (1,) * (3 - target.ndim) + tuple(target.shape)
    if target.ndim not in (1, 2, 3) or shape[2] != length or shape[1] not in (1, H) or shape[0] not in (1, B):
        raise ValueError(
            f"attend: targets[{name!r}] has shape {list(target.shape)}, expected [{length}], [{H}, {length}] or "
            f"[{B}, {H}, {length}], one for each of the {rows} (H and B may be 1)"
        )
    if target.device != p.q.device:
        raise ValueError(f"attend: targets[{name!r}] is on {target.device}, but q is on {p.q.device}")
    return target.view(shape)


def _at(p: Problem, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row of k that each query's key is, numbered in its sequence, and whether the query sees it."""
    at = places(p)
    seen = (keys >= 0) & (keys < at.lengths) & in_window(p, at.queries - keys)
    rows = (keys + at.first_keys).clamp(0, p.k.shape[2] - 1)
    if p.mask is not None:
        seen = seen & p.mask.sees(torch.arange(p.q.shape[2], device=rows.device), rows)
    return rows, seen.expand(p.q.shape[:3])


def _weight(p: Problem, rows: torch.Tensor, seen: torch.Tensor, lse: torch.Tensor | None) -> torch.Tensor:
    """Return the weight of one key a query: one product a query, and no pass over the keys."""
    B, H, Nq = p.q.shape[:3]
    if p.k.shape[2] == 0:
        return torch.zeros(B, H, Nq, dtype=p.dtype, device=rows.device)
    at = rows.expand(B, H, Nq)
    heads = torch.arange(H, device=rows.device) // (H // p.k.shape[1])
    keys = p.k[torch.arange(B, device=rows.device)[:, None, None], heads[:, None], at]
    products = (p.q.to(p.dtype) * keys.to(p.dtype)).sum(-1, keepdim=True)
    key_scale, key_bias = (None if x is None else x.gather(2, at)[..., None] for x in (p.key_scale, p.key_bias))
    position = places(p)
    d = position.queries - (rows - position.first_keys)
    s = scored(p, products, key_scale, key_bias, d[..., None])[..., 0]
    seen = seen & (s != -torch.inf)
    if lse is not None:
        seen = seen & (lse != -torch.inf)
        s, lse = s.masked_fill(~seen, 0), lse.masked_fill(~seen, 0)
        return (s - lse).exp().masked_fill(~seen, 0)
    return s.sigmoid().masked_fill(~seen, 0)
