"""Named faults of attention's face and of its form `reference`; faults of other forms stand beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.faults import fault


@fault
def attention_mask_forgets_its_bits(patch: pytest.MonkeyPatch) -> None:
    """Blocks that are seen in part are taken to be seen as a whole."""
    from lamina_kernels.attention.masks import BlockMask

    whole = BlockMask._pairs
    patch.setattr(BlockMask, "_pairs", lambda self, partial: whole(self, torch.full_like(partial, -1)))


@fault
def attention_mask_lists_keys_by_query(patch: pytest.MonkeyPatch) -> None:
    """The list by block of keys is in the order of the queries."""
    from lamina_kernels.attention import masking

    whole = masking._listed

    def listed(places: torch.Tensor, partial: torch.Tensor, shape: torch.Size, by: int) -> Any:
        starts, order = whole(places, partial, shape, by)
        return starts, torch.arange(len(places)) if by == 3 else order

    patch.setattr(masking, "_listed", listed)


def _arguments(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Make the face ask for another problem, whatever the form."""
    from dataclasses import replace

    from lamina_kernels.attention import arguments

    whole = arguments.build
    patch.setattr(arguments, "build", lambda *given, **named: replace(whole(*given, **named), **changes))


@fault
def attention_forgets_the_scale(patch: pytest.MonkeyPatch) -> None:
    """Products are the scores."""
    _arguments(patch, scale=1.0)


@fault
def attention_is_never_causal(patch: pytest.MonkeyPatch) -> None:
    """Later keys are seen."""
    _arguments(patch, causal=False)


@fault
def attention_starts_at_the_first_key(patch: pytest.MonkeyPatch) -> None:
    """Queries stand where `align="top-left"` has them."""
    _arguments(patch, bottom_right=False)


@fault
def attention_forgets_the_norms_of_keys(patch: pytest.MonkeyPatch) -> None:
    """Neither terms nor factors of keys count."""
    _arguments(patch, key_bias=None, key_scale=None)


@fault
def attention_forgets_the_norms_of_queries(patch: pytest.MonkeyPatch) -> None:
    """Neither terms nor factors of queries count."""
    _arguments(patch, query_bias=None, query_scale=None)


@fault
def attention_forgets_its_mask(patch: pytest.MonkeyPatch) -> None:
    """All blocks are seen."""
    _arguments(patch, mask=None)


@fault
def attention_packs_one_sequence(patch: pytest.MonkeyPatch) -> None:
    """Sequences see each other."""
    _arguments(patch, cu_seqlens_q=None, cu_seqlens_k=None)


@fault
def attention_caps_nothing(patch: pytest.MonkeyPatch) -> None:
    """Scores are as large as they are."""
    _arguments(patch, softcap=None)


@fault
def attention_windows_are_exclusive(patch: pytest.MonkeyPatch) -> None:
    """The last key of a window is not seen."""
    from lamina_kernels.attention import arguments

    whole = arguments._window
    patch.setattr(arguments, "_window", lambda op, window: tuple(max(x - 1, -1) for x in whole(op, window)))


@fault
def attention_biases_have_no_sign(patch: pytest.MonkeyPatch) -> None:
    """ALiBi rewards distance, and tables are read backwards."""
    from lamina_kernels.attention import reference

    whole = reference.distance_bias

    def wrong(p: Any, d: torch.Tensor) -> torch.Tensor | None:
        bias = whole(p, -d)
        return bias if bias is None or p.slopes is None else -bias

    patch.setattr(reference, "distance_bias", wrong)


@fault
def attention_heads_are_interleaved(patch: pytest.MonkeyPatch) -> None:
    """Query head h looks at key head h % (key heads)."""
    from lamina_kernels.attention import reference

    patch.setattr(reference, "_by_query_head", lambda x, p: x.repeat(1, p.q.shape[1] // x.shape[1], 1, 1))


def _sums(patch: pytest.MonkeyPatch, change: Any) -> None:
    """Change what the form `reference` leaves."""
    from lamina_kernels.attention import reference

    whole = reference.forward
    patch.setattr(reference, "forward", lambda p: change(whole(p), p))


@fault
def attention_entropy_is_in_bits(patch: pytest.MonkeyPatch) -> None:
    """Logs are those of 2."""
    _sums(patch, lambda s, p: s if s.entropy is None else s._replace(entropy=s.entropy * 1.442695))


@fault
def attention_weights_are_not_divided(patch: pytest.MonkeyPatch) -> None:
    """The output is the sum of exp(s - max) v."""
    _sums(
        patch,
        lambda s, p: s if s.lse is None else s._replace(out=s.out * (s.lse - s.max).exp()[..., None].nan_to_num()),
    )


@fault
def attention_largest_key_is_the_last_of_equals(patch: pytest.MonkeyPatch) -> None:
    """The largest score belongs to the last key that has it."""
    from lamina_kernels.attention import reference

    whole = reference._softmax

    def last(s: torch.Tensor, seen: torch.Tensor) -> Any:
        best, key, *rest = whole(s, seen)
        flipped = s.shape[-1] - 1 - (s == best[..., None]).int().flip(-1).argmax(-1)
        return best, torch.where(key < 0, key, flipped), *rest

    patch.setattr(reference, "_softmax", last)


@fault
def attention_entropy_cancels(patch: pytest.MonkeyPatch) -> None:
    """Entropy is the difference of two large numbers, lse - E[s]."""
    _sums(patch, lambda s, p: s if s.entropy is None else s._replace(entropy=s.lse - s.expected_score))


@fault
def attention_queries_without_keys_see_all(patch: pytest.MonkeyPatch) -> None:
    """A query that sees nothing spreads evenly, as a softmax of equal scores does."""
    _sums(
        patch,
        lambda s, p: s if s.lse is None else s._replace(out=torch.where((s.lse == -torch.inf)[..., None], 1, s.out)),
    )


@fault
def attention_topk_has_one_too_few(patch: pytest.MonkeyPatch) -> None:
    """The last of the largest is left out."""
    from lamina_kernels.attention import reference

    whole = reference._top

    def fewer(p: Any, s: torch.Tensor) -> Any:
        return {name: x.index_fill(-1, torch.tensor([p.topk - 1]), -1) for name, x in whole(p, s).items()}

    patch.setattr(reference, "_top", fewer)


@fault
def attention_sink_takes_nothing(patch: pytest.MonkeyPatch) -> None:
    """The sink counts in lse alone."""
    from lamina_kernels.attention import api

    whole = api.with_sink
    patch.setattr(api, "with_sink", lambda sums, sink: sums._replace(lse=whole(sums, sink).lse))


@fault
def attention_parts_do_not_mix(patch: pytest.MonkeyPatch) -> None:
    """The entropy of which part a key is in is forgotten."""
    from lamina_kernels.attention import states

    whole = states.merged

    def unmixed(parts: Any, shares: Any) -> Any:
        sums = whole(parts, shares)
        return sums if sums.entropy is None else sums._replace(entropy=shares.mean([p.entropy for p in parts]))

    from lamina_kernels.attention import merging

    patch.setattr(states, "merged", unmixed)
    patch.setattr(merging, "merged", unmixed)


@fault
def attention_parts_keep_their_numbers(patch: pytest.MonkeyPatch) -> None:
    """Keys of a later part are numbered from 0."""
    from lamina_kernels.attention import merging

    patch.setattr(merging, "_counted_on", lambda keys, first_keys: list(keys))


@fault
def attention_targets_see_what_is_masked(patch: pytest.MonkeyPatch) -> None:
    """A target has the weight that it would have if it were seen."""
    from lamina_kernels.attention import targets

    whole = targets._at
    patch.setattr(targets, "_at", lambda p, keys: (whole(p, keys)[0], torch.ones_like(whole(p, keys)[1])))


@fault
def attention_targets_forget_the_shift(patch: pytest.MonkeyPatch) -> None:
    """The query before the first key is at key -1, whatever the lengths."""
    from lamina_kernels.attention import targets

    whole = targets.places

    def unshifted(p: Any) -> Any:
        at = whole(p)
        return at._replace(queries=torch.arange(len(at.queries)))

    patch.setattr(targets, "places", unshifted)


@fault
def attention_received_counts_the_sink_out(patch: pytest.MonkeyPatch) -> None:
    """The second pass takes the lse of the keys alone, not of keys and sink."""
    from lamina_kernels.attention import reference

    whole = reference.mass
    patch.setattr(
        reference, "mass", lambda p, lse, wanted: whole(p, None if lse is None else reference.forward(p).lse, wanted)
    )


@fault
def attention_shares_are_at_least(patch: pytest.MonkeyPatch) -> None:
    """Weights that equal the share are counted."""
    from lamina_kernels.attention import reference

    whole = reference.mass
    patch.setattr(
        reference,
        "mass",
        lambda p, lse, wanted: whole(p, lse, wanted._replace(share=wanted.share and wanted.share * (1 - 1e-6) - 1e-9)),
    )


@fault
def attention_kl_is_the_other_way_round(patch: pytest.MonkeyPatch) -> None:
    """The divergence of the second from the first."""
    from lamina_kernels.attention import reference

    whole = reference.divergence
    patch.setattr(reference, "divergence", lambda first, second, kind: whole(second, first, kind))


@fault
def attention_js_forgets_the_half(patch: pytest.MonkeyPatch) -> None:
    """The sum of both divergences, not their mean."""
    from lamina_kernels.attention import reference

    whole = reference.divergence
    patch.setattr(reference, "divergence", lambda *given: whole(*given)._replace(value=2 * whole(*given).value))


@fault
def attention_looks_at_norms_without_gradients(patch: pytest.MonkeyPatch) -> None:
    """Keys have no gradient through their norms."""
    from lamina_kernels.attention import scores

    whole = scores.squares
    patch.setattr(scores, "squares", lambda rows, dtype: whole(rows.detach(), dtype))


@fault
def attention_ranks_keep_their_own_parts(patch: pytest.MonkeyPatch) -> None:
    """What the other ranks sent is taken for more of this rank's own keys."""

    def all_gather(received: list[torch.Tensor], sent: torch.Tensor, group: Any) -> None:
        for tensor in received:
            tensor.copy_(sent)

    patch.setattr(torch.distributed, "all_gather", all_gather)


@fault
def attention_ranks_pass_no_gradient(patch: pytest.MonkeyPatch) -> None:
    """A rank's own part comes back without its history, as those of the others do."""
    from lamina_kernels.attention import merging

    whole = merging._mapped
    patch.setattr(
        merging,
        "_mapped",
        lambda part, gathered, ranks: whole(part, lambda x: [one.detach() for one in gathered(x)], ranks),
    )


@fault
def attention_operator_says_the_wrong_dtype(patch: pytest.MonkeyPatch) -> None:
    """What torch is told of a result is not what comes."""
    from lamina_kernels.attention import op

    whole = op.empty_sums
    patch.setattr(op, "empty_sums", lambda p: (s := whole(p))._replace(argmax=s.max))


@fault
def attention_operator_changes_its_arguments(patch: pytest.MonkeyPatch) -> None:
    """Queries are scaled where they lie."""
    from lamina_kernels.attention import op

    whole = op.form

    def form(name: str) -> Any:
        made = whole(name)

        def forward(p: Any) -> Any:
            sums = made.forward(p)
            p.q.detach().mul_(2)
            return sums

        return made._replace(forward=forward)

    patch.setattr(op, "form", form)
