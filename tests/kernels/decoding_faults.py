"""Named faults of decoding and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.faults import fault


def _runs(patch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Change the order of entries by unit."""
    from lamina_kernels.sparse.decoding import op

    whole = op.runs
    patch.setattr(op, "runs", lambda *given: change(whole(*given)))


@fault
def decode_sums_runs_in_one_piece(patch: pytest.MonkeyPatch) -> None:
    """However many entries a unit has, they are added one after the other."""
    from lamina_kernels.sparse.decoding import units

    patch.setattr(units, "PIECE", 10**9)


@fault
def decode_forgets_the_pieces(patch: pytest.MonkeyPatch) -> None:
    """Units with many entries get no gradient."""
    _runs(patch, lambda r: r._replace(piece_ends=r.piece_starts))


@fault
def decode_takes_the_first_row_of_a_unit(patch: pytest.MonkeyPatch) -> None:
    """Of the entries of a unit the first alone counts."""
    _runs(patch, lambda r: r._replace(ends=torch.minimum(r.ends, r.starts + 1)))


@fault
def decode_forgets_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Of entries of one unit in one row the first alone counts."""
    from lamina_kernels.sparse.decoding import blocked, reference
    from lamina_kernels.sparse.decoding.entries import Entries

    def once(e: Entries) -> Entries:
        values, seen = e.values.clone(), set()
        for row, (first, last) in enumerate(zip(e.offsets[:-1].tolist(), e.offsets[1:].tolist(), strict=True)):
            for at in range(first, last):
                key = row, int(e.ids[at])
                values[at] *= key not in seen
                seen.add(key)
        return e._replace(values=values)

    sums, decode = blocked.sums, reference.decode
    patch.setattr(blocked, "sums", lambda *given: sums(*once(Entries(*given[:3])), *given[3:]))
    patch.setattr(reference, "decode", lambda e, *rest: decode(once(e), *rest))


@fault
def decode_sums_in_half_precision(patch: pytest.MonkeyPatch) -> None:
    """Atoms are rounded to few digits before they are summed."""
    whole = torch.embedding_bag
    patch.setattr(
        torch, "embedding_bag", lambda table, *rest, **named: whole(table.bfloat16().to(table.dtype), *rest, **named)
    )


@fault
def decode_counts_a_bias_for_every_layer(patch: pytest.MonkeyPatch) -> None:
    """All layers get the bias of the first."""
    from lamina_kernels.sparse.decoding import api, op

    whole = op.decode
    patch.setattr(api.op, "decode", lambda e, w, b, form: whole(e, w, b if b is None else b[:1].expand_as(b), form))


def _launch(patch: pytest.MonkeyPatch, plan: str, programs: int = 0, **changes: Any) -> None:
    """Replace arguments and constants of the launches of a kernel, and leave programs out."""
    from lamina_kernels.sparse.decoding import launch

    whole = getattr(launch, plan)

    def changed(*given: Any) -> Any:
        made = whole(*given)
        return made._replace(grid=(made.grid[0] - programs,), arguments=made.arguments | changes)

    patch.setattr(launch, plan, changed)


@fault
def decode_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its results are whatever the memory held."""
    _launch(patch, "sums_plan", programs=1)


@fault
def decode_kernel_skips_a_program_of_products(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its results are whatever the memory held."""
    _launch(patch, "products_plan", programs=1)


@fault
def decode_kernel_ignores_the_order(patch: pytest.MonkeyPatch) -> None:
    """Entries by unit are taken with the values of others."""
    _launch(patch, "sums_plan", order=None)


@fault
def decode_kernel_forgets_the_bias(patch: pytest.MonkeyPatch) -> None:
    """Rows are sums of atoms alone."""
    _launch(patch, "sums_plan", bias=None)


@fault
def decode_kernel_takes_broken_ids(patch: pytest.MonkeyPatch) -> None:
    """An id without an atom adds nothing."""
    import triton.language as tl

    from lamina_kernels.sparse.decoding import forward, products

    for room in (forward, products):
        patch.setattr(room, "NO_ATOM", tl.constexpr(0.0))


@fault
def decode_copies_one_piece(patch: pytest.MonkeyPatch) -> None:
    """Products of the entries behind the first piece are what stood in memory."""
    from lamina_kernels.sparse.decoding import blocked

    whole = blocked.tiles
    patch.setattr(blocked, "tiles", lambda rows, block: list(whole(rows, block))[:1])
