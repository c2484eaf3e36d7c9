"""Faults of attention: its statistics, and the blocked and compiled forms."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


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
