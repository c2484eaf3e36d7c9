from __future__ import annotations

import copy
import pickle

import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording.captured import Collector


def test_what_is_taken_stays_as_it_was():
    collector, value = Collector(), torch.ones(2, 3)
    collector.take("a", value)
    value.zero_()
    assert torch.equal(collector.drain()[0].value, torch.ones(2, 3))


def test_calls_and_batches_are_counted_within_a_step():
    collector = Collector()
    for _ in range(2):
        collector.count_batch()
        collector.take("a", torch.ones(2))
        collector.take("a", torch.ones(2))
    collector.take("b", torch.ones(2), given=True)
    assert [(one.site, one.call, one.batch, one.given) for one in collector.drain()] == [
        ("a", 0, 0, False),
        ("a", 1, 0, False),
        ("a", 2, 1, False),
        ("a", 3, 1, False),
        ("b", 0, 1, True),
    ]
    collector.take("a", torch.ones(2))
    assert [(one.call, one.batch) for one in collector.drain()] == [(0, 0)]


def test_two_calls_of_a_site_do_not_overwrite_each_other():
    collector = Collector()
    collector.take("a", torch.ones(2))
    collector.take("a", torch.zeros(2))
    assert [one.value.tolist() for one in collector.drain()] == [[1, 1], [0, 0]]


def test_memory_of_large_values_is_used_again_once_nobody_holds_them():
    collector, places = Collector(), []
    for value in (torch.ones(512, 512), torch.zeros(256, 1024), torch.zeros(512, 1000).bfloat16()):
        collector.take("a", value)
        taken = collector.drain()[0].value
        assert taken.dtype == value.dtype
        assert torch.equal(taken, value)
        places.append(taken.data_ptr())
        del taken
    assert len(set(places)) == 1


def test_what_somebody_still_holds_is_never_written_again():
    collector, held = Collector(), []
    for number in range(4):
        collector.take("a", torch.full((512, 512), float(number)))
        held += collector.drain()
    assert all((one.value == number).all() for number, one in enumerate(held))


def test_a_copy_of_a_collector_is_an_empty_one():
    collector = Collector()
    collector.take("a", torch.ones(512, 512))
    assert copy.deepcopy(collector).drain() == pickle.loads(pickle.dumps(collector)).drain() == []


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (2, 3, 4, 5)])
def test_any_dtype_shape_and_stride_is_copied_exactly(dtype, shape):
    value = torch.arange(240).reshape(2, 3, 4, 10).flatten()[: 2 * torch.Size(shape).numel() : 2].reshape(shape)
    value = value.transpose(0, -1).contiguous().transpose(0, -1).to(dtype)
    collector = Collector()
    collector.take("a", value)
    taken = collector.drain()[0].value
    assert taken.is_contiguous()
    assert taken.dtype == dtype
    assert torch.equal(taken, value)


def test_a_tensor_that_needs_gradients_is_taken_without_them():
    value = torch.ones(2, 3, requires_grad=True) * 2
    collector = Collector()
    collector.take("a", value)
    assert not collector.drain()[0].value.requires_grad
    value.sum().backward()


def test_buffers_made_in_inference_mode_serve_outside_of_it():
    collector = Collector()
    with torch.inference_mode():
        collector.take("a", torch.ones(2))
        collector.take("b", torch.ones(512, 512))
    small, large = collector.drain()
    assert small.value.tolist() == [1, 1]
    assert (large.value == 1).all()
    del small, large
    collector.take("b", torch.zeros(512, 512))
    assert (collector.drain()[0].value == 0).all()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.tensor(1.0), "a single number"),
        (torch.eye(2).to_sparse(), "a sparse_coo tensor"),
    ],
)
def test_what_has_no_rows_raises(value, reason):
    with pytest.raises(RecordingError, match=reason):
        Collector().take("a", value)
