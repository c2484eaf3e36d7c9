"""Named faults of the Triton kernels of sums over pairs of rows; each changes what a launch is given, or a constant."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.faults import fault


def _arguments(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Replace arguments and constants of every launch."""
    from lamina_kernels.gram.sums import launch

    whole = launch.planned
    patch.setattr(launch, "planned", lambda programs, arguments, tiles: whole(programs, arguments | changes, tiles))


@fault
def gram_kernel_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Each row is paired with itself."""
    _arguments(patch, APART=False)


@fault
def gram_kernel_ignores_groups(patch: pytest.MonkeyPatch) -> None:
    """Rows of a group are paired."""
    _arguments(patch, x_groups=None, y_groups=None)


@fault
def gram_kernel_takes_rows_for_others(patch: pytest.MonkeyPatch) -> None:
    """A row and itself are as far apart as rounding makes them."""
    _arguments(patch, SAME=False)


@fault
def gram_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its results are whatever the memory held."""
    from lamina_kernels.gram.sums import launch

    whole = launch.planned
    patch.setattr(launch, "planned", lambda programs, arguments, tiles: whole(programs - 1, arguments, tiles))


@fault
def gram_kernel_reads_one_chunk(patch: pytest.MonkeyPatch) -> None:
    """Only the first columns of the rows are read."""
    from lamina_kernels.gram import operands

    patch.setattr(operands, "_cut", lambda *arguments: "16:whole")


@fault
def gram_kernel_takes_all_chunks_for_whole(patch: pytest.MonkeyPatch) -> None:
    """Rows are read to the end of the last turn, whatever their width."""
    from lamina_kernels.gram import operands

    patch.setattr(operands, "turn_of", lambda width, chunk, together: together)


@fault
def gram_kernel_forgets_a_part_of_y(patch: pytest.MonkeyPatch) -> None:
    """Of the parts of y, the sums over the first alone are returned."""
    from lamina_kernels.gram.sums import launch

    whole = launch.run

    def run(kernel: Any, planned: Any, like: Any) -> None:
        whole(kernel, planned, like)
        planned.arguments["out"][1:] = 0

    patch.setattr(launch, "run", run)


@fault
def gram_kernel_moves_no_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows stay where they are, however far from zero."""
    from lamina_kernels.gram import base

    patch.setattr(base, "moved", lambda x, y: (x, y))


@fault
def gram_kernels_count_in_32_bits(patch: pytest.MonkeyPatch) -> None:
    """Addresses overflow behind two billion numbers, whoever computes them."""
    import sys

    import triton.language as tl

    for name, module in list(sys.modules.items()):
        if name.startswith("lamina_kernels.") and hasattr(module, "INDEX"):
            patch.setattr(module, "INDEX", tl.constexpr(tl.int32))


@fault
def gram_kernel_hides_missing_norms(patch: pytest.MonkeyPatch) -> None:
    """Squared norms that overflow are taken to be the largest number."""
    from lamina_kernels.gram import base

    whole = base._norms
    patch.setattr(base, "_norms", lambda rows: whole(rows).clamp(max=3e38))


@fault
def gram_kernel_rounds_to_eight_bits(patch: pytest.MonkeyPatch) -> None:
    """Rows that are multiplied in TF32 are rounded to bfloat16 before."""
    import torch

    from lamina_kernels.gram import base

    patch.setattr(base, "round_to_tf32", lambda rows: rows.to(torch.bfloat16).float())


@fault
def gram_kernel_forgets_the_units(patch: pytest.MonkeyPatch) -> None:
    """Products of rows in float16 are taken for those of the rows that these were made of."""
    from lamina_kernels.gram import tile

    patch.setattr(tile, "weighted", lambda weight, base, at: weight)


@fault
def gram_kernel_scales_rows_together(patch: pytest.MonkeyPatch) -> None:
    """All rows of x are brought into the reach of float16 as the largest of them is."""
    from lamina_kernels.gram import base

    whole = base.scaled_to_half

    def scaled(x: Any, width: int, *, together: bool, parts: int = 1) -> Any:
        made, unit = whole(x, width, together=True, parts=parts)
        return made, unit if together else unit.expand(len(x)).contiguous()

    patch.setattr(base, "scaled_to_half", scaled)


@fault
def gram_kernel_scales_no_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows become float16 as they are."""
    from lamina_kernels.tiles import rounding

    patch.setattr(rounding, "_power_of_two", lambda exponents: 1.0 + 0.0 * exponents)


@fault
def gram_kernel_rounds_values(patch: pytest.MonkeyPatch) -> None:
    """Rows of v are rounded to TF32, whatever multiplies them."""
    from lamina_kernels.gram.sums import launch

    whole = launch._values

    def values(*given: Any, **options: Any) -> dict[str, Any]:
        made = whole(*given, **options)
        return made | {"v": launch.round_to_tf32(made["v"])}

    patch.setattr(launch, "_values", values)


@fault
def gram_kernel_forgets_a_part(patch: pytest.MonkeyPatch) -> None:
    """Of the parts of float32 rows, the last is left out."""
    from lamina_kernels.gram import base

    whole, halves = base.parts_of, base.scaled_to_half

    def parts_of(x: Any, parts: int, width: int) -> Any:
        made = whole(x, parts, width)
        made[:, (parts - 1) * width :] = 0
        return made

    def scaled_to_half(x: Any, width: int, *, together: bool, parts: int = 1) -> Any:
        made, unit = halves(x, width, together=together, parts=parts)
        made[:, max(1, parts - 1) * width :] = 0
        return made, unit

    patch.setattr(base, "parts_of", parts_of)
    patch.setattr(base, "scaled_to_half", scaled_to_half)


@fault
def gram_kernel_multiplies_first_parts_alone(patch: pytest.MonkeyPatch) -> None:
    """Float32 rows that were taken apart are multiplied as bfloat16."""
    from lamina_kernels.tiles import dot

    patch.setattr(dot, "taken_apart", lambda dtype, precision: False)


@fault
def gram_kernel_cuts_digits_off(patch: pytest.MonkeyPatch) -> None:
    """Parts of float32 rows are rounded towards zero."""
    import torch

    from lamina_kernels.tiles import rounding

    def cut(rows: torch.Tensor) -> torch.Tensor:
        return (rows.contiguous().view(torch.int32) & -0x10000).view(torch.float32)

    whole = torch.Tensor.copy_
    patch.setattr(torch.Tensor, "copy_", lambda into, rows: whole(into, cut(rows)))
    assert rounding.parts_of(torch.tensor([[1 + 3 * 2.0**-9]]), 2, 1)[0, 0] == 1


@fault
def gram_kernel_trusts_lost_digits(patch: pytest.MonkeyPatch) -> None:
    """Distances are roots of what is left of the norms, however little that is."""
    import triton.language as tl

    from lamina_kernels.gram import tile

    patch.setattr(tile, "LOST", tl.constexpr(-1.0))


@fault
def gram_kernel_hides_broken_rows(patch: pytest.MonkeyPatch) -> None:
    """The larger of a squared distance and 0 drops NaN: a broken row is near all others."""
    import triton.language as tl

    from lamina_kernels.gram import tile

    patch.setattr(tile, "KEEP_NAN", tl.constexpr(tl.PropagateNan.NONE))


@fault
def gram_kernel_loses_what_rounding_loses(patch: pytest.MonkeyPatch) -> None:
    """Sums over tiles are kept in one number."""
    from lamina_kernels.gram.sums import forward

    patch.setattr(forward, "added", lambda total, lost, x: (total + x, lost))


@fault
def gram_kernel_forgets_the_softmax(patch: pytest.MonkeyPatch) -> None:
    """Gradients through a softmax are taken for those through sums."""
    _arguments(patch, WEIGHTED=False)


@fault
def gram_kernel_takes_another_slope(patch: pytest.MonkeyPatch) -> None:
    """The derivative of every function is taken to be its value."""
    from lamina_kernels.gram.sums import backward

    patch.setattr(backward, "slope", lambda u, k, a, name, degree: k)


@fault
def gram_kernel_divides_by_every_weight(patch: pytest.MonkeyPatch) -> None:
    """What the weight of a product has is taken from its argument, also where the weight is 0."""
    import triton.language as tl

    from lamina_kernels.gram.sums import backward

    patch.setattr(backward, "by_weight", lambda h, u, tile, weight, leaf: tl.sum(h * u, 1) / weight)


@fault
def gram_kernel_forgets_the_other_factor(patch: pytest.MonkeyPatch) -> None:
    """The gradient of a product of kernels is that of a sum."""
    from lamina_kernels.gram.sums import backward

    patch.setattr(backward, "down", lambda g, *rest: g)


@fault
def gram_kernel_counts_one_part_of_the_parameters(patch: pytest.MonkeyPatch) -> None:
    """Of what programs add to the gradients of the parameters, that of the first alone is taken."""
    from lamina_kernels.gram.sums import backward_launch

    whole = backward_launch.run

    def run(kernel: Any, launch: Any, like: Any) -> None:
        whole(kernel, launch, like)
        if launch.arguments.get("by_leaf") is not None:
            launch.arguments["by_leaf"][..., 1:] = 0

    patch.setattr(backward_launch, "run", run)


@fault
def gram_kernel_counts_pairs_twice(patch: pytest.MonkeyPatch) -> None:
    """Where one walk stands for both sides, the parameters have the gradients of both."""
    from lamina_kernels.gram.sums import backward_launch

    whole = backward_launch._of_rows

    def of_rows(*given: Any, **options: Any) -> Any:
        found, of_leaves = whole(*given, **options)
        return found, None if of_leaves is None else 2 * of_leaves

    patch.setattr(backward_launch, "_of_rows", of_rows)


@fault
def gram_kernel_forgets_the_parameters_of_others(patch: pytest.MonkeyPatch) -> None:
    """Parameters alone: those of the first base have gradients."""
    from lamina_kernels.gram.sums import backward_parameters

    whole = backward_parameters.by_products

    def by_products(of_k: Any, of_parameters: Any, *rest: Any) -> Any:
        return whole(of_k, of_parameters, *rest[:-2], 0, rest[-1])

    patch.setattr(backward_parameters, "by_products", by_products)


@fault
def gram_kernel_pulls_the_first_columns(patch: pytest.MonkeyPatch) -> None:
    """Of wide rows, all columns get the gradients of the first."""
    from lamina_kernels.gram.sums import backward_wide

    whole = backward_wide.rows_to_pull
    first = lambda base, columns, valid, start, width: whole(base, columns, valid, 0, width)  # noqa: E731
    patch.setattr(backward_wide, "rows_to_pull", first)


@fault
def gram_kernel_forgets_the_sign(patch: pytest.MonkeyPatch) -> None:
    """Gradients of distances by differences all point upwards."""
    from lamina_kernels.gram.sums import backward_norm

    patch.setattr(backward_norm, "sign", lambda x: 0.0 * x + 1.0)


@fault
def gram_kernel_forgets_the_norms(patch: pytest.MonkeyPatch) -> None:
    """All rows are taken to have the norm 1."""
    from lamina_kernels.gram import base

    patch.setattr(base, "_norms", lambda rows: rows.new_ones(len(rows)).float())


@fault
def sides_forget_what_columns_had(patch: pytest.MonkeyPatch) -> None:
    """Of the parts of the rows, the sums of columns over the first alone are returned."""
    from lamina_kernels.gram.sums import launch

    whole = launch.run

    def run(kernel: Any, planned: Any, like: Any) -> None:
        whole(kernel, planned, like)
        planned.arguments["masses"][1:] = 0

    patch.setattr(launch, "run", run)


@fault
def sides_skip_a_part_of_the_columns(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs, and nobody sums what it would have."""
    from lamina_kernels.gram.sums import launch

    whole = launch.sides_plan
    patch.setattr(
        launch, "sides_plan", lambda *given: (made := whole(*given))._replace(grid=(made.grid[0] - 1, *made.grid[1:]))
    )


@fault
def cosines_pull_along_their_rows(patch: pytest.MonkeyPatch) -> None:
    """Gradients of unit vectors are taken for those of rows."""
    from lamina_kernels.gram.sums import backward_launch

    patch.setattr(backward_launch, "across", lambda rows, g: g)


@fault
def cosines_forget_the_lengths(patch: pytest.MonkeyPatch) -> None:
    """Products of rows are taken for those of their unit vectors."""
    from lamina_kernels.gram import base

    patch.setattr(base, "_inverse_lengths", lambda rows: torch.ones(len(rows)))


@fault
def unit_vectors_are_rounded(patch: pytest.MonkeyPatch) -> None:
    """Logits are those of unit vectors in the dtype of the rows."""
    from lamina_kernels.gram import contrastive
    from lamina_kernels.gram.kernels import unit

    patch.setattr(contrastive, "levelled", lambda rows: unit(rows).to(rows.dtype))


@fault
def rows_stay_as_large_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """Squares of lengths may be no numbers."""
    from lamina_kernels.gram import contrastive

    patch.setattr(contrastive, "levelled", lambda rows: rows)
