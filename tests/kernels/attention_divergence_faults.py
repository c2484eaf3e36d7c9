"""Named faults of the divergence of two attentions in Triton, and of keys that one of two models hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.faults import fault


def _launch(patch: pytest.MonkeyPatch, plan: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace arguments of a launch by others, which `change` returns."""
    from lamina_kernels.attention import divergence_launch

    whole = getattr(divergence_launch, plan)
    patch.setattr(
        divergence_launch, plan, lambda *a: (p := whole(*a))._replace(arguments=p.arguments | change(p.arguments))
    )


def _skip(patch: pytest.MonkeyPatch, plan: str) -> None:
    from lamina_kernels.attention import divergence_launch

    whole = getattr(divergence_launch, plan)
    patch.setattr(divergence_launch, plan, lambda *a: (p := whole(*a))._replace(grid=(p.grid[0] - 1,)))


@fault
def attention_divergence_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its rows are whatever the memory held."""
    _skip(patch, "forward_plan")


@fault
def attention_divergence_skips_queries(patch: pytest.MonkeyPatch) -> None:
    """The last queries get no gradient."""
    _skip(patch, "queries_plan")


@fault
def attention_divergence_skips_keys(patch: pytest.MonkeyPatch) -> None:
    """The last keys get no gradient."""
    _skip(patch, "keys_plan")


@fault
def attention_divergence_forgets_to_rescale(patch: pytest.MonkeyPatch) -> None:
    """Sums stay as they are where a larger score comes."""
    from lamina_kernels.attention import divergence_forward
    from tests.kernels import attention_wrong

    patch.setattr(divergence_forward, "fall", attention_wrong.stay)


@fault
def attention_divergence_sees_the_past(patch: pytest.MonkeyPatch) -> None:
    """Windows do not end on the left."""
    for plan in ("forward_plan", "queries_plan"):
        _launch(patch, plan, lambda given: {"LEFT": False})


@fault
def attention_divergence_drops_the_mask_for_keys(patch: pytest.MonkeyPatch) -> None:
    """The gradients of keys take blocks that are seen in part to be seen whole."""
    _launch(patch, "keys_plan", lambda given: {"mask_partial": given["mask_partial"] * 0 - 1})


@fault
def attention_divergence_shares_keys_alike(patch: pytest.MonkeyPatch) -> None:
    """The second model is taken to share its keys as the first does."""
    _launch(patch, "forward_plan", lambda given: {"other": given["other"]._replace(group=given["model"].group)})


@fault
def attention_divergence_takes_one_head_of_a_group(patch: pytest.MonkeyPatch) -> None:
    """The gradients of a key count the first of the heads that share it, again and again."""
    _launch(patch, "keys_plan", lambda given: {"model": given["model"]._replace(q_head=0)})


@fault
def attention_divergence_swaps_the_models(patch: pytest.MonkeyPatch) -> None:
    """The gradients of the first model are those of the second, and the other way round."""
    for plan in ("queries_plan", "keys_plan"):
        _launch(patch, plan, lambda given: {"FIRST": not given["FIRST"]})


@fault
def attention_divergence_forgets_the_slope_of_the_cap(patch: pytest.MonkeyPatch) -> None:
    """The gradients' kernels take scores for capped at a number that none reaches."""

    def flat(model: Any) -> Any:
        scale = None if model.query_scale is None else model.query_scale / 1e3
        return model._replace(scale=model.scale / 1e3, query_scale=scale, cap=model.cap * 1e3)

    for plan in ("queries_plan", "keys_plan"):
        _launch(patch, plan, lambda given: {"model": flat(given["model"])})


def _planes(patch: pytest.MonkeyPatch, number: int, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change one of the numbers that gradients know of a query."""
    from lamina_kernels.attention import divergence_launch

    whole = divergence_launch.planes

    def planes(*given: Any) -> torch.Tensor:
        made = whole(*given)
        made[number] = change(made[number])
        return made

    patch.setattr(divergence_launch, "planes", planes)


@fault
def attention_divergence_forgets_the_mean(patch: pytest.MonkeyPatch) -> None:
    """Gradients of scores do not cancel in a query."""
    _planes(patch, 3, torch.zeros_like)


@fault
def attention_divergence_swaps_a_sign(patch: pytest.MonkeyPatch) -> None:
    """Derivatives by weights have the other sign."""
    _planes(patch, 2, torch.neg)


@fault
def attention_divergence_in_bits(patch: pytest.MonkeyPatch) -> None:
    """Derivatives by weights are those of logarithms of base 2."""
    from lamina_kernels.attention import divergence_launch

    patch.setattr(divergence_launch, "LN2", 1.0)


@fault
def attention_divergence_of_rounding(patch: pytest.MonkeyPatch) -> None:
    """Weights that differ by rounding count as different."""
    import triton.language as tl

    from lamina_kernels.attention import divergence_backward

    patch.setattr(divergence_backward, "NEAR", tl.constexpr(0.0))


@fault
def attention_divergence_interpolates(patch: pytest.MonkeyPatch) -> None:
    """A logarithm is taken for a straight line."""
    from lamina_kernels.attention import divergence_forward
    from tests.kernels import attention_wrong

    patch.setattr(divergence_forward, "above_middle", attention_wrong.straight)


@fault
def attention_divergence_knows_what_was(patch: pytest.MonkeyPatch) -> None:
    """A log-sum-exp that is known is that of an earlier checkpoint."""
    from lamina_kernels.attention import diverging

    def stale(lse: Any, *rest: Any, whole: Any = diverging._known) -> Any:
        known = whole(lse, *rest)
        return None if known is None else (known[0], known[1] + 0.01)

    patch.setattr(diverging, "_known", stale)


@fault
def attention_divergence_takes_what_it_knows_for_constants(patch: pytest.MonkeyPatch) -> None:
    """Gradients do not go through log-sum-exps, whose part in them the means are."""
    from lamina_kernels.attention import blocked_divergence, divergence_launch

    for module in (blocked_divergence, divergence_launch):
        whole = module.divergence_backward

        def constant(p: Any, r: Any, kind: str, found: Any, *rest: Any, whole: Any = whole) -> Any:
            return whole(p, r, kind, found._replace(mean=found.mean * 0, other_mean=found.other_mean * 0), *rest)

        patch.setattr(module, "divergence_backward", constant)


@fault
def attention_divergence_has_infinite_gradients(patch: pytest.MonkeyPatch) -> None:
    """What is infinite is differentiated."""
    from lamina_kernels.attention import blocked_divergence, divergence_launch

    for module, name in ((blocked_divergence, "divergence_backward"), (divergence_launch, "planes")):
        whole = getattr(module, name)

        def differentiated(*given: Any, whole: Any = whole) -> Any:
            # A value that is not infinite looks as if there were nothing to leave out.
            at = next(n for n, x in enumerate(given) if hasattr(x, "other_lse"))
            found = given[at]._replace(value=given[at].value.nan_to_num(posinf=1.0))
            return whole(*given[:at], found, *given[at + 1 :])

        patch.setattr(module, name, differentiated)


@fault
def attention_divergence_hides_by_the_first(patch: pytest.MonkeyPatch) -> None:
    """What the first model hides is hidden in the second, and nothing else."""
    from lamina_kernels.attention import blocked_divergence, divergence_launch, reference

    for module, name in (
        (reference, "divergence"),
        (blocked_divergence, "divergence"),
        (divergence_launch, "divergence"),
    ):
        whole = getattr(module, name)
        patch.setattr(module, name, lambda p, r, *rest, whole=whole: whole(p, replace(r, key_bias=p.key_bias), *rest))
