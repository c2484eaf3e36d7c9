"""Which way of computing many CKAs takes least time, from shapes alone.

Of L matrices [n, d] all pairs take L^2 n d^2 operations by products of features, and L n^2 d + L^2 n^2 by tiles of
kernel values: with many matrices, or few rows, tiles are ahead. Either way rows are held in memory; where they do not
all fit, a block of matrices is held with another at a time, and read several times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lamina.measures.grids import BUDGET, Plan
from lamina.rows.groups import BUCKETS

if TYPE_CHECKING:
    from lamina.measures.grids import Pair, Shape

FEATURES, TILES, CALLS = "feature products", "Gram tiles", "one by one"

_SKINNY = 4
"""What an operation of a product of few long vectors costs, in those of a product of large matrices."""
_READ = 2e9
"""Bytes of rows that are read and put in order a second."""
_PASSED = 500
"""Operations a number that a call spends on the moments of a bucket."""
_EXP = 70
"""What an exponential costs, in operations of a product of matrices."""
_CALL, _PAIR, _TILE = 5e8, 5e7, 5e6
"""What else a call takes, a pair of matrices by products of features, and a tile, in operations."""


@dataclass(frozen=True)
class Work:
    """How the pairs of matrices of which any two pair are computed.

    Attributes:
        name: `FEATURES`, `TILES` or `CALLS`.
        blocks: Matrices that are held together, with those of one other block.
        operations: Those of products, or what takes as long.
        bytes: What is read.
        passes: How often a matrix is read at most.
    """

    name: str
    blocks: list[list[int]]
    operations: float
    bytes: int
    passes: int

    @staticmethod
    def of(
        shapes: Mapping[int, Shape],
        pairs: Sequence[Pair],
        budget: int,
        itemsize: int = 4,
        largest: int = 1,
        *,
        rbf: bool = False,
    ) -> Work:
        """Choose what takes least time.

        Args:
            shapes: The matrices' by number.
            pairs: Those that are wanted.
            budget: Bytes that may be held.
            itemsize: Bytes of a number in the arithmetic.
            largest: Rows of the largest group.
            rbf: Whether the kernel is that, which has no features.
        """
        options = [_calls(shapes, pairs, itemsize, rbf=rbf)]
        for name in (TILES,) if rbf else (FEATURES, TILES):
            # the factors of exponents take the room of groups' sums
            blocks = _blocks(name, shapes, budget, itemsize, max(largest, 2) if rbf else largest)
            if blocks is not None:
                options.append(_held(name, shapes, pairs, blocks, itemsize, rbf=rbf))
        return min(options, key=lambda work: work.operations / 1e11 + work.bytes / _READ)

    def turns(self, pairs: Sequence[Pair]) -> Iterator[tuple[list[int], list[tuple[list[int], list[Pair]]]]]:
        """Yield what is held in turn: a block, and the blocks that are held beside it with the pairs that both have.

        The first of those is the block itself, beside which nothing is held.
        """
        of = {one: number for number, block in enumerate(self.blocks) for one in block}
        between: dict[tuple[int, int], list[Pair]] = {}
        for a, b in pairs:
            first, second = sorted((of[a], of[b]))
            between.setdefault((first, second), []).append((a, b))
        for number, block in enumerate(self.blocks):
            beside: list[tuple[list[int], list[Pair]]] = [([], between.get((number, number), []))]
            later = range(number + 1, len(self.blocks))
            beside += [(self.blocks[other], between[number, other]) for other in later if (number, other) in between]
            if any(found for _, found in beside):
                yield block, beside


def _calls(shapes: Mapping[int, Shape], pairs: Sequence[Pair], itemsize: int, *, rbf: bool = False) -> Work:
    operations, read = 0.0, 0
    for a, b in pairs:
        n, dx, dy = *shapes[a], shapes[b][1]
        products = dx * dx + dy * dy + dx * dy
        moments = 2 * n * products + _PASSED * min(n, BUCKETS) * products
        panels = 2 * n * n * (dx + dy)
        operations += (panels + _EXP * n * n if rbf else min(moments, panels)) + _CALL
        read += 2 * n * (dx + dy) * itemsize
    times = Counter(one for pair in pairs for one in pair)
    return Work(CALLS, [], operations, read, 2 * max(times.values(), default=0))


def _blocks(name: str, shapes: Mapping[int, Shape], budget: int, itemsize: int, largest: int) -> list[list[int]] | None:
    """Divide the matrices into blocks of which two can be held; None if not even two matrices can."""
    from lamina.similarity.holding import PANEL, Held
    from lamina.similarity.products import PIECE
    from lamina.similarity.tiles import STRIP

    n = next(iter(shapes.values()))[0]
    panel = min(n, max(PANEL, largest))
    # tiles: kernel values of a panel with another, some of them twice, and sums of all pairs of matrices and buckets
    each = 2 * panel * max(panel, STRIP) * itemsize if name == TILES else 0
    squared = 8 * 8 * min(n, BUCKETS) ** 2 if name == TILES else 0

    def fits(held: Iterable[int]) -> bool:
        numbers = list(held)
        rows = sum(Held.bytes_of(*shapes[one], itemsize, largest) + each for one in numbers)
        return rows + squared * len(numbers) ** 2 + 2 * PIECE <= budget

    if fits(shapes):
        return [list(shapes)]
    blocks: list[list[int]] = []
    for one in shapes:
        if not fits([one, one]):
            return None
        if blocks and fits(2 * [*blocks[-1], one]):
            blocks[-1].append(one)
        else:
            blocks.append([one])
    return blocks


def _held(
    name: str,
    shapes: Mapping[int, Shape],
    pairs: Sequence[Pair],
    blocks: list[list[int]],
    itemsize: int,
    *,
    rbf: bool = False,
) -> Work:
    from lamina.similarity.holding import PANEL

    work = Work(name, blocks, 0, 0, 0)
    reads, operations = dict.fromkeys(shapes, 0), 0.0
    n = next(iter(shapes.values()))[0]
    tiles = max(min(n, BUCKETS), n / PANEL) ** 2 / 2
    for block, beside in work.turns(pairs):
        for other, _ in beside:
            for one in other or block:
                reads[one] += 1
            if name == TILES:
                together = [shapes[one][1] for one in (*block, *other)]
                values = sum(together) + (_EXP / 2 * len(together) if rbf else 0)
                operations += n * n * (values + _SKINNY * len(together) ** 2) + _TILE * tiles
    if name == FEATURES:
        used = {one for pair in pairs for one in pair}
        each = 2 * n + 2 * _SKINNY * min(n, BUCKETS) ** 2
        every = {*pairs, *((one, one) for one in used)}
        operations = sum(each * shapes[a][1] * shapes[b][1] + _PAIR for a, b in every)
    read = sum(count * n * shapes[one][1] * itemsize for one, count in reads.items())
    return Work(name, blocks, operations, read, max(reads.values()))


def components(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Divide pairs into those that share no matrix.

    Example:
        >>> components([(0, 1), (2, 3), (1, 4)])
        [[(0, 1), (1, 4)], [(2, 3)]]
    """
    root: dict[int, int] = {}

    def find(one: int) -> int:
        while root.setdefault(one, one) != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    pairs = list(pairs)
    for a, b in pairs:
        root[find(b)] = find(a)
    found: dict[int, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(find(pair[0]), []).append(pair)
    return list(found.values())


def plan(
    shapes: Sequence[Shape], pairs: Sequence[Pair], budget: int = BUDGET, *, kernel: str = "linear", **options: Any
) -> Plan:
    """Say how the CKAs of pairs are going to be computed, by shapes alone; see `lamina.measures.Grid`.

    It takes rows of float32 that all pair, in groups of few rows.

    Example:
        >>> pairs = [(a, b) for b in range(24) for a in range(b)]
        >>> plan([(20000, 384)] * 24, pairs).name, plan([(2000, 384)] * 24, pairs).name
        ('feature products', 'Gram tiles')
    """
    found = []
    for some in components(dict.fromkeys(pairs)):
        numbers = sorted({one for pair in some for one in pair})
        by_number = {one: shapes[one] for one in numbers}
        together = len({n for n, _ in by_number.values()}) == 1 and all(map(all, by_number.values()))
        rbf = kernel == "rbf"
        found.append(Work.of(by_number, some, budget, rbf=rbf) if together else _calls(by_number, some, 4, rbf=rbf))
    names = list(dict.fromkeys(work.name for work in found))
    read, operations = sum(work.bytes for work in found), sum(work.operations for work in found)
    seconds = operations / _operations_a_second() + read / _READ
    return Plan(" and ".join(names), seconds, max((work.passes for work in found), default=0), read)


@cache
def _operations_a_second() -> float:
    """Time a product of two matrices, once a process; it moves the predicted times of all plans alike."""
    import torch

    a = torch.ones(768, 768)
    torch.mm(a, a)
    start = perf_counter()
    for _ in range(3):
        torch.mm(a, a)
    return 3 * 2 * 768**3 / (perf_counter() - start)
