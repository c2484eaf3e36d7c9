"""CKA of many pairs: rows are read and centered once for all pairs, and what the pairs share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.measures.grids import BUDGET
from lamina.rows.cohorts import cohorts
from lamina.similarity.planning import CALLS, FEATURES, Work, components

if TYPE_CHECKING:
    import torch

    from lamina.measures.estimate import Estimate
    from lamina.measures.grids import Pair
    from lamina.rows import Rows
    from lamina.rows.groups import Groups
    from lamina.similarity.holding import Bandwidth, Held


def compute(
    rows: Sequence[Rows],
    pairs: Sequence[Pair],
    *,
    budget: int = BUDGET,
    kernel: str = "linear",
    debiased: bool = True,
    groups: Any = None,
    pair: str | None = None,
    non_finite: str = "drop",
    bandwidth: float = 1.0,
    seed: int = 0,
) -> Iterator[tuple[int, Estimate]]:
    """Yield the number and the CKA of each pair that can be computed with others; see `lamina.measures.Grid`.

    Left to calls are rows that lie on a device, have a row that is not finite or do not all pair with those of the
    others, and what a call would refuse.
    """
    if kernel not in ("linear", "rbf") or non_finite not in ("drop", "refuse") or not bandwidth > 0:
        return
    numbers: dict[Pair, list[int]] = {}
    for number, each in enumerate(pairs):
        numbers.setdefault((each[0], each[1]), []).append(number)
    for component in components(numbers):
        members = sorted({one for each in component for one in each})
        for wide in (False, True):
            alike = [one for one in members if _fit(rows[one], wide)]
            for cohort in cohorts([rows[one] for one in alike], groups=groups, pair=pair):
                inside = {alike[place]: order for place, order in zip(cohort.members, cohort.orders, strict=True)}
                wanted = [each for each in component if inside.keys() >= {*each}]
                if not wanted or len(cohort.groups) < (4 if debiased else 1):
                    continue
                shapes = {one: rows[one].shape for one in inside}
                largest = int(cohort.groups.sizes.max())
                if kernel == "rbf" and largest > 1:
                    # the bandwidths' rows are drawn in the order of x
                    wanted = [each for each in wanted if inside[each[0]] is None]
                work = Work.of(shapes, wanted, budget, 8 if wide else 4, largest, rbf=kernel == "rbf")
                if work.name == CALLS:
                    continue
                of = {one: rows[one] for one in inside}
                together = _Together(of, inside, cohort.groups, work, wide, debiased)
                if kernel == "rbf":
                    together.draw(bandwidth, seed)
                for found, estimate in together.estimates(wanted):
                    yield from ((number, estimate) for number in numbers[found])


def _fit(rows: Rows, wide: bool) -> bool:
    import torch

    is_wide = rows.dtype == torch.float64 or not rows.dtype.is_floating_point
    return rows.device.type == "cpu" and min(rows.shape) > 0 and is_wide == wide


@dataclass(frozen=True)
class _Own:
    """HSIC of a matrix with itself.

    Attributes:
        values: [1 + buckets], on all rows and without each bucket.
        pairs: [buckets, buckets], as in `lamina.similarity.jackknifed.Hsic`.
    """

    values: np.ndarray
    pairs: np.ndarray


class _Together:
    """Matrices of which any two pair, some of them held at a time."""

    def __init__(
        self,
        rows: Mapping[int, Rows],
        orders: Mapping[int, np.ndarray | None],
        groups: Groups,
        work: Work,
        wide: bool,
        debiased: bool,
    ) -> None:
        import torch

        from lamina.similarity.holding import Layout

        self._rows, self._orders, self._work, self._debiased = rows, orders, work, debiased
        self._groups, self._layout = groups, Layout.of(groups)
        self._dtype = torch.float64 if wide else torch.float32
        self._own: dict[int, _Own] = {}
        self._bandwidth: Bandwidth | None = None
        self._bandwidths: dict[int, float | None] = {}
        self._seed: int | None = None

    def draw(self, multiple: float, seed: int) -> None:
        """Take an RBF kernel, and draw the rows that its bandwidth follows from, as a call does."""
        import torch

        from lamina.similarity.holding import Bandwidth
        from lamina.similarity.kernelized import SAMPLE

        n = len(self._layout)
        drawn = np.sort(np.random.default_rng(seed).choice(n, min(n, SAMPLE), replace=False))
        places = self._layout.places[np.argsort(self._groups.codes, kind="stable")[drawn]]
        self._bandwidth, self._seed = Bandwidth(multiple, torch.from_numpy(places)), seed

    def estimates(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Estimate]]:
        """Yield each pair's estimate; what a call would refuse is left out."""
        for block, beside in self._work.turns(pairs):
            held = self._read(block)
            for other, wanted in beside:
                together = held | self._read(other)
                found = [each for each in wanted if together.keys() >= {*each}]
                yield from self._of_held(together, found)
                # or it would be held while the next is read
                del together
            del held

    def _read(self, numbers: Sequence[int]) -> dict[int, Held]:
        from lamina.similarity.holding import hold

        found: dict[int, Held] = {}
        for one in numbers:
            held = hold(
                self._rows[one],
                self._orders[one],
                self._layout,
                self._dtype,
                debiased=self._debiased,
                bandwidth=self._bandwidth,
            )
            if held is not None:
                found[one] = held
                self._bandwidths[one] = held.bandwidth
        return found

    def _of_held(self, held: Mapping[int, Held], pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Estimate]]:
        products = self._products({one: held[one] for pair in pairs for one in pair})
        for one in dict.fromkeys(one for pair in pairs for one in pair):
            if one not in self._own:
                self._own[one] = self._hsic(held, one, one, products)
        for a, b in pairs:
            xy = self._own[a] if a == b else self._hsic(held, a, b, products)
            with suppress(SchemaError):
                yield (a, b), self._estimate(a, b, xy)

    def _products(self, held: Mapping[int, Held]) -> Callable[[int, int], Mapping[str, torch.Tensor]]:
        """Return what gives the sums of two matrices over pairs of rows."""
        from lamina.similarity.products import feature_products, memory_for
        from lamina.similarity.tiles import tile_products

        if self._work.name == FEATURES or not held:
            memory = memory_for(self._dtype)
            return lambda a, b: feature_products(held[a], held[b], self._layout, memory, debiased=self._debiased)
        places = {one: place for place, one in enumerate(held)}
        found = tile_products(list(held.values()), self._layout, debiased=self._debiased)
        return lambda a, b: {name: each[places[a], places[b]] for name, each in found.items()}

    def _hsic(self, held: Mapping[int, Held], a: int, b: int, products: Any) -> _Own:
        from lamina.similarity.jackknifed import hsic_of
        from lamina.similarity.shared import centered_products, sums_of_pair

        pairwise = products(a, b)
        sums = sums_of_pair(held[a], held[b], pairwise, self._layout, debiased=self._debiased)
        n, squares = self._layout.powers.sum(0)[:2]
        # centering rows has centered the linear kernel
        linear = self._bandwidth is None or not self._debiased
        of_pairs = pairwise["p00"] if linear else centered_products(held[a], held[b], pairwise["p00"], self._layout)
        return _Own(hsic_of(sums, self._layout.powers, self._debiased), of_pairs.numpy() / max(n * n - squares, 1))

    def _estimate(self, a: int, b: int, xy: _Own) -> Estimate:
        from lamina.similarity.estimates import of_ratio
        from lamina.similarity.jackknifed import Hsic

        xx, yy = self._own[a], self._own[b]
        values = {"xx": xx.values, "yy": yy.values, "xy": xy.values}
        rows = self._layout.powers[1:, 0].astype(int).tolist()
        name = str(self._dtype).removeprefix("torch.")
        pairs = {"xx": xx.pairs, "yy": yy.pairs, "xy": xy.pairs} if self._debiased else None
        options: dict[str, Any] = {"kernel": "linear", "debiased": self._debiased}
        bandwidths: dict[str, Any] = {}
        if self._bandwidth is not None:
            options |= {"kernel": "rbf", "bandwidth": self._bandwidth.multiple}
            bandwidths = {"bandwidth_x": self._bandwidths[a], "bandwidth_y": self._bandwidths[b]}
        layout = self._layout
        hsic = Hsic(values, layout.keys, rows, len(layout), len(self._groups), {}, name, bandwidths, pairs)
        return of_ratio(hsic, options, debiased=self._debiased, seed=self._seed)
