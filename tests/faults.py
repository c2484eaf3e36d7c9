"""Named faults: what a test must notice if it is worth having.

A fault is a function that breaks the product through a monkeypatch; the product itself has no hooks for it.
A test proves itself by failing under its fault:

    with broken("gram_drops_the_last_tile"), pytest.raises(AssertionError):
        test_the_blocked_form_equals_the_reference()

Add a fault by adding a decorated function; import what it patches inside it, so that this module stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Fault = Callable[[pytest.MonkeyPatch], None]

FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Register a fault under the name of its function."""
    assert function.__name__ not in FAULTS, f"two faults are named {function.__name__}"
    FAULTS[function.__name__] = function
    return function


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break the product as the fault `name` says, and mend it on exit."""
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name](patch)
        yield


@fault
def gram_drops_the_last_tile(patch: pytest.MonkeyPatch) -> None:
    """A loop over whole tiles only: the remainder of the rows is never summed."""
    from lamina_kernels.gram.sums import linear

    patch.setattr(linear, "tiles", lambda rows, block: (slice(s, s + block) for s in range(0, rows - block + 1, block)))


@fault
def gram_sums_in_the_dtype_of_its_input(patch: pytest.MonkeyPatch) -> None:
    """Sums over rows that are rounded to half precision after every tile."""
    from lamina_kernels.gram.sums import linear

    patch.setattr(linear, "accumulation_dtype", lambda dtype: dtype)


@fault
def gram_forgets_y(patch: pytest.MonkeyPatch) -> None:
    """The second set of rows is taken to be the first."""
    from dataclasses import replace

    from lamina_kernels.gram.sums import linear

    whole = linear.product
    patch.setattr(linear, "product", lambda p, v: whole(replace(p, y=p.x[: p.m]), v))


@fault
def thin_mixes_runs(patch: pytest.MonkeyPatch) -> None:
    """Neighboring steps are averaged over all runs at once."""
    from lamina.plot import steps

    whole = steps.thin
    patch.setattr(
        steps,
        "thin",
        lambda frame, by, limit: (
            frame.select(*by).unique().join(whole(frame.with_columns(run=0), ["run"], limit).drop("run"), how="cross")
        ),
    )


@fault
def procrustes_only_turns(patch: pytest.MonkeyPatch) -> None:
    """Pictures are turned towards each other, but never mirrored: an axis may flip between steps."""
    import numpy as np

    from lamina.report import principal

    def turn(points: np.ndarray, target: np.ndarray) -> np.ndarray:
        left, _, right = np.linalg.svd(points.T @ target)
        return left @ np.diag([1.0, np.linalg.det(left @ right)]) @ right

    patch.setattr(principal, "rotation_onto", turn)


@fault
def recorder_keeps_references(patch: pytest.MonkeyPatch) -> None:
    """Captured tensors are not copied: what later changes them in place changes what is stored."""
    from lamina.recording.captured import Collector

    patch.setattr(Collector, "_copy", lambda self, value, dtype: (value, None))


@fault
def recorder_counts_recomputations(patch: pytest.MonkeyPatch) -> None:
    """A forward pass inside a backward pass is captured like any other."""
    from lamina.recording.taps import _Hook

    patch.setattr(_Hook, "receive", lambda self, value: self._collect(value))


@fault
def probes_draw_random_numbers(patch: pytest.MonkeyPatch) -> None:
    """The random states are not restored behind a probe."""
    from contextlib import nullcontext

    from lamina.recording import passes

    patch.setattr(passes, "random_states", lambda *generators: nullcontext())


@fault
def probes_train(patch: pytest.MonkeyPatch) -> None:
    """A probe leaves the model in the mode that it is in: running statistics move, dropout drops."""
    import torch

    from lamina.recording import passes

    patch.setattr(passes, "evaluation", lambda model: torch.no_grad())


@fault
def learnt_forgets_relapses(patch: pytest.MonkeyPatch) -> None:
    """An example counts as learnt from the first step at which its loss is low, whatever follows."""
    import polars as pl

    from lamina.report import learnt

    whole = learnt.learnt_frame

    def first_low(run: Any) -> pl.DataFrame:
        frame = whole(run)
        low = run.activations("loss").filter(pl.col("loss") < frame["threshold"][0]).collect()
        steps = low.group_by("example").agg(learnt=pl.col("step").min())
        return frame.drop("learnt").join(steps, on="example", how="left")

    patch.setattr(learnt, "learnt_frame", first_low)


@fault
def vectors_before_metadata(patch: pytest.MonkeyPatch) -> None:
    """The wide frame fetches vectors first and filters afterwards."""
    from lamina.runs.scan import predicates, scan

    patch.setattr(scan, "split", lambda predicate, metadata: predicates.split(predicate, ()))


@fault
def scan_ignores_the_number_of_rows(patch: pytest.MonkeyPatch) -> None:
    """The wide frame gives every row, however few were asked for."""
    from lamina.runs.scan import Scan

    whole = Scan._batches
    patch.setattr(
        Scan, "_batches", lambda self, columns, predicate, n, size: whole(self, columns, predicate, None, size)
    )


@fault
def features_are_counted_from_one(patch: pytest.MonkeyPatch) -> None:
    """What asks for features gets their neighbors."""
    import numpy as np

    from lamina.runs.scan import Features

    passing, only = Features._passing, Features.only

    def shifted(self: Features, terms: list[Any]) -> Any:
        found = passing(self, terms)
        return None if found is None else np.sort((found + 1) % self.width)

    patch.setattr(Features, "_passing", shifted)
    patch.setattr(Features, "only", lambda self, features: np.roll(only(self, features), 1))


@fault
def features_forget_their_rows(patch: pytest.MonkeyPatch) -> None:
    """Units of a batch have the metadata of the rows before theirs."""
    from lamina.runs.scan import Features

    whole = Features.walk

    def shifted(self: Features, early: Any, cells: list[str], *rest: Any) -> Iterator[Any]:
        for units in whole(self, early, cells, *rest):
            yield units.with_columns(units.select(cells).reverse())

    patch.setattr(Features, "walk", shifted)


@fault
def features_count_the_rows_of_one_group(patch: pytest.MonkeyPatch) -> None:
    """Densities are of the rows of the first group."""
    from lamina.runs.scan import Features

    patch.setattr(Features, "rows", property(lambda self: self.scan.holding[0].rows))


@fault
def indexes_answer_for_all(patch: pytest.MonkeyPatch) -> None:
    """Where one segment is indexed, the others are taken to hold nothing."""
    import numpy as np

    from lamina.runs.scan.indexed import Indexed

    patch.setattr(Indexed, "answers", lambda self, groups: np.ones(groups.size, dtype=bool))


@fault
def indexes_are_off_by_a_row(patch: pytest.MonkeyPatch) -> None:
    """Units are looked up by the name after their row's."""
    from lamina.runs.scan.indexed import Indexed

    whole = Indexed.of
    patch.setattr(Indexed, "of", lambda self, rows: whole(self, rows + 1))


@fault
def rows_that_are_found_are_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Rows are found by their names one place before their own."""
    import numpy as np

    from lamina.runs.scan.groups import Span

    whole = Span.find

    def shifted(self: Span, names: Any) -> Any:
        which, at = whole(self, names)
        return which, np.maximum(at - 1, 0)

    patch.setattr(Span, "find", shifted)


@fault
def ties_are_cut(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint stores every name's tensor apart."""
    from lamina.runs import tree

    patch.setattr(tree, "place", lambda tensors: [tensor.clone() for tensor in tensors])


@fault
def rows_ignore_the_order_asked(patch: pytest.MonkeyPatch) -> None:
    """Rows come back in stored order, whatever order was asked for."""
    import numpy as np

    from lamina.runs.stored import StoredRows

    whole = StoredRows.gather
    patch.setattr(StoredRows, "gather", lambda self, positions, *rest: whole(self, np.sort(positions), *rest))


@fault
def columns_are_rounded_to_single(patch: pytest.MonkeyPatch) -> None:
    """Floats in metadata lose half of their digits."""
    import numpy as np

    from lamina.runs import columns

    whole = columns._bytes
    patch.setattr(
        columns,
        "_bytes",
        lambda values, dtype: whole(values.astype(np.float32) if dtype is np.float64 else values, dtype),
    )


@fault
def scalars_are_printed_short(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint's floats are stored with six digits."""
    from lamina.runs import tree

    whole = tree._scalar
    patch.setattr(tree, "_scalar", lambda value: whole(float(f"{value:.6g}") if isinstance(value, float) else value))


@fault
def examples_keep_what_came_first(patch: pytest.MonkeyPatch) -> None:
    """Of an example that is written again, the first value stays."""
    import polars as pl

    whole = pl.DataFrame.unique
    patch.setattr(
        pl.DataFrame, "unique", lambda self, *keys, **options: whole(self, *keys, **options | {"keep": "first"})
    )


@fault
def bench_takes_no_turns(patch: pytest.MonkeyPatch) -> None:
    """All repetitions of a case stand together: a drift of the machine hits some cases alone."""
    from bench import harness

    patch.setattr(harness, "track", lambda rounds, *_: sorted(rounds))


@fault
def bench_compares_nothing(patch: pytest.MonkeyPatch) -> None:
    """Contenders are timed whatever they computed."""
    from bench.agreement import Within

    patch.setattr(Within, "check", lambda *_: None)


@fault
def bench_lets_nan_pass(patch: pytest.MonkeyPatch) -> None:
    """Entries that are not numbers are left out of a comparison."""
    import numpy as np

    from bench import agreement

    whole = agreement.as_array
    patch.setattr(agreement, "as_array", lambda value: np.nan_to_num(whole(value)))


@fault
def bench_inverts_percents(patch: pytest.MonkeyPatch) -> None:
    """What is slower than its limit gets more than 100 percent."""
    from bench import harness

    whole = harness.percent
    patch.setattr(harness, "percent", lambda *arguments: 1e4 / whole(*arguments))


@fault
def bench_leaves_the_cache_warm(patch: pytest.MonkeyPatch) -> None:
    """What is zeroed between calls on a GPU is smaller than its cache."""
    from bench import clock

    patch.setattr(clock, "FLUSH_BYTES", 2**10)


@fault
def bench_keeps_the_old_peak(patch: pytest.MonkeyPatch) -> None:
    """The high-water mark of memory is not started anew for the call that is measured."""
    from pathlib import Path

    from bench import memory

    patch.setattr(memory, "_RESET", Path("/dev/null"))


@fault
def intervals_are_normal(patch: pytest.MonkeyPatch) -> None:
    """Quantiles come from the normal distribution, however few groups there are."""
    from statistics import NormalDist

    from lamina.measures import student

    patch.setattr(student, "_within", lambda t, freedom: 2 * NormalDist().cdf(t) - 1)


@fault
def jackknife_takes_buckets_for_equal(patch: pytest.MonkeyPatch) -> None:
    """The sizes of the buckets are ignored."""
    from lamina.measures.jackknife import Replicates

    whole = Replicates.stderr
    patch.setattr(
        Replicates,
        "stderr",
        lambda self, value: whole(Replicates(self.keys, (1,) * len(self.keys), self.values), value),
    )


@fault
def jackknife_forgets_its_factor(patch: pytest.MonkeyPatch) -> None:
    """The spread of the replicates is taken for the error."""
    import numpy as np

    from lamina.measures.jackknife import Replicates

    patch.setattr(Replicates, "stderr", lambda self, value: float(np.std(self.values)))


@fault
def differences_add_their_errors(patch: pytest.MonkeyPatch) -> None:
    """The error of a difference is that of two unrelated numbers."""
    import math
    from dataclasses import replace

    from lamina.measures.estimate import Estimate

    whole = Estimate._combined
    patch.setattr(
        Estimate,
        "_combined",
        lambda self, other, sign, symbol: replace(
            whole(self, other, sign, symbol), stderr=math.hypot(self.stderr, other.stderr)
        ),
    )


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
def cka_forgets_to_center(patch: pytest.MonkeyPatch) -> None:
    """Products are taken of the rows as they are."""
    from lamina.similarity import kernelized, linear

    for module in (linear, kernelized):
        patch.setattr(module, "center", lambda rows, by: rows.to(by.dtype))


@fault
def hsic_counts_pairs_within_groups(patch: pytest.MonkeyPatch) -> None:
    """Pairs within a group are left in the sums."""
    from dataclasses import replace

    from lamina.similarity import jackknifed

    whole = jackknifed.sums_of
    patch.setattr(
        jackknifed,
        "sums_of",
        lambda moments: whole(replace(moments, scalars=moments.scalars * 0, v=moments.v * 0, w=moments.w * 0)),
    )


@fault
def hsic_forgets_n_over_n_minus_2(patch: pytest.MonkeyPatch) -> None:
    """The sum over triples is divided by the number of triples with repetition."""
    from dataclasses import replace

    from lamina.similarity import jackknifed

    whole = jackknifed.debiased_hsic

    def wrong(sums: Any, sizes: Any) -> Any:
        factor = (sizes[0] - 2) / sizes[0]
        names = ("rho0", "rho1", "rho_x", "rho_y", "tau00", "tau10", "tau01")
        return whole(replace(sums, **{name: getattr(sums, name) * factor for name in names}), sizes)

    patch.setattr(jackknifed, "debiased_hsic", wrong)


@fault
def cka_ignores_groups(patch: pytest.MonkeyPatch) -> None:
    """Every row counts as independent of all others."""
    from lamina.rows import aligned

    whole = aligned.groups_of
    patch.setattr(aligned, "groups_of", lambda rows, groups: whole(rows, range(len(rows))))


@fault
def hsic_averages_each_term_apart(patch: pytest.MonkeyPatch) -> None:
    """Pairs, triples and quadruples are averaged over their own numbers: biased where groups differ in size."""
    import numpy as np

    from lamina.similarity import jackknifed

    def apart(sums: Any, sizes: Any) -> Any:
        p1, p2, p3, p4 = sizes
        triples = p1**3 - 3 * p1 * p2 + 2 * p3
        quadruples = p1**4 - 6 * p1**2 * p2 + 8 * p1 * p3 + 3 * p2**2 - 6 * p4
        both = sums.total_x * sums.total_y - 4 * sums.margins + 2 * sums.groups
        return np.asarray(sums.p00 / (p1**2 - p2) - 2 * (sums.rho0 - sums.tau00) / triples + both / quadruples)

    patch.setattr(jackknifed, "debiased_hsic", apart)


@fault
def merging_forgets_the_other_side(patch: pytest.MonkeyPatch) -> None:
    """Of two states the first is kept."""
    from lamina.similarity.linear import LinearState
    from lamina.similarity.panels import PanelState

    for state in (LinearState, PanelState):
        patch.setattr(state, "merge", lambda self, other: None)


@fault
def windows_forget_where_they_begin(patch: pytest.MonkeyPatch) -> None:
    """The tokens of every window are counted from its own beginning."""
    from dataclasses import replace

    from lamina.demo import documentation

    whole = documentation.windows
    patch.setattr(
        documentation,
        "windows",
        lambda texts, tokenizer: [replace(part, first=0) for part in whole(texts, tokenizer)],
    )


@fault
def similarity_pairs_by_order(patch: pytest.MonkeyPatch) -> None:
    """The report compares the first row with the first, whatever examples they are."""
    from lamina import similarity

    whole = similarity.cka

    def cka(x: Any, y: Any, **options: Any) -> Any:
        return whole(x, y, **options, pair="order")

    patch.setattr(similarity, "cka", cka)


@fault
def layers_take_rows_for_independent(patch: pytest.MonkeyPatch) -> None:
    """The report takes every row for a group of its own."""
    from lamina.report import alike

    patch.setattr(alike, "groups_of", lambda run: "row")


@fault
def rbf_forgets_the_half(patch: pytest.MonkeyPatch) -> None:
    """The bandwidth of an RBF kernel is another one than its formula says."""
    from lamina_kernels.gram import RBF

    patch.setattr(RBF, "scale", property(lambda self: 1 / self.bandwidth**2))


@fault
def rbf_rows_are_not_moved(patch: pytest.MonkeyPatch) -> None:
    """Distances are computed where the rows are, however far from the origin."""
    import torch

    from lamina_kernels.gram import blocked_bases, matrix, operands

    for module in (blocked_bases, matrix, operands):
        patch.setattr(module, "middle", lambda rows: torch.zeros(rows.shape[1], dtype=torch.float64))


@fault
def hsic_swaps_the_kernels(patch: pytest.MonkeyPatch) -> None:
    """Each kernel function is applied to the rows of the other."""
    import dataclasses

    from lamina_kernels.gram.paired import problem

    whole = problem.build

    def build(*arguments: Any) -> problem.Problem:
        built = whole(*arguments)
        return dataclasses.replace(built, kernel_x=built.kernel_y, kernel_y=built.kernel_x)

    patch.setattr(problem, "build", build)


@fault
def hsic_moments_keep_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """The shortcut of linear kernels pairs each row with itself."""
    from lamina_kernels.gram.paired import moments

    patch.setattr(moments, "cheaper", lambda problem: True)
    patch.setattr(moments, "_subtract_diagonal", lambda problem, sums: None)


@fault
def hsic_tiles_keep_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Tiles on the diagonal pair each row with itself."""
    import torch

    patch.setattr(torch.Tensor, "fill_diagonal_", lambda self, value: self)


@fault
def hsic_tiles_have_no_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Tiles above the diagonal do not count for their columns."""
    from lamina_kernels.gram.paired import blocked

    whole = blocked._add
    patch.setattr(
        blocked, "_add", lambda sums, rows, tile, span: whole(sums, rows, tile, span) if tile.stride(0) == 1 else None
    )


@fault
def hsic_drops_the_last_tile(patch: pytest.MonkeyPatch) -> None:
    """A loop over whole tiles only: the remainder of the rows is never summed."""
    from lamina_kernels.gram.paired import blocked

    patch.setattr(
        blocked, "tiles", lambda rows, block: (slice(s, s + block) for s in range(0, rows - block + 1, block))
    )


@fault
def hsic_tiles_come_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """Other tiles at every call: the sums round differently."""
    import itertools

    from lamina_kernels.gram.paired import blocked

    sizes, whole = itertools.count(17), blocked.hsic_sums
    patch.setattr(blocked, "hsic_sums", lambda problem: patch.setattr(blocked, "BLOCK", next(sizes)) or whole(problem))


@fault
def hsic_groups_are_not_sorted(patch: pytest.MonkeyPatch) -> None:
    """Rows are taken in their own order where they should be in that of their groups."""
    import torch

    from lamina_kernels.gram.paired import blocked

    whole = blocked.by_group
    patch.setattr(blocked, "by_group", lambda groups, n: whole(groups, n)._replace(order=torch.arange(len(groups))))


@fault
def hsic_groups_share_what_is_broken(patch: pytest.MonkeyPatch) -> None:
    """Groups are summed by a product with ones and zeros, where zero times infinity is not zero."""
    import torch

    from lamina_kernels.gram.paired import blocked

    patch.setattr(blocked, "sum_groups", lambda rows, group, n: torch.nn.functional.one_hot(group, n).to(rows).T @ rows)


@fault
def hsic_moves_the_rows_in_place(patch: pytest.MonkeyPatch) -> None:
    """The caller's rows are moved, instead of copies."""
    from lamina_kernels.gram.blocked_bases import Dot

    patch.setattr(Dot, "_rows", lambda self, rows, index: rows.sub_(1)[index])


@fault
def hsic_sums_tiles_in_single(patch: pytest.MonkeyPatch) -> None:
    """Sums of tiles are kept in single precision."""
    import torch

    from lamina_kernels.gram.paired import api, problem

    patch.setattr(problem.Problem, "zeros", lambda self: torch.zeros(5, self.n, self.n_groups))
    whole = api._result
    patch.setattr(api, "_result", lambda p, sums, impl: whole(p, sums.double(), impl))


@fault
def hsic_tiles_are_half(patch: pytest.MonkeyPatch) -> None:
    """Scores of rows in half precision are kept in half precision."""
    from lamina_kernels.gram.paired import blocked

    patch.setattr(blocked, "accumulation_dtype", lambda dtype: dtype)


def _hsic_launch(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Replace arguments and constants of the Triton kernel behind `hsic_sums`."""
    from lamina_kernels.gram.paired import launch

    whole = launch.plan
    patch.setattr(launch, "plan", lambda *a: (p := whole(*a))._replace(arguments=p.arguments | changes))


@fault
def hsic_kernel_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Each row is paired with itself."""
    _hsic_launch(patch, DIAGONAL=False)


@fault
def hsic_kernel_forgets_the_order(patch: pytest.MonkeyPatch) -> None:
    """Sums of rows that were sorted by group are written as if they were not."""
    _hsic_launch(patch, order=None)


@fault
def hsic_kernel_ignores_the_strides(patch: pytest.MonkeyPatch) -> None:
    """Rows are taken to stand without gaps inside."""
    from lamina_kernels.gram import operands

    patch.setattr(operands, "_contiguous", lambda rows: rows)


@fault
def hsic_kernel_rounds_its_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows are rounded to TF32 although accuracy was asked for."""
    from lamina_kernels.gram.paired import launch

    patch.setattr(launch, "products_of", lambda p, target: "tf32")


@fault
def hsic_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its sums are whatever the memory held."""
    from lamina_kernels.gram.paired import launch

    whole = launch.plan
    patch.setattr(launch, "plan", lambda *a: (p := whole(*a))._replace(grid=(p.grid[0] - 1,)))


@fault
def hsic_kernel_tiles_as_it_likes(patch: pytest.MonkeyPatch) -> None:
    """Tiles of other sizes at every call: the sums round differently."""
    import itertools

    from lamina_kernels.gram import tiling

    sizes, whole = itertools.cycle([32, 64]), tiling.scores
    patch.setattr(tiling, "scores", lambda *a: whole(*a)._replace(columns=next(sizes)))


@fault
def hsic_kernel_forgets_the_edge(patch: pytest.MonkeyPatch) -> None:
    """Columns beyond the last row are taken for it."""
    import triton.language as tl

    from lamina_kernels.gram.paired import forward
    from lamina_kernels.gram.tile import At

    whole: Any = forward.at_of

    def at_of(*arguments: Any) -> Any:
        (rows, valid, columns, _, first), itself = whole(*arguments)
        columns = tl.minimum(columns, arguments[5] - 1)
        return At(rows, valid, columns, columns == columns, first), itself

    patch.setattr(forward, "at_of", at_of)


@fault
def hsic_kernel_sums_tiles_in_single(patch: pytest.MonkeyPatch) -> None:
    """Sums of tiles are kept in single precision."""
    import triton.language as tl

    from lamina_kernels.gram.paired import forward

    patch.setattr(forward, "ACROSS_TILES", tl.constexpr(tl.float32))


@fault
def hsic_kernel_counts_in_32_bits(patch: pytest.MonkeyPatch) -> None:
    """Addresses overflow behind two billion numbers."""
    import triton.language as tl

    from lamina_kernels.tiles import dot, load

    for module in (dot, load):
        patch.setattr(module, "INDEX", tl.constexpr(tl.int32))


@fault
def hsic_triton_gives_way(patch: pytest.MonkeyPatch) -> None:
    """Where Triton was asked for, another form runs under its name."""
    from lamina_kernels.gram.paired import blocked, launch

    patch.setattr(launch, "hsic_sums", blocked.hsic_sums)


def _hsic_tiling(patch: pytest.MonkeyPatch, **changes: int) -> None:
    """Change the sizes of the tiles of the Triton kernel behind `hsic_sums`."""
    from lamina_kernels.gram import tiling

    whole = tiling.scores
    patch.setattr(tiling, "scores", lambda *arguments: whole(*arguments)._replace(**changes))


@fault
def hsic_kernel_takes_large_tiles(patch: pytest.MonkeyPatch) -> None:
    """Tiles in flight that take more shared memory than a GPU has."""
    _hsic_tiling(patch, stages=12)


@fault
def hsic_kernel_spills(patch: pytest.MonkeyPatch) -> None:
    """Tiles that do not fit into the registers of their warps."""
    _hsic_tiling(patch, columns=128)


@fault
def hsic_kernel_leaves_the_tensor_cores(patch: pytest.MonkeyPatch) -> None:
    """float32 is multiplied one number at a time."""
    _hsic_launch(patch, X_PRECISION="ieee", Y_PRECISION="ieee")


@fault
def aot_forgets_the_attributes(patch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled without the attributes that the launcher finds: another kernel, which never runs."""
    from tests.kernels.aot import compiling

    whole = compiling.ASTSource
    patch.setattr(compiling, "ASTSource", lambda **arguments: whole(**arguments | {"attrs": {}}))


@fault
def hsic_swaps_the_squares(patch: pytest.MonkeyPatch) -> None:
    """The sums of squares of one kernel are returned for the other."""
    from lamina_kernels.gram.paired import api

    whole = api._result

    def result(*arguments: Any) -> api.HsicSums:
        made = whole(*arguments)
        return made._replace(square_x=made.square_y, square_y=made.square_x)

    patch.setattr(api, "_result", result)


@fault
def verify_believes_the_length(patch: pytest.MonkeyPatch) -> None:
    """Verifying reads no block."""
    from lamina import _core

    whole = _core.verify
    patch.setattr(_core, "verify", lambda path, progress: (*whole(path, progress)[:2], []))


@fault
def scan_shows_what_is_hidden(patch: pytest.MonkeyPatch) -> None:
    """The wide frame forgets rewinds and deletes."""
    from lamina.runs.scan.cells import Cells

    patch.setattr(Cells, "hidden", lambda self, group, site=None: None)


@fault
def zone_maps_off(patch: pytest.MonkeyPatch) -> None:
    """No group is passed over. Not a defect: what zone maps are compared with."""
    from lamina.runs.scan import Scan, predicates

    patch.setattr(Scan, "_promising", lambda self, early: self.groups)
    patch.setattr(predicates, "remembered", lambda predicate: None)


def _zones_say(patch: pytest.MonkeyPatch, *, change: Callable[[Any], Any]) -> None:
    """What a wide frame knows of its columns is changed before it is used."""
    from lamina.runs.scan import Cells

    whole = Cells._column_zones
    patch.setattr(Cells, "_column_zones", lambda self, column: change(whole(self, column)))


@fault
def zones_forget_nulls(patch: pytest.MonkeyPatch) -> None:
    """Zone maps do not say that there are nulls."""
    _zones_say(patch, change=lambda frame: frame.with_columns(nulls=frame["nulls"] * 0))


@fault
def zones_forget_nan(patch: pytest.MonkeyPatch) -> None:
    """Zone maps do not say that there is NaN."""
    _zones_say(patch, change=lambda frame: frame.with_columns(nans=frame["nans"] * 0))


@fault
def zones_cut_the_greatest(patch: pytest.MonkeyPatch) -> None:
    """The greatest text is cut as the least is, not rounded up: it is less than what it stands for."""
    _zones_say(patch, change=lambda frame: frame.with_columns(greatest=frame["greatest"].str.head(8)))


@fault
def tickets_are_told_durable_at_once(patch: pytest.MonkeyPatch) -> None:
    """An append or a save is acknowledged when it is staged."""
    from lamina.runs.writer import Writer

    class Ticket:
        def wait(self) -> bool:
            return True

    def hasty(method: Any) -> Any:
        def call(self: Writer, *args: Any, **options: Any) -> Ticket:
            method(self, *args, **options)
            return Ticket()

        return call

    patch.setattr(Writer, "append", hasty(Writer.append))
    patch.setattr(Writer, "save", hasty(Writer.save))


@fault
def every_writer_opens_a_log_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """Writers of one process with the same options do not find each other."""
    from itertools import count

    from lamina import _core
    from lamina.runs import writer

    numbers = count(10**9)

    class Apart:
        def __new__(cls, path: str, **options: Any) -> _core.Writer:
            options["durable_rows"] = next(numbers)
            return own(path, **options)

    own = _core.Writer
    patch.setattr(writer._core, "Writer", Apart)


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
def compaction_loses_a_row(patch: pytest.MonkeyPatch) -> None:
    """A row is deleted before the run is compacted."""
    from lamina import _core

    whole = _core.compact

    def compact(path: str, cold: list[str], progress: Any) -> Any:
        _core.delete(path, [], [], [(3, 3)])
        return whole(path, cold, progress)

    patch.setattr(_core, "compact", compact)


@fault
def gc_removes_a_segment_that_counts(patch: pytest.MonkeyPatch) -> None:
    """With what nothing needs goes the last segment."""
    from pathlib import Path

    from lamina import _core

    whole = _core.gc

    def gc(path: str, grace: float | None, progress: Any) -> Any:
        done = whole(path, grace, progress)
        if done["removed"]:
            max((Path(path) / "segments").iterdir()).unlink()
        return done

    patch.setattr(_core, "gc", gc)


@fault
def blocks_are_never_verified(patch: pytest.MonkeyPatch) -> None:
    """Runs are opened as if nobody wanted vectors compared with their checksums."""
    import lamina

    whole = lamina.open

    def unverified(path: str, **options: Any) -> lamina.Run:
        return whole(path, **{**options, "verify": "never"})

    patch.setattr(lamina, "open", unverified)


@fault
def copying_loses_a_row(patch: pytest.MonkeyPatch) -> None:
    """A row of a copy, or of a merged run, is not there."""
    from lamina import _core

    whole = _core.merge

    def merge(runs: Any, path: str, config: str, progress: Any) -> None:
        whole(runs, path, config, progress)
        _core.delete(path, [], [], [(3, 3)])

    patch.setattr(_core, "merge", merge)


@fault
def import_reads_fortran_as_c(patch: pytest.MonkeyPatch) -> None:
    """The order of an array's axes in its file is ignored."""
    from lamina.interchange.tensors import FileTensor

    whole = FileTensor.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        whole(self, *arguments, **options)
        self.order = "C"

    patch.setattr(FileTensor, "__init__", init)


@fault
def export_converts_values(patch: pytest.MonkeyPatch) -> None:
    """Values go out as numbers instead of bits: what NumPy does not know is rounded on its way, payloads are lost."""
    import numpy as np

    from lamina.interchange import leaving

    whole = leaving.as_bits

    def converted(values: Any) -> np.ndarray:
        array = whole(values)
        return array if array.dtype.kind != "f" else np.nan_to_num(array, nan=np.nan)

    patch.setattr(leaving, "as_bits", converted)


@fault
def export_takes_rows_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """Rows of a site go out in the order in which they were found, not by their names."""
    from lamina.interchange.leaving import Leaving

    whole = Leaving.gather
    patch.setattr(Leaving, "gather", lambda self, positions: whole(self, positions)[::-1])


@fault
def import_leaves_its_rows(patch: pytest.MonkeyPatch) -> None:
    """What a failed import has written stays."""
    from lamina.interchange import arriving

    patch.setattr(arriving, "_take_back", lambda *_: None)


@fault
def attention_forgets_to_rescale(patch: pytest.MonkeyPatch) -> None:
    """When the running maximum rises, the sums so far keep the scale of the old one."""
    from lamina.recording.attention import blocked

    patch.setattr(blocked, "_rise", lambda top, base: base * 0)


@fault
def attention_forgets_the_mask(patch: pytest.MonkeyPatch) -> None:
    """Scores are taken without the masks."""
    import dataclasses

    from lamina.recording.attention import blocked

    whole = blocked._scores
    patch.setattr(blocked, "_scores", lambda a, *tile: whole(dataclasses.replace(a, masks=()), *tile))


@fault
def attention_forgets_hidden_keys(patch: pytest.MonkeyPatch) -> None:
    """Where masks come to hidden keys and a window, the keys are not hidden."""
    from lamina.recording.attention import statistics

    whole = statistics.reach_of

    def unhidden(a):
        found = whole(a)
        return found and found._replace(bias=None)

    patch.setattr(statistics, "reach_of", unhidden)


@fault
def attention_takes_every_mask_for_a_window(patch: pytest.MonkeyPatch) -> None:
    """Keys and window of a mask are found, and nobody counts whether all of their pairs are seen."""
    from lamina.recording.attention import reach

    patch.setattr(reach, "_complete", lambda *_: True)


@fault
def heads_share_counts_all_rows(patch: pytest.MonkeyPatch) -> None:
    """What a head gives to one token is taken over all rows."""
    from lamina.report import head_measures

    whole = head_measures._ratio
    patch.setattr(head_measures, "_ratio", lambda rows, above, below, *how, **of: whole(rows, below, below, *how, **of))


@fault
def attention_calls_the_next_token_the_previous(patch: pytest.MonkeyPatch) -> None:
    """Offsets of positions have the other sign."""
    from lamina.recording.attention import statistics

    patch.setattr(statistics, "_OFFSETS", {name: -offset for name, offset in statistics._OFFSETS.items()})


@fault
def attention_says_nothing_of_queries_without_keys(patch: pytest.MonkeyPatch) -> None:
    """The zeros that the kernels give to a query without a key stay."""
    from lamina.recording.attention import statistics

    patch.setattr(statistics, "_KNOWN", (*statistics._NAMES, *statistics._OFFSETS, "sink"))


@fault
def sampling_depends_on_the_place_in_the_batch(patch: pytest.MonkeyPatch) -> None:
    """Rows are sampled by where they stand in a batch instead of by what they are."""
    import numpy as np

    from lamina.recording import sampling

    patch.setattr(sampling, "_keys", lambda example: np.arange(len(example), dtype=np.uint64))


@fault
def pooling_ignores_the_mask(patch: pytest.MonkeyPatch) -> None:
    """A mean or last position is taken over padding too."""
    from lamina.recording import kept

    patch.setattr(kept, "_pooled_mask", lambda one, columns: None)


@fault
def probes_leave_buffers_changed(patch: pytest.MonkeyPatch) -> None:
    """What a layer counts in evaluation mode is not restored behind a probe."""
    from contextlib import nullcontext

    from lamina.recording import passes

    patch.setattr(passes, "buffers", lambda model: nullcontext())


@fault
def gradients_before_the_closure(patch: pytest.MonkeyPatch) -> None:
    """A parameter's gradient is taken when the optimizer's step begins, before its closure has computed it."""
    from lamina.recording import parameters
    from lamina.recording.numbers import meters

    for module in (parameters, meters):
        patch.setattr(module, "with_gradients", lambda act, args, kwargs: act())


@fault
def trainer_gradients_are_taken_late(patch: pytest.MonkeyPatch) -> None:
    """Raw gradients are taken when the optimizer steps, behind the clipping."""
    from lamina.recording import recorder

    patch.setattr(recorder.Recorder, "take_gradients", lambda self: None)


@fault
def attention_ignores_causality(patch: pytest.MonkeyPatch) -> None:
    """A call without a mask is read as one without causality."""
    import dataclasses

    from lamina.recording.attention import watch

    whole = watch.attention_statistics
    patch.setattr(watch, "attention_statistics", lambda a, names: whole(dataclasses.replace(a, causal=False), names))


@fault
def attention_counts_recomputations(patch: pytest.MonkeyPatch) -> None:
    """A forward pass inside a backward pass is read like any other."""
    import torch

    patch.setattr(torch._C, "_current_graph_task_id", lambda: -1)


@fault
def aliases_swap_queries_and_keys(patch: pytest.MonkeyPatch) -> None:
    """In the table of names, queries stand where keys are."""
    from lamina.recording import aliases

    names = {"attn.hook_q": "attn.hook_k", "attn.hook_k": "attn.hook_q"}
    families = {
        model: family
        | {"block": {site: [names.get(one, one) for one in listed] for site, listed in family["block"].items()}}
        for model, family in aliases._families().items()
    }
    patch.setattr(aliases, "_families", lambda: families)


@fault
def aliases_take_heads_together(patch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values are taken to stand side by side, not side by side in each head."""
    from lamina.recording import aliases

    for index, name in enumerate(("query", "key", "value")):
        patch.setitem(aliases.PARTS, f"{name} of each head", lambda config, index=index: aliases.Third(index))


@fault
def flights_keep_references(patch: pytest.MonkeyPatch) -> None:
    """A flight recorder keeps the optimizer's and the model's own tensors."""
    from lamina.recording import ring

    patch.setattr(ring, "copied", lambda value, *_: value)


@fault
def flights_forget_the_random_state(patch: pytest.MonkeyPatch) -> None:
    """A flight recorder keeps the state of the random generators at the first step alone."""
    import functools

    from lamina.recording import ring

    patch.setattr(ring, "random_state", functools.cache(ring.random_state))


@fault
def divisions_ignore_shapes(patch: pytest.MonkeyPatch) -> None:
    """A step with the same sites and columns is divided as the one before, whatever their shapes."""
    from lamina.recording import division

    patch.setattr(division, "_shapes", lambda captured, columns: ([one.site for one in captured], list(columns)))


@fault
def divisions_keep_what_values_decided(patch: pytest.MonkeyPatch) -> None:
    """Columns that were made for one step hold for the next one of the same shapes."""
    from lamina.recording.division import Division, _Set

    def learn(self: Division, captured: Any, columns: Any, made: Any) -> bool:
        self._sets = [_Set((), dict(own)) for _, own in made]
        self._places = [next(i for i, (sites, _) in enumerate(made) if one.site in sites) for one in captured]
        return True

    patch.setattr(Division, "_learn", learn)


@fault
def fused_optimizers_unscale_before(patch: pytest.MonkeyPatch) -> None:
    """Gradients are taken for unscaled, although a fused optimizer does that while it steps."""
    from lamina.recording.parameters import ParameterTaps

    take = ParameterTaps._take_gradients
    patch.setattr(ParameterTaps, "_take_gradients", lambda self, scale=None: take(self))


@fault
def passes_are_seen_by_other_recorders(patch: pytest.MonkeyPatch) -> None:
    """A probe or a capture inside of another recorder's step counts as a part of that step."""
    from contextlib import nullcontext

    from lamina.recording.watching import Taps

    patch.setattr(Taps, "paused", lambda self: nullcontext())


@fault
def edits_take_rows_in_stored_order(patch: pytest.MonkeyPatch) -> None:
    """An edit by rows takes the first ones, whatever their example and position."""
    import numpy as np

    from lamina.recording.matching import Table

    whole = Table.find
    patch.setattr(Table, "find", lambda *asked: np.arange(len(whole(*asked))))


@fault
def edits_stay_after_the_block(patch: pytest.MonkeyPatch) -> None:
    """The hooks of an edit are not taken away."""
    from lamina.recording.editors import Hook

    patch.setattr(Hook, "detach", lambda self: None)


@fault
def edits_change_the_original(patch: pytest.MonkeyPatch) -> None:
    """A function gets the tensor that flows, not a copy, and what it returns goes on as it is."""
    from lamina.recording import changes

    patch.setattr(changes, "_made", lambda value, function, site: function(value))


@fault
def edits_cut_gradients(patch: pytest.MonkeyPatch) -> None:
    """What an edit puts in has no part in the backward pass."""
    from lamina.recording import changes

    whole = changes._like
    patch.setattr(changes, "_like", lambda value, new: whole(value, new).detach())


@fault
def edits_do_not_stop_compiled_code(patch: pytest.MonkeyPatch) -> None:
    """Code that was compiled goes on in the block of an edit."""
    from contextlib import nullcontext

    import torch

    patch.setattr(torch.compiler, "set_stance", lambda stance: nullcontext())


@fault
def edits_forget_where(patch: pytest.MonkeyPatch) -> None:
    """An edit changes all of a tensor, whatever was chosen."""
    from lamina.recording.changes import Where

    patch.setattr(Where, "chosen", lambda self, flow: None)


@fault
def edits_round_what_does_not_fit(patch: pytest.MonkeyPatch) -> None:
    """A value that the dtype of a site cannot hold is rounded."""
    from lamina.recording import changes

    patch.setattr(changes, "exactly", lambda given, value, site: given.to(value))


@fault
def edits_count_calls_as_one(patch: pytest.MonkeyPatch) -> None:
    """Every call of a module gets the rows of the first."""
    from lamina.recording.editors import Editor

    whole = Editor._count
    patch.setattr(Editor, "_count", lambda self: 0 * whole(self))


@fault
def edits_count_positions_from_zero(patch: pytest.MonkeyPatch) -> None:
    """Positions do not go on behind what a cache holds."""
    from lamina.recording.matching import Names

    whole = Names.begin
    patch.setattr(Names, "begin", lambda self, size, start: (whole(self, size, start), setattr(self, "_start", 0)))


@fault
def edits_put_parts_first(patch: pytest.MonkeyPatch) -> None:
    """The part of a tensor that was edited goes to its first entries."""
    import torch

    from lamina.recording import editors

    def put(value: Any, part: Any, new: Any) -> Any:
        return torch.cat([new.reshape(-1), value.reshape(-1)[new.numel() :]]).view(value.shape)

    patch.setattr(editors, "put_part", put)


@fault
def edits_ignore_layouts(patch: pytest.MonkeyPatch) -> None:
    """A tensor is read by its number of dimensions, whatever its layout."""
    from lamina.recording.editors import Editor

    patch.setattr(Editor, "_meant", lambda self, whole: whole)


@fault
def edits_pass_by_what_has_the_name(patch: pytest.MonkeyPatch) -> None:
    """A name whose tensor goes to more places than the site's is edited at the site."""
    from lamina.recording import aliases

    whole = aliases.Alias
    patch.setattr(aliases, "Alias", lambda site, part=None, passes=False: whole(site, part))


@fault
def squares_drop_the_last_row(patch: pytest.MonkeyPatch) -> None:
    """Of a large tensor only whole rows are summed."""
    import torch

    from lamina.recording.numbers import squares

    whole = squares._bytes

    def rows(tensor: torch.Tensor) -> Any:
        flat, row = whole(tensor), 512 * tensor.itemsize
        return flat[: flat.size // row * row]

    patch.setattr(squares, "_bytes", rows)


@fault
def squares_are_summed_in_the_dtype_of_the_tensor(patch: pytest.MonkeyPatch) -> None:
    """Half precision overflows at 65,504."""
    import torch

    from lamina.recording.numbers import squares

    def narrow(own: list[torch.Tensor], *_: object) -> torch.Tensor:
        return torch.stack([torch.linalg.vector_norm(one) for one in own]).square().double()

    patch.setattr(squares, "_on_cpu", narrow)


@fault
def norms_take_gradients_before_clipping(patch: pytest.MonkeyPatch) -> None:
    """What the backward pass leaves is taken for what the optimizer takes."""
    from lamina.recording.numbers.found import Found
    from lamina.recording.numbers.norms import Norms

    whole = Norms.before_update

    def before_update(self: Norms) -> None:
        whole(self)
        raw, name = self._found["raw_gradient_norm"], "gradient_norm"
        self._found[name] = Found({name: raw.at[f"raw_{name}"]}, {name: raw.whole[f"raw_{name}"]}, raw.sites)

    patch.setattr(Norms, "before_update", before_update)


@fault
def updates_are_measured_from_the_first_step(patch: pytest.MonkeyPatch) -> None:
    """The copy of the weights is not renewed."""
    from lamina.recording.numbers.norms import Norms

    copy = Norms._copy
    patch.setattr(Norms, "_copy", lambda self, one: self._before[one] if one in self._before else copy(self, one))


@fault
def half_batches_draw_random_numbers(patch: pytest.MonkeyPatch) -> None:
    """What a half batch draws is missing later on."""
    from contextlib import nullcontext

    from lamina.recording.numbers import noise_scale

    patch.setattr(noise_scale, "random_states", nullcontext)


@fault
def noise_scale_takes_shares_for_gradients(patch: pytest.MonkeyPatch) -> None:
    """The loss of a micro-batch is divided by their number, and its gradient is not multiplied by it again."""
    from lamina.recording.numbers import noise_scale

    two = noise_scale.two_batch_sizes

    def shared(own, whole, *, small, big):
        return two(own / (big // small), whole, small=small, big=big)

    patch.setattr(noise_scale, "two_batch_sizes", shared)


@fault
def noise_scale_compares_a_half_with_itself(patch: pytest.MonkeyPatch) -> None:
    """Both halves of a batch are the first."""
    import torch

    from lamina.recording.numbers import noise_scale

    whole = noise_scale.sums_of_squares
    patch.setattr(
        noise_scale,
        "sums_of_squares",
        lambda own, minus=None: whole(own) if minus is None else torch.zeros(len(own), dtype=torch.float64),
    )


@fault
def backward_passes_end_before_ranks_are_averaged(patch: pytest.MonkeyPatch) -> None:
    """The end of a pass is seen before that of the averages over ranks."""
    import torch

    from lamina.recording.numbers import backward

    engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportAttributeAccessIssue]
    patch.setattr(backward, "behind_backward", engine.queue_callback)


@fault
def log_partition_counts_padding(patch: pytest.MonkeyPatch) -> None:
    """Rows that the mask leaves out count."""
    from lamina.recording.numbers.log_partition import LogPartitions

    end = LogPartitions.end
    patch.setattr(LogPartitions, "end", lambda self, mask=None: end(self))


@fault
def log_partition_is_summed_in_the_dtype_of_the_logits(patch: pytest.MonkeyPatch) -> None:
    """Half precision is not widened."""
    from lamina.recording.numbers import log_partition

    patch.setattr(log_partition, "log_partition", lambda logits: logits.logsumexp(-1).float())


@fault
def pool_gives_out_what_is_lent(patch: pytest.MonkeyPatch) -> None:
    """One piece of memory for all who ask, as if nobody had it."""
    from lamina import _core

    class Careless:
        def __init__(self, allocate: Any = None) -> None:
            self.memory: dict[int, _core.Memory] = {}
            self.pool = whole(allocate)

        def take(self, size: int) -> _core.Memory:
            return self.memory.setdefault(size, self.pool.take(size))

    whole = _core.Pool
    patch.setattr(_core, "Pool", Careless)


@fault
def writers_write_in_a_python_thread(patch: pytest.MonkeyPatch) -> None:
    """What makes rows durable after a while is a thread of Python's."""
    from contextlib import suppress
    from threading import Timer

    from lamina.errors import WriterError
    from lamina.runs.writer import Writer

    opened = Writer.__init__

    def lazily(self: Writer, path: Any, *, durable_seconds: float, **options: Any) -> None:
        opened(self, path, durable_seconds=None, **options)

        def flush() -> None:
            with suppress(WriterError):
                self.flush()

        Timer(durable_seconds, flush).start()

    patch.setattr(Writer, "__init__", lazily)


@fault
def staging_copies_in_order_of_memory(patch: pytest.MonkeyPatch) -> None:
    """What is put in order keeps the order in which it lay."""
    from lamina.runs.staging import Staging

    whole, whole_array = Staging.of_tensor, Staging.of_array
    patch.setattr(Staging, "of_tensor", lambda self, tensor: whole(self, tensor.flip(-1)))
    patch.setattr(Staging, "of_array", lambda self, array, dtype: whole_array(self, array[..., ::-1], dtype))


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
def names_drop_every_module(patch: pytest.MonkeyPatch) -> None:
    """A child that its owner called `module` is taken for one that a parallel wrapper holds."""
    from lamina.modules.wrappers import PlainNames

    patch.setattr(PlainNames, "of", lambda self, path: ".".join(part for part in path.split(".") if part != "module"))


@fault
def ranks_never_share_a_model(patch: pytest.MonkeyPatch) -> None:
    """Every rank saves checkpoints, whatever it is told of the weights."""
    from lamina.recording import saving

    whole = saving.save
    patch.setattr(saving, "save", lambda *args, replicated, **options: whole(*args, replicated=False, **options))


@fault
def numbers_are_the_same_on_every_rank(patch: pytest.MonkeyPatch) -> None:
    """Items without a name are numbered as if there were one process."""
    from lamina.recording.numbering import Numbering

    def alone(self: Numbering, start: int = 0) -> None:
        self._stride, self._next, self._step = 1, start, {}

    patch.setattr(Numbering, "__init__", alone)


@fault
def overlaps_are_cut(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint stores tensors that overlap apart."""
    from lamina.runs import sharing

    patch.setattr(sharing, "_join", lambda *arguments: None)


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
def import_skips_a_block(patch: pytest.MonkeyPatch) -> None:
    """The first chunk of a large tensor is read in the place of its second."""
    from lamina.interchange import checkpoint_parts

    whole = checkpoint_parts._blocks_of_file

    def again(tensor: Any) -> Any:
        def blocks() -> Any:
            for block in whole(tensor)():
                block[1 << 20 : 1 << 21] = block[: max(0, min(1 << 20, block.size - (1 << 20)))]
                yield block

        return blocks

    patch.setattr(checkpoint_parts, "_blocks_of_file", again)


@fault
def discards_have_no_place(patch: pytest.MonkeyPatch) -> None:
    """Retention hides whatever is there when it acts, also what was saved since it was shown."""
    from lamina import _core
    from lamina.runs import retention

    class Late:
        positions = staticmethod(_core.positions)

        @staticmethod
        def discard(path: str, what: Any, before: Any) -> None:
            _core.discard(path, what, _core.positions(path))

    patch.setattr(retention, "_core", Late)


@fault
def saves_keep_what_they_are_given(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint is copied when somebody waits for it, not when `save` is called."""
    from lamina.runs import writer

    late: list[Any] = []
    save, close = writer.checkpoints.save, writer.Writer.close
    patch.setattr(writer.checkpoints, "save", lambda *given: late.append(given))

    def close_late(self: Any, error: Any = None) -> None:
        while late:
            save(*late.pop())
        close(self, error)

    patch.setattr(writer.Writer, "close", close_late)


@fault
def regression_fits_what_it_scores(patch: pytest.MonkeyPatch) -> None:
    """The fold that is scored is among those that the map is fitted to."""
    from lamina.similarity.least_squares import Moments

    whole = Moments.fitted_without

    def with_all(self: Any, fold: int) -> Any:
        import torch

        blank = Moments(1, self.x.shape[1], self.y.shape[1])
        for name in ("n", "yy", "x", "y", "xx", "xy"):
            each = getattr(self, name)
            setattr(blank, name, torch.cat([torch.zeros_like(each[:1]), each]))
        return whole(blank, 0)

    patch.setattr(Moments, "fitted_without", with_all)


@fault
def discoveries_are_adjusted_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Each p-value is multiplied by the number of tests over its rank, and no more."""
    import numpy as np

    from lamina.measures import multiple

    class Forgetful:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        class minimum:  # noqa: N801 - stands for numpy.minimum
            accumulate = staticmethod(lambda values: values)

            def __new__(cls, a: Any, b: Any) -> Any:
                return np.minimum(a, b)

    patch.setattr(multiple, "np", Forgetful())


@fault
def permutations_move_rows(patch: pytest.MonkeyPatch) -> None:
    """Single rows trade places, whatever their groups."""
    from lamina.measures.permutation import _Moves

    patch.setattr(_Moves, "draw", lambda self, generator: generator.permutation(self._n))


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
def slices_begin_at_their_block(patch: pytest.MonkeyPatch) -> None:
    """A slice of a stored tensor begins where its block of 128 KiB does."""
    from lamina.runs import slices
    from lamina.runs.saved import Saved

    class Cut:
        def __init__(self, snapshot: Any) -> None:
            self._snapshot = snapshot

        def __getattr__(self, name: str) -> Any:
            return getattr(self._snapshot, name)

        def stretches(self, part: str, wanted: list[Any], threads: int) -> Any:
            moved = [(step, number, start // 131072 * 131072, out) for step, number, start, out in wanted]
            return self._snapshot.stretches(part, moved, threads)

    read = slices._read

    def cut(saved: Saved, *arguments: Any) -> Any:
        whole, saved.snapshot = saved.snapshot, Cut(saved.snapshot)  # type: ignore[assignment]
        try:
            return read(saved, *arguments)
        finally:
            saved.snapshot = whole

    patch.setattr(slices, "_read", cut)


@fault
def slices_read_whole_tensors(patch: pytest.MonkeyPatch) -> None:
    """A slice of a stored tensor reads all of it."""
    from lamina.runs import slices

    read = slices._read

    def whole(saved: Any, part: str, found: Any, order: Any, first: Any, spans: Any) -> Any:
        read(saved, part, found, order, first, [(0, first.shape[0])])
        return read(saved, part, found, order, first, spans)

    patch.setattr(slices, "_read", whole)


@fault
def a_layout_is_lost(patch: pytest.MonkeyPatch) -> None:
    """The tree of the part `model` cannot be read."""
    from lamina.errors import DamagedError
    from lamina.runs import loading

    load_part = loading._load_part

    def lost(saved: Any, part: Any, *arguments: Any) -> Any:
        if part.name == "model":
            raise DamagedError("planted")
        return load_part(saved, part, *arguments)

    patch.setattr(loading, "_load_part", lost)


@fault
def maps_are_shared(patch: pytest.MonkeyPatch) -> None:
    """Tensors that are loaded as maps are the same memory each time."""
    from lamina.runs import loading

    inner, made = loading._map, {}

    def shared(saved: Any, part: Any, tensors: list[Any], threads: int) -> None:
        inner(saved, part, tensors, threads)
        for at, tensor in enumerate(tensors):
            tensors[at] = made.setdefault(at, tensor)

    patch.setattr(loading, "_map", shared)


@fault
def only_the_model_is_restored(patch: pytest.MonkeyPatch) -> None:
    """Restoring a checkpoint leaves the optimizer as it was."""
    from lamina.runs import restoring

    prepared = restoring._prepared
    patch.setattr(
        restoring,
        "_prepared",
        lambda saved, step, part, *rest: (lambda: None) if part == "optimizer" else prepared(saved, step, part, *rest),
    )


@fault
def differences_stop_after_a_piece(patch: pytest.MonkeyPatch) -> None:
    """Of two tensors the first piece alone is compared."""
    from lamina.runs import differences

    patch.setattr(differences, "_AT_ONCE", 10_000)
    patch.setattr(differences, "range", lambda *of: range(*of)[:1] if len(of) == 3 else range(*of), raising=False)


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


@fault
def shards_begin_at_nothing(patch: pytest.MonkeyPatch) -> None:
    """A process forgets where its shards begin."""
    from lamina.distributed import writing

    shard = writing.StoredShard
    patch.setattr(writing, "StoredShard", lambda offsets, *rest: shard((0,) * len(offsets), *rest))


@fault
def boxes_begin_at_nothing(patch: pytest.MonkeyPatch) -> None:
    """A process reads the first rows in place of its own."""
    from lamina.distributed.leaves import Leaves

    read = Leaves.read
    patch.setattr(Leaves, "read", lambda self, stored, offsets, out: read(self, stored, (0,) * len(offsets), out))


@fault
def regression_deals_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows are dealt into folds and buckets one by one, whatever their groups."""
    from importlib import import_module

    room = import_module("lamina.similarity.linear_regression")
    whole = room.align
    patch.setattr(room, "align", lambda x, y, groups, **options: whole(x, y, **options))


@fault
def regression_forgets_the_intercept(patch: pytest.MonkeyPatch) -> None:
    """Maps go through the origin of what they are given."""
    from lamina.similarity.least_squares import Moments

    whole = Moments.fitted_without

    def through_zero(self: Any, fold: int) -> Any:
        _, _, weights = whole(self, fold)
        return self.x[0] * 0, self.y[0] * 0, weights

    patch.setattr(Moments, "fitted_without", through_zero)


@fault
def runs_have_the_band_of_one(patch: pytest.MonkeyPatch) -> None:
    """The band around a mean over runs is what each run's own error makes of it."""
    import polars as pl

    from lamina.plot import bands

    whole = bands.summarize

    def own(frame: pl.DataFrame) -> pl.DataFrame:
        reach = 2 * pl.col("within")
        return whole(frame).with_columns(low=pl.col("value") - reach, high=pl.col("value") + reach)

    patch.setattr(bands, "summarize", own)


@fault
def heatmap_loses_a_direction(patch: pytest.MonkeyPatch) -> None:
    """A pair that has one direction is drawn in that one alone."""
    from lamina.plot import cells

    patch.setattr(cells, "_both_directions", lambda frame: frame)


@fault
def mds_does_not_square(patch: pytest.MonkeyPatch) -> None:
    """Distances are centered as they are, not their squares."""
    from importlib import import_module

    room = import_module("lamina.plot.mds")
    whole = room.classical
    patch.setattr(room, "classical", lambda distances: whole(distances**0.5))


@fault
def sweeps_know_rows_by_site_and_step(patch: pytest.MonkeyPatch) -> None:
    """A cell's key holds where its rows lie, and not which they are."""
    from lamina.sweeps.names import Names

    patch.setattr(Names, "_identity", lambda self, site, step, names: f"{self._run.id} {site} {step}".encode())


@fault
def sweeps_forget_the_code(patch: pytest.MonkeyPatch) -> None:
    """A cell's key holds the measure's name, and not what it does."""
    from lamina.sweeps import estimating

    patch.setattr(estimating, "fingerprint", lambda function: function.__name__.encode())


@fault
def sweeps_take_rows_of_all_steps(patch: pytest.MonkeyPatch) -> None:
    """A subject gives the rows of all steps."""
    from lamina.sweeps.subjects import Chosen

    patch.setattr(Chosen, "value", lambda self, site, step: self.run.rows(site, source=self.source, where=self.where))


@fault
def cka_counts_pairs_twice(patch: pytest.MonkeyPatch) -> None:
    """The error of CKA is the jackknife's, also where the representations are independent."""
    from lamina.similarity import degenerate

    patch.setattr(degenerate, "less_counted_twice", lambda stderr, pairs, rows: stderr)


@fault
def panels_count_pairs_within_groups(patch: pytest.MonkeyPatch) -> None:
    """Kernel values between rows of a group are left in the sums of panels."""
    from lamina.similarity import kernelized

    whole = kernelized.Panel
    patch.setattr(kernelized, "Panel", lambda *args, within, **options: whole(*args, within=True, **options))


@fault
def kernels_are_not_centered(patch: pytest.MonkeyPatch) -> None:
    """What pairs of rows add to HSIC is taken from kernel values as they are."""
    from lamina.similarity.double_centering import Margins

    patch.setattr(Margins, "centered", lambda self, products, total_x, total_y: products)


@fault
def differences_take_the_jackknife(patch: pytest.MonkeyPatch) -> None:
    """The replicates are those of the jackknife, whatever the error is."""
    from lamina.similarity import estimates

    whole = estimates.corrected
    patch.setattr(estimates, "corrected", lambda value, left, pairs: (whole(value, left, pairs)[0], left))


@fault
def distances_forget_their_root(patch: pytest.MonkeyPatch) -> None:
    """The distance is its square: HSIC with linear kernels."""
    from lamina_kernels.gram.blocked_bases import Euclidean

    whole = Euclidean.tile

    def squared(self: Any, columns: Any) -> Any:
        tile = whole(self, columns)
        return tile.mul_(-tile)

    patch.setattr(Euclidean, "tile", squared)


@fault
def ksg_counts_its_neighbor(patch: pytest.MonkeyPatch) -> None:
    """The k-th neighbor itself counts as nearer than the k-th neighbor."""
    from importlib import import_module

    import numpy as np

    room = import_module("lamina.information.ksg")
    whole = room.Strips
    patch.setattr(room, "Strips", lambda z, radii, codes: whole(z, np.nextafter(radii, np.inf), codes))


@fault
def ksg_leaves_ties(patch: pytest.MonkeyPatch) -> None:
    """Numbers that tie stay where they are."""
    from importlib import import_module

    patch.setattr(import_module("lamina.information.ksg"), "_moved", lambda sides, seed: sides)


@fault
def ksg_takes_terms_for_independent(patch: pytest.MonkeyPatch) -> None:
    """The error forgets what a row does to the terms of others."""
    from importlib import import_module

    from lamina.information.strips import Strips

    patch.setattr(import_module("lamina.information.ksg"), "IN_DEGREE", 0.0)
    patch.setattr(Strips, "reach", lambda self, weights: 0.0 * weights)


@fault
def strips_trust_rounded_sums(patch: pytest.MonkeyPatch) -> None:
    """Whether a row lies within a distance is asked of a rounded sum."""
    import numpy as np

    from lamina.information import strips

    def rounded(values: Any, radii: Any) -> Any:
        ascending = np.sort(values)
        low, high = np.searchsorted(ascending, values - radii), np.searchsorted(ascending, values + radii, "right")
        return np.argsort(np.argsort(values)), low, high

    patch.setattr(strips, "_span", rounded)


@fault
def neighbors_are_of_any_group(patch: pytest.MonkeyPatch) -> None:
    """Neighbors are looked for in the row's own group too."""
    from importlib import import_module

    import numpy as np

    room = import_module("lamina.information.ksg")
    whole = room.nearest
    patch.setattr(room, "nearest", lambda z, k, codes: whole(z, k, np.arange(len(z))))


@fault
def ksg_forgets_the_nearest(patch: pytest.MonkeyPatch) -> None:
    """The nearest neighbor is passed over, as if it were the row itself."""
    from importlib import import_module

    room = import_module("lamina.information.ksg")
    whole = room.nearest
    patch.setattr(room, "nearest", lambda z, k, codes: tuple(found[:, 1:] for found in whole(z, k + 1, codes)))


@fault
def grid_forgets_groups(patch: pytest.MonkeyPatch) -> None:
    """Rows of a group are added up as if each were one of its own, but for the buckets."""
    from lamina.similarity.holding import Layout

    patch.setattr(Layout, "size", property(lambda self: 1))


@fault
def grid_keeps_rows_of_a_group(patch: pytest.MonkeyPatch) -> None:
    """Row sums hold the rows of the own group."""
    from lamina.similarity.holding import Held

    whole = Held._outside
    patch.setattr(Held, "_outside", lambda self, layout, weights, own: whole(self, layout, weights, own * 0))


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


@fault
def grid_adds_row_sums_one_way(patch: pytest.MonkeyPatch) -> None:
    """The kernel values between two panels count for the rows of the first alone."""
    from lamina.similarity.tiles import _RowSums

    def one_way(self: Any, a: Any, b: Any, values: Any) -> None:
        self._plain[:, b.bucket, a.rows] += values.sum(2)

    patch.setattr(_RowSums, "add", one_way)


def _attention_terms(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change what the gradients of attention scores know of their queries."""
    from lamina_kernels.attention import gradients

    whole = gradients.terms

    def terms(*arguments: Any) -> gradients.Terms:
        made = whole(*arguments)
        return made._replace(
            **{name: change(getattr(made, name)) for name, change in changes.items() if getattr(made, name) is not None}
        )

    patch.setattr(gradients, "terms", terms)


@fault
def attention_swaps_the_sign_of_log_p(patch: pytest.MonkeyPatch) -> None:
    """The gradients of entropy and expected score have the wrong sign in one of their terms."""
    _attention_terms(patch, log=lambda log: -log)


@fault
def attention_forgets_a_half_of_sum_p2(patch: pytest.MonkeyPatch) -> None:
    """The derivative of p^2 is taken to be p."""
    _attention_terms(patch, square=lambda square: square / 2)


@fault
def attention_forgets_what_is_constant_in_a_row(patch: pytest.MonkeyPatch) -> None:
    """The gradient of a softmax is taken to be that of exp."""
    _attention_terms(patch, constant=lambda constant: constant * 0)


@fault
def attention_swaps_the_distances(patch: pytest.MonkeyPatch) -> None:
    """The gradient of the mean of i - j goes to that of |i - j|."""
    _attention_terms(patch, distance=lambda distance: distance.roll(3, 0))


@fault
def attention_takes_the_next_key_for_the_largest(patch: pytest.MonkeyPatch) -> None:
    """The gradient of the largest score goes to the key before its own."""
    _attention_terms(patch, argmax=lambda argmax: argmax - 1)


@fault
def attention_forgets_the_slope_of_the_cap(patch: pytest.MonkeyPatch) -> None:
    """Scores before the cap get the gradients of those behind it."""
    from lamina_kernels.attention import gradients

    patch.setattr(gradients, "before_cap", lambda ds, capped, softcap: ds)


@fault
def blocked_attention_forgets_to_rescale(patch: pytest.MonkeyPatch) -> None:
    """When the largest score rises, the sums so far keep the scale of the old one."""
    from lamina_kernels.attention import blocked

    patch.setattr(blocked, "_rise", lambda top, base: base * 0)


@fault
def blocked_attention_sees_past_the_window(patch: pytest.MonkeyPatch) -> None:
    """Tiles that an end of the window crosses are seen whole."""
    from lamina_kernels.attention.blocked_scores import Scores

    patch.setattr(Scores, "_hidden", lambda self, keys: self.distance(keys) * 0)


@fault
def blocked_attention_ignores_bits(patch: pytest.MonkeyPatch) -> None:
    """Blocks of a mask that are seen in part are seen whole."""
    from lamina_kernels.attention import blocked_visits

    whole = blocked_visits._pairs
    patch.setattr(blocked_visits, "_pairs", lambda mask, number: whole(mask, -1))


@fault
def blocked_attention_leaves_out_a_block(patch: pytest.MonkeyPatch) -> None:
    """The last of the seen blocks of keys is not visited."""
    from lamina_kernels.attention import blocked_visits

    whole = blocked_visits._visits_of_mask
    patch.setattr(
        blocked_visits,
        "_visits_of_mask",
        lambda p, mask, rows, seen, *lists: whole(p, mask, rows, seen[:-1], *lists),
    )


@fault
def blocked_attention_measures_from_the_wrong_key(patch: pytest.MonkeyPatch) -> None:
    """Distances are one too large."""
    from lamina_kernels.attention.blocked_scores import Scores

    whole = Scores.first_distance
    patch.setattr(Scores, "first_distance", lambda self, keys: whole(self, keys) + 1)


@fault
def blocked_attention_forgets_the_scale_of_keys(patch: pytest.MonkeyPatch) -> None:
    """Gradients by queries are taken as if c were 1."""
    from lamina_kernels.attention.blocked_backward import Accumulated

    whole = Accumulated._add_scaled_keys
    patch.setattr(Accumulated, "_add_scaled_keys", lambda self, tile, visit: whole(self, tile.clone(), visit))


@fault
def blocked_attention_numbers_packed_keys_through(patch: pytest.MonkeyPatch) -> None:
    """Keys of packed sequences are numbered by their row."""
    from lamina_kernels.attention import blocked

    whole = blocked.walk
    patch.setattr(blocked, "walk", lambda p: ((rows._replace(first_key=0), visits) for rows, visits in whole(p)))


@fault
def attention_gives_a_sink_no_share_of_the_mass(patch: pytest.MonkeyPatch) -> None:
    """The gradient by lse of what keys receive is taken as if the weights summed to one."""
    import torch

    from lamina_kernels.attention import op_mass

    def alone(p, name):
        sums = whole(p, name)
        assert sums.lse is not None
        return sums._replace(lse=torch.zeros_like(sums.lse))

    whole = op_mass.attend
    patch.setattr(op_mass, "attend", alone)


def _attention_backward(patch: pytest.MonkeyPatch, kernel: str, **changes: Any) -> None:
    """Replace arguments and constants of one of the kernels of attention's gradients."""
    from lamina_kernels.attention import backward_launch

    whole = getattr(backward_launch, f"{kernel}_plan")
    patch.setattr(
        backward_launch,
        f"{kernel}_plan",
        lambda *a: (p := whole(*a))._replace(
            arguments=p.arguments | {name: change(p.arguments[name]) for name, change in changes.items()}
        ),
    )


@fault
def attention_backward_forgets_the_slope_of_the_cap(patch: pytest.MonkeyPatch) -> None:
    """The kernel takes scores for capped at a number that none reaches."""
    _attention_backward(patch, "keys", scale=lambda s: s / 1e3, query_scale=lambda a: a / 1e3, cap=lambda c: c * 1e3)


@fault
def attention_backward_drops_the_window_for_keys(patch: pytest.MonkeyPatch) -> None:
    """The gradients of the keys count all queries."""
    _attention_backward(patch, "keys", LEFT=lambda given: False)


@fault
def attention_backward_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its gradients are whatever the memory held."""
    from lamina_kernels.attention import backward_launch

    whole = backward_launch.queries_plan
    patch.setattr(backward_launch, "queries_plan", lambda *a: (p := whole(*a))._replace(grid=(p.grid[0] - 1,)))


@fault
def attention_backward_takes_one_head_of_a_group(patch: pytest.MonkeyPatch) -> None:
    """The gradients of a key count the first of the heads that share it, again and again."""
    _attention_backward(patch, "keys", q_head=lambda step: 0)


@fault
def attention_backward_reads_bits_of_another_block(patch: pytest.MonkeyPatch) -> None:
    """What is seen of a block is read as if the mask were listed by block of queries."""
    _attention_backward(patch, "keys", mask_partial=lambda partial: partial.roll(1))


@fault
def attention_mass_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last keys are never looked at: what they receive is whatever the memory held."""
    from lamina_kernels.attention import mass_launch

    whole = mass_launch.received_plan
    patch.setattr(mass_launch, "received_plan", lambda *a: (p := whole(*a))._replace(grid=(p.grid[0] - 1,)))


@fault
def attention_mass_forgets_the_share(patch: pytest.MonkeyPatch) -> None:
    """Every key with any weight is counted."""
    from lamina_kernels.attention import mass_launch

    whole = mass_launch.above_plan
    patch.setattr(mass_launch, "above_plan", lambda p, shared, share, target: whole(p, shared, 0.0, target))


@fault
def attention_mass_drops_the_mask(patch: pytest.MonkeyPatch) -> None:
    """Blocks that are seen in part are taken to be seen as a whole."""
    from lamina_kernels.attention import mass_launch

    whole = mass_launch.received_plan

    def received_plan(*arguments):
        made = whole(*arguments)
        partial = made.arguments["mask_partial"]
        return made._replace(arguments=made.arguments | {"mask_partial": partial * 0 - 1})

    patch.setattr(mass_launch, "received_plan", received_plan)
