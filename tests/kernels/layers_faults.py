"""Named faults of the Triton kernel of sums for any two of many kernels."""

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
