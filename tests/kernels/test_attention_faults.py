"""Each check fails under a fault."""

from __future__ import annotations

import pytest

from tests.kernels import attention_checks as checks
from tests.kernels.attention_forms import FORMS

TRUTH = checks.agrees_with_the_truth

NOTICED = [
    ("attention_forgets_the_scale", checks.output_is_that_of_torch, ()),
    ("attention_is_never_causal", checks.equal_scores_are_uniform, ()),
    ("attention_is_never_causal", checks.entropy_is_between_nothing_and_log_n, ()),
    ("attention_starts_at_the_first_key", TRUTH, ("more keys",)),
    ("attention_starts_at_the_first_key", checks.one_key_takes_everything, ()),
    ("attention_forgets_the_norms_of_keys", TRUTH, ("distance",)),
    ("attention_forgets_the_norms_of_keys", TRUTH, ("cosine",)),
    ("attention_forgets_the_norms_of_keys", checks.keys_of_minus_infinity_are_not_there, ()),
    ("attention_forgets_the_norms_of_queries", TRUTH, ("cosine by head",)),
    ("attention_forgets_the_norms_of_queries", TRUTH, ("distance by head",)),
    ("attention_forgets_the_norms_of_queries", TRUTH, ("sigmoid by head",)),
    ("attention_forgets_its_mask", TRUTH, ("mask",)),
    ("attention_packs_one_sequence", TRUTH, ("packed",)),
    ("attention_packs_one_sequence", checks.nothing_to_attend_to, ()),
    ("attention_caps_nothing", TRUTH, ("softcap",)),
    ("attention_windows_are_exclusive", TRUTH, ("window",)),
    ("attention_windows_are_exclusive", TRUTH, ("left window",)),
    ("attention_biases_have_no_sign", TRUTH, ("alibi",)),
    ("attention_biases_have_no_sign", TRUTH, ("relative",)),
    ("attention_heads_are_interleaved", checks.output_is_that_of_torch, ()),
    ("attention_entropy_is_in_bits", checks.entropy_is_between_nothing_and_log_n, ()),
    ("attention_weights_are_not_divided", checks.weights_sum_to_one, ()),
    ("attention_largest_key_is_the_last_of_equals", checks.equal_scores_are_uniform, ()),
    ("attention_entropy_cancels", checks.large_scores_keep_their_entropy, ()),
    ("attention_queries_without_keys_see_all", checks.queries_that_see_nothing_are_zero, ()),
    ("attention_topk_has_one_too_few", TRUTH, ("plain",)),
    ("attention_sink_takes_nothing", checks.a_sink_is_a_key_without_a_value, ()),
    ("attention_parts_do_not_mix", checks.parts_merge_to_the_whole, ()),
    ("attention_parts_keep_their_numbers", checks.parts_merge_to_the_whole, ()),
    ("attention_targets_see_what_is_masked", TRUTH, ("window",)),
    ("attention_targets_forget_the_shift", TRUTH, ("more keys",)),
    ("attention_received_counts_the_sink_out", checks.a_sink_is_a_key_without_a_value, ()),
    ("attention_shares_are_at_least", checks.a_share_is_exceeded, ()),
]


@pytest.mark.parametrize(("name", "check", "arguments"), NOTICED, ids=lambda x: getattr(x, "__name__", None))
def test_a_fault_is_noticed(name, check, arguments):
    with pytest.raises(AssertionError):
        FORMS["reference"].run(check, *arguments, fault=name)
