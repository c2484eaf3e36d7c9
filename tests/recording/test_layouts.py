from __future__ import annotations

import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording.layouts import arrange, parse_layout

IMAGE = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


def rows(value, text):
    return arrange(value, None if text is None else parse_layout(text), "site")[:2]


def test_places_of_an_image_become_rows_of_channels():
    value, form = rows(IMAGE, "batch channel height width")
    assert (form, list(value.shape)) == ("positions", [2, 20, 3])
    assert all(
        torch.equal(value[b, 5 * h + w], IMAGE[b, :, h, w]) for b in range(2) for h in range(4) for w in range(5)
    )


def test_channels_last_images_are_the_same_rows():
    value, _ = rows(IMAGE.permute(0, 2, 3, 1), "batch height width channel")
    assert torch.equal(value, rows(IMAGE, "batch channel height width")[0])


def test_positions_before_the_batch_are_turned():
    value, form = rows(IMAGE[0], "position batch width")
    assert form == "positions"
    assert torch.equal(value, IMAGE[0].transpose(0, 1))


def test_heads_stand_side_by_side_in_a_row():
    value, form = rows(IMAGE, "batch head position width")
    assert (form, list(value.shape)) == ("positions", [2, 4, 15])
    assert torch.equal(value[1, 2], IMAGE[1, :, 2].reshape(-1))


@pytest.mark.parametrize(("text", "form"), [("batch head width", "examples"), ("token head width", "tokens")])
def test_heads_without_positions_are_one_row_and_no_positions(text, form):
    value, found = rows(IMAGE[0], text)
    assert found == form
    assert torch.equal(value, IMAGE[0].reshape(3, 20))


def test_a_number_for_each_position_is_a_row_of_one():
    assert list(rows(torch.zeros(2, 7), "batch position")[0].shape) == [2, 7, 1]


def test_images_without_a_layout_keep_their_shape():
    value, form = rows(IMAGE, None)
    assert (form, list(value.shape)) == ("examples", [2, 3, 4, 5])


def test_tokens_stay_as_they_are():
    assert rows(torch.zeros(6, 4), "token width")[1] == "tokens"


@pytest.mark.parametrize("nested", [torch.jagged, torch.strided])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_tokens_of_known_lengths(nested):
    items = [torch.randn(3, 2), torch.randn(1, 2)]
    value, form, lengths = arrange(torch.nested.nested_tensor(items, layout=nested), None, "site")
    assert (form, lengths) == ("tokens", (3, 1))
    assert torch.equal(value, torch.cat(items))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch pixel", "'pixel' is no dimension"),
        ("batch batch", "stands twice"),
        ("position width", "either batch or token"),
        ("batch token width", "either batch or token"),
        ("token position width", "a token has one position"),
        ("token channel height", "a token has one position"),
    ],
)
def test_a_layout_that_is_none_raises(text, message):
    with pytest.raises(RecordingError, match=message):
        parse_layout(text)


def test_a_tensor_of_other_dimensions_raises():
    with pytest.raises(RecordingError, match=r"a tensor \[2, 7\], and its layout is 'batch position width'"):
        rows(torch.zeros(2, 7), "batch position width")
