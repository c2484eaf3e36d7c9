"""Named faults of the Triton kernels of sums for any two of many kernels, and of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import fault


def _launched(patch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Replace the launch."""
    from lamina_kernels.gram.dependence import launch

    whole = launch.plan
    patch.setattr(launch, "plan", lambda *given: (change((made := whole(*given))[0]), made[1]))


def _arguments(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    _launched(patch, lambda made: made._replace(arguments=made.arguments | changes))


@fault
def layers_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs."""
    _launched(patch, lambda made: made._replace(grid=(made.grid[0] - 1,)))


@fault
def layers_kernel_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Pairs of a row with itself count."""
    _arguments(patch, DIAGONAL=True)


@fault
def layers_kernel_takes_groups_for_equal(patch: pytest.MonkeyPatch) -> None:
    """Pairs count alike, whatever the sizes of their groups."""
    _arguments(patch, of_rows=None)


@fault
def layers_kernel_reads_one_layer(patch: pytest.MonkeyPatch) -> None:
    """Each layer of a kind is taken to be the first."""

    def change(made: Any) -> Any:
        kinds = tuple(k._replace(spans=k.spans[:1].expand_as(k.spans).contiguous()) for k in made.arguments["kinds"])
        return made._replace(arguments=made.arguments | {"kinds": kinds})

    _launched(patch, change)


@fault
def layers_kernel_forgets_the_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Rows of a block have no sums with the rows of blocks before."""
    from lamina_kernels.gram.dependence import launch

    whole = launch.run

    def run(kernel: Any, planned: Any, like: Any) -> None:
        whole(kernel, planned, like)
        planned.arguments["sums"][-1] = 0

    patch.setattr(launch, "run", run)


@fault
def layers_kernel_centers_nothing(patch: pytest.MonkeyPatch) -> None:
    """Kernel values are multiplied as they are."""
    from lamina_kernels.gram.dependence import blocked

    whole = blocked.centers
    patch.setattr(blocked, "centers", lambda *given: 0 * whole(*given))


@fault
def layers_kernel_orders_layers_anew(patch: pytest.MonkeyPatch) -> None:
    """Layers stay in the order of their kinds."""
    from lamina_kernels.gram.dependence import launch

    whole = launch.plan
    patch.setattr(launch, "plan", lambda *given: (whole(*given)[0], sorted(whole(*given)[1])))


def _gradients(patch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace arguments of the launch of gradients."""
    from lamina_kernels.gram.dependence import backward_launch

    whole = backward_launch.plan

    def plan(*given: Any) -> Any:
        made, packed = whole(*given)
        return made._replace(arguments=made.arguments | change(made.arguments)), packed

    patch.setattr(backward_launch, "plan", plan)


def _after(patch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change what the kernel of gradients has written, kind by kind."""
    from lamina_kernels.gram.dependence import backward_launch

    whole = backward_launch.run

    def run(kernel: Any, planned: Any, like: Any) -> None:
        whole(kernel, planned, like)
        for made in planned.arguments["made"]:
            change(made)

    patch.setattr(backward_launch, "run", run)


@fault
def layers_gradients_skip_an_item(patch: pytest.MonkeyPatch) -> None:
    """The last block of rows, or part of the columns, is nobody's."""
    _gradients(patch, lambda arguments: {"items": arguments["items"] - 1})


@fault
def layers_gradients_keep_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Pairs of a row with itself have gradients."""
    _gradients(patch, lambda arguments: {"DIAGONAL": True})


@fault
def layers_gradients_forget_row_sums(patch: pytest.MonkeyPatch) -> None:
    """Row sums are taken for constants."""
    _gradients(patch, lambda arguments: {"by_rows": 0 * arguments["by_rows"]})


@fault
def layers_gradients_forget_triples(patch: pytest.MonkeyPatch) -> None:
    """Sums of a row over groups are taken for constants."""
    _gradients(patch, lambda arguments: {"triples": 0 * arguments["triples"]})


@fault
def layers_gradients_forget_cells(patch: pytest.MonkeyPatch) -> None:
    """Sums of two groups are taken for constants."""
    _gradients(patch, lambda arguments: {"cells": 0 * arguments["cells"]})


@fault
def layers_gradients_take_groups_for_equal(patch: pytest.MonkeyPatch) -> None:
    """Pairs count alike, whatever the sizes of their groups."""
    _gradients(patch, lambda arguments: {"of_rows": None})


@fault
def layers_gradients_center_nothing(patch: pytest.MonkeyPatch) -> None:
    """Gradients are made of kernel values as they are."""
    _gradients(patch, lambda arguments: {"centers": 0 * arguments["centers"]})


@fault
def layers_gradients_mix_other_layers(patch: pytest.MonkeyPatch) -> None:
    """A layer's gradient is made of others' values than its own."""
    _gradients(patch, lambda arguments: {"pairs": arguments["pairs"].roll(1, 0)})


@fault
def layers_gradients_take_the_first_part(patch: pytest.MonkeyPatch) -> None:
    """Of the parts of the columns, the first alone counts."""

    def change(made: Any) -> None:
        for part in made.rows:
            part[1:] = 0

    _after(patch, change)


@fault
def layers_gradients_count_pairs_twice(patch: pytest.MonkeyPatch) -> None:
    """Hyperparameters have the gradient of each pair and of its mirror image."""

    def change(made: Any) -> None:
        made.parameters.mul_(2)

    _after(patch, change)
