"""Named faults of the forward pass of attention in Triton."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.faults import fault


def _launch(patch: pytest.MonkeyPatch, plan: str = "forward_plan", **changes: Any) -> None:
    """Replace arguments and constants of a launch."""
    from lamina_kernels.attention import launch

    whole = getattr(launch, plan)
    patch.setattr(launch, plan, lambda *a: (p := whole(*a))._replace(arguments=p.arguments | changes))


def _instead(patch: pytest.MonkeyPatch, module: str, name: str, wrong: str) -> None:
    """Put a function of `attention_wrong` into the place of one of the kernels."""
    from tests.kernels import attention_wrong

    patch.setattr(f"lamina_kernels.attention.{module}.{name}", getattr(attention_wrong, wrong))


@fault
def attention_kernel_forgets_to_rescale(patch: pytest.MonkeyPatch) -> None:
    """Sums stay as they are where a larger score comes."""
    _instead(patch, "forward", "fall", "stay")


@fault
def attention_kernel_rounds_what_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    """The score of what is not seen is no power of 2."""
    import triton.language as tl

    from lamina_kernels.attention import forward

    patch.setattr(forward, "UNSEEN", tl.constexpr(-1e30))


@fault
def attention_kernel_masks_the_end_alone(patch: pytest.MonkeyPatch) -> None:
    """Tiles at the edge of a window are seen whole."""
    _instead(patch, "walk", "seen", "inside")


@fault
def attention_kernel_takes_edges_for_full(patch: pytest.MonkeyPatch) -> None:
    """All tiles are seen whole."""
    _instead(patch, "walk", "key_range", "whole")


@fault
def attention_kernel_takes_whole_blocks_for_full(patch: pytest.MonkeyPatch) -> None:
    """Blocks that a mask shows whole are seen whole, whatever the window."""
    _instead(patch, "walk", "listed", "all_whole")


@fault
def attention_kernel_visits_all_that_is_listed(patch: pytest.MonkeyPatch) -> None:
    """Blocks of a mask are visited also outside of a window, and none is a full one."""
    _instead(patch, "walk", "listed", "none_whole")


@fault
def attention_kernel_is_one_sided(patch: pytest.MonkeyPatch) -> None:
    """Keys ahead of their query count as if they were behind."""
    _launch(patch, ONE_SIDED=True)


@fault
def attention_kernel_stands_top_left(patch: pytest.MonkeyPatch) -> None:
    """The first query stands at the first key, whatever was asked."""
    _launch(patch, BOTTOM_RIGHT=False)


@fault
def attention_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its rows are whatever the memory held."""
    from lamina_kernels.attention import launch

    whole = launch.forward_plan
    patch.setattr(launch, "forward_plan", lambda *a: (p := whole(*a))._replace(grid=(p.grid[0] - 1,)))


@fault
def attention_kernel_shares_a_key_head(patch: pytest.MonkeyPatch) -> None:
    """All query heads look at the first key head."""
    _launch(patch, group=1000)


@fault
def attention_entropy_is_a_difference(patch: pytest.MonkeyPatch) -> None:
    """The entropy is lse - E[s], of two large numbers."""
    from lamina_kernels.attention import launch

    whole = launch._sums

    def sums(*arguments: Any) -> Any:
        made: Any = whole(*arguments)
        return made._replace(entropy=made.lse - made.expected_score)

    patch.setattr(launch, "_sums", sums)


@fault
def attention_parts_weigh_alike(patch: pytest.MonkeyPatch) -> None:
    """Parts of the keys are averaged, whatever their sums of exponentials."""
    from lamina_kernels.attention import parts

    whole = parts.shares_of

    def alike(lses: Any) -> Any:
        shares = whole(lses)
        return shares._replace(weights=torch.full_like(shares.weights, 1 / len(lses)))

    patch.setattr(parts, "shares_of", alike)


@fault
def attention_top_sees_everything(patch: pytest.MonkeyPatch) -> None:
    """The largest scores are searched outside of the window, too."""
    _launch(patch, "top_plan", LEFT=False)


@fault
def attention_triton_gives_way(patch: pytest.MonkeyPatch) -> None:
    """Where Triton was asked for, another form runs under its name."""
    from lamina_kernels.attention import launch, reference

    patch.setattr(launch, "forward", reference.forward)
