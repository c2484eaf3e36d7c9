"""Faults of rows: their groups, pairs, batches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def buckets_by_order(patch: pytest.MonkeyPatch) -> None:
    """Groups are dealt into buckets in turn: another example more moves them all."""
    import numpy as np

    from lamina.rows import groups

    patch.setattr(
        groups,
        "hash_buckets",
        lambda data, offsets, count: (np.arange(len(offsets.view(np.int64)) - 1) % count).astype(np.uint8).tobytes(),
    )


@fault
def rows_pair_by_order(patch: pytest.MonkeyPatch) -> None:
    """Stored rows pair by order like any others."""
    from lamina.rows.rows import Rows

    patch.setattr(Rows, "stored", None)


@fault
def cka_ignores_groups(patch: pytest.MonkeyPatch) -> None:
    """Every row counts as independent of all others."""
    from lamina.rows import aligned

    whole = aligned.groups_of
    patch.setattr(aligned, "groups_of", lambda rows, groups: whole(rows, range(len(rows))))


@fault
def batches_count_what_is_gathered(patch: pytest.MonkeyPatch) -> None:
    """Batches count a batch when it was gathered, not when its consumer gets it."""
    from lamina.rows import batches

    whole = batches.Batches.state_dict

    def state_dict(self: batches.Batches) -> dict[str, Any]:
        state = whole(self)
        return state | {"position": min(self.plan.rows, state["position"] + batches.DEPTH * self.plan.size)}

    patch.setattr(batches.Batches, "state_dict", state_dict)


@fault
def orders_are_stored_order(patch: pytest.MonkeyPatch) -> None:
    """Every epoch goes through the rows as they lie."""
    from lamina._core import Order
    from lamina.rows.epochs import Plan

    patch.setattr(Plan, "order_of", lambda self, epoch: Order.stored(self.rows))


@fault
def pool_lends_what_is_seen(patch: pytest.MonkeyPatch) -> None:
    """Memory comes back as soon as it was handed out."""
    from lamina.rows import pool

    whole = pool._take

    def take(size: int) -> Any:
        memory = whole(size)
        pool._give_back(memory)
        return memory

    patch.setattr(pool, "_take", take)


@fault
def workers_all_make_all_batches(patch: pytest.MonkeyPatch) -> None:
    """Each worker takes all batches."""
    from lamina.rows import dataset

    patch.setattr(dataset, "get_worker_info", lambda: None)


@fault
def slots_are_used_while_held(patch: pytest.MonkeyPatch) -> None:
    """A worker looks whether it has a slot itself, not whether the receiver still has it."""
    from lamina.rows import slots

    patch.setattr(slots.Slot, "free", property(lambda slot: not slot._lent))


@fault
def slots_are_used_while_lent(patch: pytest.MonkeyPatch) -> None:
    """A worker looks whether the receiver has a slot, not whether it has it itself."""
    from lamina.rows import slots

    patch.setattr(slots.Slot, "free", property(lambda slot: slot.bytes[slots._STATE] == slots._FREE))


@fault
def slots_stay_in_use(patch: pytest.MonkeyPatch) -> None:
    """The receiver never says that a slot is free."""
    from lamina.rows import slots

    patch.setattr(slots, "_give_back", lambda *_: None)


@fault
def slots_forget_forks(patch: pytest.MonkeyPatch) -> None:
    """A slot that a fork of the receiver sees is free when the receiver says so."""
    from lamina.rows import slots

    patch.setattr(slots, "_bequeath", lambda: None)


@fault
def slots_are_freed_by_forks(patch: pytest.MonkeyPatch) -> None:
    """A fork of the receiver frees what the receiver still has."""
    from lamina.rows import slots

    def free(memory: Any, receiver: int) -> None:
        memory[slots._STATE] = slots._FREE

    patch.setattr(slots, "_give_back", free)


@fault
def choices_go_by_row(patch: pytest.MonkeyPatch) -> None:
    """Splits and samples choose rows, whatever their groups."""
    import numpy as np
    import polars as pl

    from lamina.rows import choosing
    from lamina.rows.groups import Groups

    patch.setattr(choosing, "independent", lambda rows, groups: Groups.of(pl.Series(np.arange(len(rows)))))


@fault
def choices_follow_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """A group's lot follows from its place among the groups that are there."""
    import numpy as np

    from lamina.rows import choosing

    patch.setattr(choosing, "lots", lambda groups, seed: np.random.default_rng(0).random(len(groups)))


@fault
def codes_come_in_order_of_features(patch: pytest.MonkeyPatch) -> None:
    """Columns come in ascending order, whatever order was asked for."""
    from lamina.rows.sparse import Sparse

    whole = Sparse.of
    patch.setattr(
        Sparse,
        "of",
        staticmethod(lambda value, features, metadata: whole(value, features and sorted(features), metadata)),
    )


@fault
def codes_start_at_the_first_row(patch: pytest.MonkeyPatch) -> None:
    """Entries of chosen rows are read from the first row on."""
    from lamina.rows.sparse import Sparse

    whole = Sparse.gather
    patch.setattr(
        Sparse, "gather", lambda self, positions, out, threads=None: whole(self, range(len(positions)), out, threads)
    )


@fault
def rows_stay_on_their_device(patch: pytest.MonkeyPatch) -> None:
    """Rows of another device are not brought to the CPU, where measures compute."""
    from lamina.rows import aligned

    patch.setattr(aligned, "_on_the_cpu", lambda rows: rows)
