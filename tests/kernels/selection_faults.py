"""Named faults of selections and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.faults import fault


@fault
def selection_trusts_products(patch: pytest.MonkeyPatch) -> None:
    """Products are taken to be exact."""
    from lamina_kernels.gram.bounds import Bounds

    whole = Bounds.__init__

    def trusting(self: Any, *arguments: Any) -> None:
        whole(self, *arguments)
        self._part = 0.0

    patch.setattr(Bounds, "__init__", trusting)


@fault
def selection_is_always_certain(patch: pytest.MonkeyPatch) -> None:
    """No row is compared a second time."""
    from lamina_kernels.gram.selection.shortlist import Shortlist

    def best(self: Any) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = self.settle()
        return places.long(), values.amax(1).double() + torch.inf

    patch.setattr(Shortlist, "best", best)


@fault
def selection_forgets_the_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Rows meet those behind them, and none before."""
    from lamina_kernels.gram.selection.shortlist import Shortlist

    patch.setattr(Shortlist, "offer_columns", lambda *given: None)


@fault
def selection_forgets_the_last_columns(patch: pytest.MonkeyPatch) -> None:
    """Whole tiles of columns only."""
    from lamina_kernels.gram.selection import blocked

    whole = blocked.tiles
    patch.setattr(
        blocked, "tiles", lambda n, block: whole(n // block * block if block == blocked.COLUMNS else n, block)
    )


@fault
def selection_takes_the_last_of_equals(patch: pytest.MonkeyPatch) -> None:
    """Of rows at one distance those with the largest places come first."""
    from lamina_kernels.gram.selection import blocked

    def ordered(values: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places, order = places.sort(dim=1, descending=True)
        values, again = values.gather(1, order).sort(dim=1, stable=True)
        return values, places.gather(1, again)

    patch.setattr(blocked, "ordered", ordered)


@fault
def selection_meets_the_row_itself(patch: pytest.MonkeyPatch) -> None:
    """Pairs that are left out count."""
    from lamina_kernels.gram.bounds import Bounds

    patch.setattr(Bounds, "_hide", lambda self, tile, x, y: tile)


@fault
def selection_takes_broken_rows_for_zeros(patch: pytest.MonkeyPatch) -> None:
    """Rows that are not finite are near others."""
    from lamina_kernels.gram import bounds

    patch.setattr(bounds, "finite", lambda rows: torch.ones(len(rows), dtype=torch.bool))


@fault
def selection_works_in_single_precision(patch: pytest.MonkeyPatch) -> None:
    """However large or small the numbers of the rows are."""
    from lamina_kernels.gram import bounds

    patch.setattr(bounds, "SINGLE", (0.0, torch.inf))


@fault
def selection_begins_too_low(patch: pytest.MonkeyPatch) -> None:
    """The first tile's limit lets only the smallest number pass."""
    from lamina_kernels.gram.selection.shortlist import Shortlist

    def begin(self: Any, lowest: torch.Tensor) -> None:
        self.limit = lowest.amin(1)

    patch.setattr(Shortlist, "_begin", begin)


@fault
def selection_has_no_room(patch: pytest.MonkeyPatch) -> None:
    """What comes when a list is full is lost."""
    from lamina_kernels.gram.selection.shortlist import Shortlist

    whole = Shortlist._take

    def take(self: Any, row: torch.Tensor, place: torch.Tensor, value: torch.Tensor) -> None:
        kept = self._fill[row] < 1
        whole(self, row[kept], place[kept], value[kept])

    patch.setattr(Shortlist, "_take", take)


def _planned(patch: pytest.MonkeyPatch, room: Any, change: Callable[[Any], Any]) -> None:
    """Replace the launches that a module plans."""
    whole = room.plan
    patch.setattr(room, "plan", lambda *given: change(whole(*given)))


def _arguments(patch: pytest.MonkeyPatch, room: Any, **changes: Any) -> None:
    """Replace arguments and constants of a kernel."""
    _planned(patch, room, lambda made: made._replace(arguments=made.arguments | changes))


def _skip_a_program(patch: pytest.MonkeyPatch, room: Any) -> None:
    _planned(patch, room, lambda made: made._replace(grid=(made.grid[0] - 1,)))


@fault
def nearest_kernel_meets_the_row_itself(patch: pytest.MonkeyPatch) -> None:
    """The row itself is found, in place of another."""
    from lamina_kernels.gram.selection import launch

    _arguments(patch, launch, APART=False)
    patch.setattr(launch, "_columns", _all_columns)


@fault
def nearest_kernel_forgets_the_groups(patch: pytest.MonkeyPatch) -> None:
    """Rows of one group meet each other."""
    from lamina_kernels.gram.selection import launch

    _arguments(patch, launch, x_groups=None, y_groups=None)
    patch.setattr(launch, "_columns", _all_columns)


def _all_columns(p: Any, groups: torch.Tensor, rows: slice, lost: torch.Tensor) -> torch.Tensor:
    from lamina_kernels.gram.selection.launch import _members

    columns = _members(groups).flatten(1)
    return columns.masked_fill((groups < 0).repeat_interleave(8, 1) | (columns >= p.m), -1)


@fault
def nearest_kernel_forgets_the_edge(patch: pytest.MonkeyPatch) -> None:
    """Columns beyond the last row have a bound, and their groups take the place of others."""
    import triton.language as tl

    from lamina_kernels.gram import bounds_tile

    patch.setattr(bounds_tile, "FAR", tl.constexpr(-1e30))


@fault
def nearest_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its groups are whatever the memory held."""
    from lamina_kernels.gram.selection import launch

    _skip_a_program(patch, launch)


@fault
def nearest_kernel_reads_one_chunk(patch: pytest.MonkeyPatch) -> None:
    """Only the first columns of the rows are read."""
    from lamina_kernels.gram.selection import launch

    _arguments(patch, launch, WHOLE=True, CHUNK=16)


@fault
def nearest_kernel_trusts_products(patch: pytest.MonkeyPatch) -> None:
    """What the kernel did not choose is never looked at."""
    from lamina_kernels.gram.selection import launch

    whole = launch.decided
    patch.setattr(launch, "decided", lambda b, rows, lost, at, floor, k: whole(b, rows, lost, at, floor + torch.inf, k))


@fault
def nearest_kernel_trusts_tf32(patch: pytest.MonkeyPatch) -> None:
    """Rows are rounded before they are multiplied, and bounds know nothing of it."""
    from lamina_kernels.gram import product_bounds

    patch.setattr(product_bounds, "_ROUNDED", {})


@fault
def nearest_kernel_multiplies_one_part(patch: pytest.MonkeyPatch) -> None:
    """Of the parts of float32 rows the first alone is there, and bounds know nothing of it."""
    from lamina_kernels.gram import product_bounds

    whole = product_bounds.parts_of

    def parts_of(x: torch.Tensor, parts: int, width: int) -> torch.Tensor:
        made = whole(x, parts, width)
        made[:, width:] = 0
        return made

    patch.setattr(product_bounds, "parts_of", parts_of)


@fault
def nearest_kernel_trusts_full_lists(patch: pytest.MonkeyPatch) -> None:
    """What a full list lost is taken to be far."""
    from lamina_kernels.gram.selection import launch

    whole = launch._behind
    patch.setattr(launch, "_behind", lambda lists: whole(lists) + torch.inf)


@fault
def nearest_kernel_ignores_the_strides(patch: pytest.MonkeyPatch) -> None:
    """All rows of x are read where the first one is."""
    from lamina_kernels.gram.selection import launch

    _arguments(patch, launch, x_stride=0)


@fault
def codes_count_broken_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows without a code are the last one's."""
    from lamina_kernels.gram.selection import codes

    whole = codes.sums
    patch.setattr(codes, "sums", lambda x, places, count: whole(x, places % count, count))


@fault
def selection_forgets_the_gradient_of_columns(patch: pytest.MonkeyPatch) -> None:
    """Rows of y get no gradient."""
    from lamina_kernels.gram.selection import gathered

    whole = gathered.pull
    patch.setattr(gathered, "pull", lambda *given: ((found := whole(*given))[0], 0 * found[1]))


@fault
def selection_clears_broken_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows that are not finite are set to 0 where they stand."""
    from lamina_kernels.gram import bounds

    whole = bounds.survey

    def survey(p: Any) -> Any:
        p.x[~bounds.finite(p.x)] = 0
        return whole(p)

    patch.setattr(bounds, "survey", survey)


@fault
def counts_hold_the_radius(patch: pytest.MonkeyPatch) -> None:
    """A pair at exactly the radius counts, however it is asked for."""
    from lamina_kernels.gram.counting.thresholds import Thresholds

    whole = Thresholds.within
    patch.setattr(Thresholds, "within", lambda self, *given: whole(self._replace(strict=False), *given))


@fault
def counts_forget_the_last_columns(patch: pytest.MonkeyPatch) -> None:
    """Whole tiles of columns only."""
    from lamina_kernels.gram.counting import blocked

    whole = blocked.tiles
    patch.setattr(
        blocked, "tiles", lambda n, block: whole(n // block * block if block == blocked.COLUMNS else n, block)
    )


@fault
def histogram_drops_the_last_edge(patch: pytest.MonkeyPatch) -> None:
    """A pair on the last edge is in no bin."""
    from lamina_kernels.gram.counting.thresholds import Thresholds

    patch.setattr(Thresholds, "below", lambda self, found: torch.bucketize(self.told(found), self.values, right=True))


@fault
def counts_kernel_trusts_products(patch: pytest.MonkeyPatch) -> None:
    """Products are taken to be exact."""
    from lamina_kernels.gram.counting import launch

    def trusting(made: Any) -> Any:
        none = {name: torch.zeros_like(made.arguments[name]) for name in ("x_slack", "y_slack")}
        return made._replace(arguments=made.arguments | none | {"below": made.arguments["above"]})

    _planned(patch, launch, trusting)


@fault
def counts_kernel_measures_in_single(patch: pytest.MonkeyPatch) -> None:
    """Pairs that bounds leave open are measured in single precision."""
    import triton.language as tl

    from lamina_kernels.gram.counting import forward

    patch.setattr(forward, "MEASURED", tl.constexpr(tl.float32))


@fault
def counts_kernel_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Each row is paired with itself."""
    from lamina_kernels.gram.counting import launch

    _arguments(patch, launch, APART=False)


@fault
def counts_kernel_forgets_the_groups(patch: pytest.MonkeyPatch) -> None:
    """Rows of a group are paired."""
    from lamina_kernels.gram.counting import launch

    _arguments(patch, launch, x_groups=None, y_groups=None)


@fault
def counts_kernel_reads_one_chunk(patch: pytest.MonkeyPatch) -> None:
    """Only the first columns of the rows are read."""
    from lamina_kernels.gram.counting import launch

    _arguments(patch, launch, WHOLE=True, CHUNK=16)


@fault
def counts_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its counts are whatever the memory held."""
    from lamina_kernels.gram.counting import launch

    _skip_a_program(patch, launch)


@fault
def counts_kernel_meets_broken_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows that are not finite are near others."""
    from lamina_kernels.gram.counting import launch

    def meeting(made: Any) -> Any:
        finite = {name: made.arguments[name].nan_to_num(posinf=0.0) for name in ("x_bias", "y_bias")}
        return made._replace(arguments=made.arguments | finite)

    _planned(patch, launch, meeting)
