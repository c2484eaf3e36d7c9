from __future__ import annotations

import numpy as np
import pytest
import torch

from lamina.recording.sampling import sampled
from tests.faults import broken

EXAMPLES = np.arange(400)
POSITIONS = np.tile(np.arange(50), (400, 1))


def test_the_fraction_is_kept():
    # A binomial of 20,000 draws: 5 standard deviations are 0.011.
    for seed in range(5):
        assert abs(sampled(EXAMPLES, POSITIONS, fraction=0.1, seed=seed).mean() - 0.1) < 0.011


def check_that_rows_are_kept_for_what_they_are():
    order = np.random.default_rng(0).permutation(400)
    all_of_them = sampled(EXAMPLES, POSITIONS, fraction=0.3, seed=1)
    assert np.array_equal(sampled(EXAMPLES[order], POSITIONS, fraction=0.3, seed=1), all_of_them[order])
    assert np.array_equal(sampled(EXAMPLES[7:9], POSITIONS[7:9, 20:], fraction=0.3, seed=1), all_of_them[7:9, 20:])


def test_rows_are_kept_for_what_they_are():
    check_that_rows_are_kept_for_what_they_are()


def test_a_sample_by_place_is_found_out():
    with broken("sampling_depends_on_the_place_in_the_batch"), pytest.raises(AssertionError):
        check_that_rows_are_kept_for_what_they_are()


def test_a_smaller_sample_is_a_part_of_a_larger_one():
    small, large = (sampled(EXAMPLES, POSITIONS, fraction=fraction, seed=3) for fraction in (0.05, 0.4))
    assert small.any()
    assert not (small & ~large).any()


def test_seeds_examples_and_positions_are_independent():
    one, other = (sampled(EXAMPLES, POSITIONS, fraction=0.5, seed=seed) for seed in (0, 1))
    for a, b in ((one, other), (one[:-1], one[1:]), (one[:, :-1], one[:, 1:])):
        # The correlation of some 20,000 fair coins: 5 standard deviations are 0.036.
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.036


def test_lists_tensors_and_arrays_are_alike_and_texts_work():
    kept = sampled(EXAMPLES, None, fraction=0.5, seed=0)
    for same in (EXAMPLES.tolist(), torch.tensor(EXAMPLES), EXAMPLES.astype(np.int32)):
        assert np.array_equal(sampled(same, None, fraction=0.5, seed=0), kept)
    texts = [f"document {number}" for number in range(400)]
    assert abs(sampled(texts, None, fraction=0.5, seed=0).mean() - 0.5) < 0.125
    assert np.array_equal(
        sampled(np.array(texts), None, fraction=0.5, seed=0), sampled(texts, None, fraction=0.5, seed=0)
    )


def test_all_and_values_that_every_machine_must_give():
    assert sampled(EXAMPLES, None, fraction=1, seed=0).all()
    assert np.flatnonzero(sampled(range(40), None, fraction=0.1, seed=0)).tolist() == [
        # Computed by hand from the definition, with Python's integers.
        example
        for example in range(40)
        if mixed(mixed(mixed(0) ^ example) ^ BITS) >> 11 < round(0.1 * 2**53)
    ]


BITS = 2**64 - 1


def mixed(key: int) -> int:
    key = (key + 0x9E3779B97F4A7C15) & BITS
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & BITS
    return key ^ (key >> 31)
