"""Options of a site on real tensors, through a collector and to what the writer gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording import Site
from lamina.recording.appends import appends
from lamina.recording.captured import Collector
from lamina.recording.sampling import sampled
from tests.faults import broken

X = torch.arange(2 * 4 * 3.0).reshape(2, 4, 3)
MASK = [[True, True, False, False], [True, True, True, False]]


def written(value: torch.Tensor, options: Site, **columns: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the values that a writer gets for one site, and its columns as lists."""
    collector = Collector()
    collector.take("a", value, options=options)
    [(sites, own)] = appends(collector.drain(), columns)
    small = sites["a"]
    assert isinstance(small, torch.Tensor), "what is small is not lent"
    return small, {name: np.asarray(column).tolist() for name, column in own.items()}


def test_chosen_positions_keep_their_numbers_and_columns():
    value, own = written(X, Site(positions=[0, -1]), example=[7, 8], token=[[1, 2, 3, 4], [5, 6, 7, 8]], mask=MASK)
    assert torch.equal(value, X[:, [0, 3]])
    assert own == {
        "example": [7, 8],
        "token": [[1, 4], [5, 8]],
        "mask": [[True, False], [True, False]],
        "position": [[0, 3], [0, 3]],
    }


@pytest.mark.parametrize(
    ("positions", "kept"), [(2, [2]), (slice(1, None, 2), [1, 3]), (slice(None, None, -1), [3, 2, 1, 0])]
)
def test_a_number_and_slices_choose_positions(positions, kept):
    value, own = written(X, Site(positions=positions), example=[7, 8])
    assert torch.equal(value, X[:, kept])
    assert own["position"] == [kept, kept]


def test_positions_that_are_not_there_raise():
    with pytest.raises(RecordingError, match="there are 4 positions, and positions= asks for 4"):
        written(X, Site(positions=4), example=[7, 8])


def check_that_padding_does_not_count(pool, expected):
    value, own = written(X, Site(pool=pool), example=[7, 8], token=torch.ones(2, 4), mask=MASK)
    assert torch.equal(value, expected)
    assert own == {"example": [7, 8], "mask": [True, True]}


POOLED = {
    "last": torch.stack([X[0, 1], X[1, 2]]),
    "mean": torch.stack([X[0, :2].mean(0), X[1, :3].mean(0)]),
    "cls": X[:, 0],
}


@pytest.mark.parametrize("pool", POOLED)
def test_pools_leave_padding_out(pool):
    check_that_padding_does_not_count(pool, POOLED[pool])


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_a_pool_over_padding_is_found_out(pool):
    with broken("pooling_ignores_the_mask"), pytest.raises(AssertionError):
        check_that_padding_does_not_count(pool, POOLED[pool])


def test_padding_may_be_nan_and_half_precision_sums_wide():
    x = torch.full((1, 4096, 1), 1.0, dtype=torch.float16)
    x[0, 3000:] = torch.nan
    value, _ = written(x, Site(pool="mean"), example=[0], mask=torch.arange(4096)[None] < 3000)
    assert value.tolist() == [[1.0]]


def test_without_a_mask_all_positions_count():
    assert torch.equal(written(X, Site(pool="last"), example=[7, 8])[0], X[:, -1])
    assert torch.equal(written(X, Site(pool="mean"), example=[7, 8], mask=[True, False])[0], X.mean(1))


def test_an_example_that_is_all_padding_is_left_out():
    _, own = written(X, Site(pool="mean"), example=[7, 8], mask=[[False] * 4, MASK[1]])
    assert own["mask"] == [False, True]


def test_a_sample_is_that_of_the_rows_names():
    _, own = written(X, Site(sample=0.5, seed=3), example=[7, 8], mask=MASK)
    expected = sampled([7, 8], np.tile(np.arange(4), (2, 1)), fraction=0.5, seed=3) & np.array(MASK)
    assert own["mask"] == expected.tolist()


def test_samples_agree_however_the_tokens_lie():
    examples, wide = list(range(40)), torch.randn(40, 6, 2)
    _, own = written(wide, Site(sample=0.3), example=examples)
    _, flat = written(wide.reshape(240, 2), Site(sample=0.3, layout="token width"), example=examples)
    _, few = written(wide, Site(sample=0.3, positions=slice(2, 4)), example=examples)
    assert np.array_equal(np.array(own["mask"]).ravel(), flat["mask"])
    assert np.array_equal(np.array(own["mask"])[:, 2:4], few["mask"])


def test_a_sample_needs_examples():
    with pytest.raises(RecordingError, match="has sample=, and its rows no example"):
        written(X, Site(sample=0.5))


def test_values_are_converted_on_the_way_out():
    value, _ = written(X / 3, Site(dtype=torch.bfloat16), example=[7, 8])
    assert torch.equal(value, (X / 3).bfloat16())


def test_packed_tokens_are_divided_by_the_mask():
    packed = torch.arange(5.0)[:, None]
    value, own = written(
        packed, Site(layout="token width"), example=[7, 8], mask=MASK, token=torch.arange(8).reshape(2, 4)
    )
    assert torch.equal(value, packed)
    assert own == {"example": [7, 7, 8, 8, 8], "token": [0, 1, 4, 5, 6], "position": [0, 1, 0, 1, 2]}


def test_flattened_tokens_are_divided_evenly_and_masked():
    _, own = written(X.reshape(8, 3), Site(layout="token width"), example=[7, 8], mask=MASK)
    assert own == {
        "example": [7] * 4 + [8] * 4,
        "mask": [True, True, False, False, True, True, True, False],
        "position": [0, 1, 2, 3, 0, 1, 2, 3],
    }


def test_tokens_may_bring_columns_of_their_own():
    _, own = written(torch.zeros(3, 2), Site(layout="token width"), example=[7, 7, 9], position=[4, 5, 0])
    assert own == {"example": [7, 7, 9], "position": [4, 5, 0]}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_unpack():
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.zeros(1, 3)], layout=torch.jagged)
    value, own = written(nested, Site(), example=["a", "b"])
    assert value.tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3]
    assert own == {"example": ["a", "a", "b"], "position": [0, 1, 0]}


def test_tokens_that_cannot_be_divided_raise():
    with pytest.raises(RecordingError, match="there are 5 tokens for 2 examples"):
        written(torch.zeros(5, 3), Site(layout="token width"), example=[7, 8])


def test_a_mask_that_does_not_fit_raises():
    with pytest.raises(RecordingError, match=r"'mask' has the shape \[2, 3\].*2 examples of 4 positions"):
        written(X, Site(), example=[7, 8], mask=np.ones((2, 3), bool))


def test_a_column_of_another_sequence_is_left_out_of_this_one():
    collector = Collector()
    collector.take("encoder", X)
    collector.take("decoder", X[:, :2])
    sets = list(appends(collector.drain(), {"example": [7, 8], "token": torch.ones(2, 4)}))
    assert [(list(sites), sorted(own)) for sites, own in sets] == [
        (["encoder"], ["example", "token"]),
        (["decoder"], ["example"]),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "max"}, "none of last, mean, cls"),
        ({"sample": 0}, "is no fraction"),
        ({"sample": 1.5}, "is no fraction"),
        ({"dtype": "bf16"}, "is no torch dtype"),
        ({"layout": "rows"}, "is no dimension"),
        ({"pool": "cls", "positions": [1]}, "exclude each other"),
    ],
)
def test_options_that_are_none_raise(options, message):
    with pytest.raises(RecordingError, match=message):
        Site(**options)
