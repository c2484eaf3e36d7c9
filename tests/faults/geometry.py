"""Faults of nearest rows, intrinsic dimension and neural collapse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def nearest_trusts_products(patch: pytest.MonkeyPatch) -> None:
    """Distances are what the products of single precision say."""
    import torch

    from lamina.geometry import nearest

    def trusting(aligned: Any, x: Any, at: Any) -> Any:
        there = aligned.gather(at.flatten().numpy()).x.reshape(*at.shape, -1)
        norms = x.square().sum(1)[:, None] + there.square().sum(2)
        return (norms - 2 * torch.einsum("qd,qkd->qk", x, there)).clamp_min(0).double()

    patch.setattr(nearest, "_measured", trusting)


@fault
def nearest_forgets_the_last_block(patch: pytest.MonkeyPatch) -> None:
    """The last rows are never looked at."""
    from lamina.geometry import nearest

    whole = nearest._pieces
    patch.setattr(nearest, "_pieces", lambda count, width: list(whole(count, width))[: -1 if count == 500 else None])


@fault
def twonn_takes_ratios_for_independent(patch: pytest.MonkeyPatch) -> None:
    """Rows that are each other's neighbors count as independent."""
    from importlib import import_module

    twonn = import_module("lamina.geometry.twonn")  # the room's own name for it is the function
    whole = twonn._stderr
    patch.setattr(twonn, "_stderr", lambda logs, codes, rows, neighbors: whole(logs, codes, rows, neighbors * 0 - 1))


@fault
def twonn_keeps_zero_distances(patch: pytest.MonkeyPatch) -> None:
    """Rows that coincide count as near each other."""
    from lamina.geometry import nearest

    whole = nearest.nearest

    def apart(*arguments: Any, **options: Any) -> Any:
        found = whole(*arguments, **options)
        return found._replace(distances=found.distances.clamp_min(1e-12))

    patch.setattr(nearest, "nearest", apart)


@fault
def twonn_swaps_the_neighbors(patch: pytest.MonkeyPatch) -> None:
    """The ratio is that of the third neighbor to the first."""
    from lamina.geometry import nearest

    whole = nearest.nearest

    def third(aligned: Any, queries: Any, k: int, **options: Any) -> Any:
        found = whole(aligned, queries, 3, **options)
        return found._replace(distances=found.distances[:, [0, 2]], rows=found.rows[:, [0, 2]])

    patch.setattr(nearest, "nearest", third)


@fault
def collapse_takes_rows_for_independent(patch: pytest.MonkeyPatch) -> None:
    """Every row counts as independent of all others."""
    from importlib import import_module

    room = import_module("lamina.geometry.neural_collapse")
    whole = room.align
    patch.setattr(room, "align", lambda x, y, groups, **options: whole(x, y, **options))


@fault
def collapse_forgets_the_number_of_classes(patch: pytest.MonkeyPatch) -> None:
    """NC1 is not divided by the number of classes."""
    from importlib import import_module

    room = import_module("lamina.geometry.neural_collapse")
    whole = room.nc1_to_nc3

    def wrong(n: Any, *others: Any) -> Any:
        nc1, *rest = whole(n, *others)
        return [nc1 * len(n), *rest]

    patch.setattr(room, "nc1_to_nc3", wrong)


@fault
def collapse_keeps_the_means_in_replicates(patch: pytest.MonkeyPatch) -> None:
    """Products of a replicate stay around the means of all rows."""
    from importlib import import_module

    import torch

    room = import_module("lamina.geometry.neural_collapse")
    whole = room.nc1_to_nc3
    patch.setattr(
        room,
        "nc1_to_nc3",
        lambda n, means, products, moved, weights: whole(n, means, products, torch.zeros_like(moved), weights),
    )
