from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest

from lamina.demo.digits import load_digits, png
from lamina.demo.training import BATCH, STRETCH, _batches, stretches

pytest.importorskip("sklearn", reason="needs lamina[demo]")


def test_a_picture_is_a_png_of_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(8, 5), dtype=np.uint8)
    data = base64.b64decode(png(pixels).removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + body),)
        chunks[kind], place = body, place + 12 + length
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (5, 8, 8, 0, 0, 0, 0)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(8, 6)
    assert not lines[:, 0].any()
    assert np.array_equal(lines[:, 1:], pixels)


def test_the_split_divides_the_images() -> None:
    digits = load_digits()
    both = np.concatenate([digits.train.numpy(), digits.validation.numpy()])
    assert np.array_equal(np.sort(both), np.arange(1797))
    assert len(digits.validation) == 360
    columns = digits.columns()
    assert list(columns["split"]).count("validation") == 360
    assert len(columns["image"]) == 1797


@pytest.mark.parametrize("steps", [1, 30, 100])
def test_every_pass_shows_every_training_image_once(steps: int) -> None:
    train = load_digits().train
    batches = _batches(train, steps=steps, seed=0)
    assert [len(batch) for batch in batches] == [BATCH] * steps
    shown = np.concatenate([batch.numpy() for batch in batches])
    for first in range(0, len(shown), len(train)):
        once = shown[first : first + len(train)]
        assert len(set(once.tolist())) == len(once)


@pytest.mark.parametrize("steps", [1, STRETCH, 3 * STRETCH + 7])
def test_stretches_cover_the_steps(steps: int) -> None:
    assert [step for stretch in stretches(steps) for step in stretch] == list(range(steps))
