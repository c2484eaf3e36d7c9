from __future__ import annotations

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


def test_buffers_are_kept_and_replaced_where_shape_or_dtype_change():
    collector = Collector()
    places = []
    for value in (torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(3, 3), torch.zeros(3, 3).bfloat16()):
        collector.take("a", value)
        taken = collector.drain()[0].value
        assert taken.dtype == value.dtype
        assert torch.equal(taken, value)
        places.append(taken.data_ptr())
    assert places[0] == places[1]


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
    collector.drain()
    collector.take("a", torch.zeros(2))
    assert collector.drain()[0].value.tolist() == [0, 0]


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
