"""Faults of sparse codes and of what is computed from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.faults import fault


@fault
def codes_of_one_unit_replace_each_other(patch: pytest.MonkeyPatch) -> None:
    """Of two entries of one unit in one row, one is lost."""
    patch.setattr(torch.Tensor, "index_add", lambda self, dim, at, source: self.index_copy(dim, at, source))


@fault
def codes_forget_where_rows_begin(patch: pytest.MonkeyPatch) -> None:
    """Rows that are chosen by number take the entries that stand first."""
    from lamina_kernels.sparse.codes import Codes

    whole = Codes.rows

    def forget(self: Codes, index: Any) -> Codes:
        found = whole(self, index)
        return Codes(self.values[: found.nnz], self.ids[: found.nnz], self.width, found.indptr)

    patch.setattr(Codes, "rows", forget)


@fault
def stacking_takes_entries_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """The entries of the second codes stand behind all of the first, in whatever rows these are."""
    patch.setattr(torch.Tensor, "argsort", lambda self, **options: torch.arange(len(self)))


@fault
def encoding_forgets_the_first_of_equals(patch: pytest.MonkeyPatch) -> None:
    """Of equal numbers those are kept that torch finds."""
    from lamina_kernels.sparse.encoding import best, blocked

    def largest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        places = values.flip(1).topk(k, dim=1).indices.sub(values.shape[1] - 1).neg().sort(dim=1).values
        return values.gather(1, places), places

    patch.setattr(best, "largest", largest)
    patch.setattr(blocked, "largest_of", largest)


@fault
def encoding_has_no_room(patch: pytest.MonkeyPatch) -> None:
    """What comes when a list is full is lost."""
    from lamina_kernels.sparse.encoding.best import Best

    whole = Best._take

    def take(self: Best, row: torch.Tensor, ids: torch.Tensor, values: torch.Tensor, carried: Any) -> None:
        fits = self._fill[row] < 1
        whole(self, row[fits], ids[fits], values[fits], None if carried is None else carried[fits])

    patch.setattr(Best, "_take", take)


@fault
def encoding_begins_too_high(patch: pytest.MonkeyPatch) -> None:
    """The first tile's limit lets only the largest number pass, and tiles are small."""
    from lamina_kernels.sparse.encoding import best, walk

    whole = best._limit
    patch.setattr(best, "_limit", lambda tile, k: whole(tile, 1))
    patch.setattr(walk, "COLUMNS", 64)


@fault
def encoding_forgets_the_last_units(patch: pytest.MonkeyPatch) -> None:
    """Whole tiles of units only."""
    from lamina_kernels.sparse.encoding import blocked

    whole = blocked.tiles
    patch.setattr(blocked, "tiles", lambda rows, block: (s for s in whole(rows, block) if s.stop - s.start == block))


@fault
def encoding_takes_what_equals_the_limit(patch: pytest.MonkeyPatch) -> None:
    """Thresholds are reached by what equals them."""
    patch.setattr(torch.Tensor, "__gt__", lambda self, other: self >= other)


@fault
def encoding_boosts_nothing(patch: pytest.MonkeyPatch) -> None:
    """Pre-activations are compared as they are."""
    from lamina_kernels.sparse.encoding import blocked

    patch.setattr(blocked, "_scores", lambda tile, rule, cut: tile)


@fault
def encoding_weighs_negative_mass(patch: pytest.MonkeyPatch) -> None:
    """Negative pre-activations take from the sum of a row."""
    from lamina_kernels.sparse.encoding import blocked

    def add(out: Any, block: slice, tile: torch.Tensor) -> None:
        if len(out.mass):
            out.mass[block] += tile.sum(1)

    patch.setattr(blocked, "_add_mass", add)


@fault
def encoding_takes_broken_rows_for_zeros(patch: pytest.MonkeyPatch) -> None:
    """Nothing is put in place of what was kept of a row that is not finite."""
    from lamina_kernels.sparse.encoding import blocked

    patch.setattr(blocked, "poisoned", lambda p, rule, kept, lost: kept)


@fault
def encoding_expects_no_overflow(patch: pytest.MonkeyPatch) -> None:
    """Finite rows are taken to have finite pre-activations."""
    from lamina_kernels.sparse.encoding import walk

    whole = walk.survey
    patch.setattr(walk, "survey", lambda p: (whole(p)[0], False))


@fault
def encoding_counts_what_was_kept(patch: pytest.MonkeyPatch) -> None:
    """Only the first block of rows is counted."""
    from lamina_kernels.sparse.encoding.walk import Walk

    whole = Walk.tiles

    def tiles(self: Walk, blocks: list[slice], cuts: Any) -> Any:
        before = self._positive.clone()
        yield from whole(self, blocks, cuts)
        if blocks[0].start:
            self._positive.copy_(before)

    patch.setattr(Walk, "tiles", tiles)


@fault
def encoding_knows_no_mean(patch: pytest.MonkeyPatch) -> None:
    """The deviation of a row is that of its units without their bias."""
    from dataclasses import replace

    from lamina_kernels.sparse.encoding import hard_ash

    whole = hard_ash.moments
    patch.setattr(hard_ash, "moments", lambda p: whole(replace(p, x=p.x / 2)))


@fault
def encoding_forgets_the_gradient_of_units(patch: pytest.MonkeyPatch) -> None:
    """The weight's gradient is that of half of the entries."""
    from lamina_kernels.sparse.encoding import op

    whole = op.decoding.by_unit
    patch.setattr(op.decoding, "by_unit", lambda e, *rest: whole(e._replace(values=e.values / 2), *rest))


@fault
def statistics_forget_a_batch(patch: pytest.MonkeyPatch) -> None:
    """Of a batch the last entry is lost."""
    from lamina_kernels.sparse.statistics import activity, pairs, quantiles, top_rows
    from lamina_kernels.sparse.statistics.observed import Observed, observed

    def lossy(*given: Any) -> Observed:
        seen = observed(*given)
        return Observed(seen.rows, seen.row[:-1], seen.unit[:-1], seen.value[:-1])

    for module in (activity, pairs, quantiles, top_rows):
        patch.setattr(module, "observed", lossy)


def _encode_launch(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Replace arguments of the Triton kernel behind `encode`."""
    from lamina_kernels.sparse.encoding import launch

    whole = launch.plan
    patch.setattr(
        launch, "plan", lambda *given, **named: (p := whole(*given, **named))._replace(arguments=p.arguments | changes)
    )


@fault
def encode_kernel_forgets_the_bias(patch: pytest.MonkeyPatch) -> None:
    """Pre-activations are products alone."""
    _encode_launch(patch, bias=None)


@fault
def encode_kernel_leaves_units_out(patch: pytest.MonkeyPatch) -> None:
    """The last units are not there."""
    _encode_launch(patch, m=64)


@fault
def encode_kernel_forgets_the_boost(patch: pytest.MonkeyPatch) -> None:
    """Groups are compared as if no unit were helped."""
    _encode_launch(patch, boost=None)


@fault
def encode_kernel_forgets_the_shift(patch: pytest.MonkeyPatch) -> None:
    """Groups are compared with 0, whatever the limits of their units."""
    _encode_launch(patch, shift=None)


@fault
def encode_kernel_counts_nothing(patch: pytest.MonkeyPatch) -> None:
    """No unit is ever positive."""
    _encode_launch(patch, positive=None)


@fault
def encoding_learns_from_lost_rows(patch: pytest.MonkeyPatch) -> None:
    """Units whose ids stand beside NaN have won."""
    from lamina_kernels.sparse import Codes, KWinners

    whole = KWinners.updated
    patch.setattr(
        KWinners,
        "updated",
        lambda self, codes, **named: whole(self, Codes(codes.values.nan_to_num(), codes.ids, codes.width), **named),
    )


@fault
def encoding_counts_lost_rows(patch: pytest.MonkeyPatch) -> None:
    """What stands in place of a row that is not finite is counted."""
    from lamina_kernels.sparse.encoding.walk import Walk

    patch.setattr(Walk, "positive", lambda self: self._positive)


@fault
def encode_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its results are whatever the memory held."""
    from lamina_kernels.sparse.encoding import launch

    whole = launch.plan

    def skipping(*given: Any, **named: Any) -> Any:
        planned = whole(*given, **named)
        planned.arguments["counts"].zero_()
        return planned._replace(grid=(planned.grid[0] - 1,))

    patch.setattr(launch, "plan", skipping)


@fault
def encode_kernel_counts_in_32_bits(patch: pytest.MonkeyPatch) -> None:
    """Addresses of rows and units are those of small matrices."""
    import triton.language as tl

    from lamina_kernels.sparse.encoding import forward
    from lamina_kernels.tiles import load

    for room in (forward, load):
        patch.setattr(room, "INDEX", tl.constexpr(tl.int32))


@fault
def encode_kernel_counts_rows_of_descriptors_in_32_bits(patch: pytest.MonkeyPatch) -> None:
    """A descriptor is told of steps between rows that fit 31 bits."""
    from lamina_kernels.tiles import descriptors

    whole = descriptors._descriptor

    def short(tensor: torch.Tensor, rows: int, columns: int) -> Any:
        near = tensor if 39 * tensor.stride(0) < 2**31 else tensor.as_strided(tensor.shape, (8, 1))
        return whole(near, rows, columns)

    patch.setattr(descriptors, "_descriptor", short)


@fault
def encode_kernel_adds_units_that_do_not_exist(patch: pytest.MonkeyPatch) -> None:
    """The bias of units behind the last is 0, and so are their products."""
    from lamina_kernels.sparse.encoding import launch

    patch.setattr(launch, "pad", lambda numbers, room, value: torch.nn.functional.pad(numbers, room))


@fault
def encode_kernel_reads_what_lies_behind_a_row(patch: pytest.MonkeyPatch) -> None:
    """A descriptor is told of rows as wide as the steps between them."""
    from lamina_kernels.tiles import descriptors

    whole = descriptors._descriptor

    def wide(tensor: torch.Tensor, rows: int, columns: int) -> Any:
        made = whole(tensor, rows, columns)
        made.shape = [made.shape[0], made.strides[0]]
        return made

    patch.setattr(descriptors, "_descriptor", wide)


@fault
def encode_kernel_takes_the_next_units(patch: pytest.MonkeyPatch) -> None:
    """A descriptor is told of the second unit as the first."""
    from lamina_kernels.tiles import descriptors

    whole = descriptors._descriptor

    def off(tensor: torch.Tensor, rows: int, columns: int) -> Any:
        return whole(tensor[1:] if len(tensor) == 96 else tensor, rows, columns)

    patch.setattr(descriptors, "_descriptor", off)


@fault
def encode_kernel_trusts_its_room(patch: pytest.MonkeyPatch) -> None:
    """No list is taken to be full."""
    from lamina_kernels.sparse.encoding.launch import Groups

    patch.setattr(Groups, "full", lambda self: torch.zeros_like(self.counts[0], dtype=torch.bool))


@fault
def encode_kernel_drops_what_its_sample_does_not_tell_of(patch: pytest.MonkeyPatch) -> None:
    """However many were chosen from all rows together, they are taken for the largest."""
    from lamina_kernels.sparse.encoding import candidates

    whole = candidates.blocked.keep

    def keep(p: Any, rule: Any, **named: Any) -> Any:
        found = whole(p, rule, **named)
        return found._replace(pre=found.pre / 2) if isinstance(rule, candidates.Together) else found

    patch.setattr(candidates.blocked, "keep", keep)


@fault
def encode_kernel_adds_the_mass_of_one_part(patch: pytest.MonkeyPatch) -> None:
    """Of the parts of the units, each a program, the first alone counts."""
    from lamina_kernels.sparse.encoding import candidates

    whole = candidates.groups_above

    def first(*given: Any, **named: Any) -> Any:
        found = whole(*given, **named)
        return found if found.mass is None else found._replace(mass=found.mass[:1])

    patch.setattr(candidates, "groups_above", first)


@fault
def encoding_drops_what_its_sample_does_not_tell_of(patch: pytest.MonkeyPatch) -> None:
    """However few of all rows reach the sample's limit, they are taken for the largest."""
    from lamina_kernels.sparse.encoding import blocked

    whole, seen = blocked.offer_all, []

    def once(p: Any, *rest: Any) -> None:
        if not any(p is other for other in seen):
            seen.append(p)
            whole(p, *rest)

    patch.setattr(blocked, "offer_all", once)


@fault
def encoding_takes_a_larger_one_for_the_last(patch: pytest.MonkeyPatch) -> None:
    """What is chosen from all rows together begins too high."""
    from lamina_kernels.sparse.encoding import pool

    whole = pool.kth_largest
    patch.setattr(pool, "kth_largest", lambda values, k: whole(values, k) + 1)


@fault
def encode_kernel_trusts_its_sample(patch: pytest.MonkeyPatch) -> None:
    """No row is encoded a second time."""
    from lamina_kernels.sparse.encoding import candidates

    whole = candidates._largest_of

    def trusting(*given: Any) -> Any:
        values, ids, again, mass = whole(*given)
        return values, ids, torch.zeros_like(again), mass

    patch.setattr(candidates, "_largest_of", trusting)


@fault
def encode_kernel_is_not_launched(patch: pytest.MonkeyPatch) -> None:
    """What is stored is what stood in memory."""
    from lamina_kernels.sparse.encoding import launch

    def nothing(kernel: Any, planned: Any, like: torch.Tensor) -> None:
        for name, value in (("counts", 1), ("groups", 0), ("highest", 9), ("values", 9)):
            planned.arguments[name].fill_(value)

    patch.setattr(launch, "run", nothing)
