"""scikit-learn's bundled digits: 1797 images of 8 x 8 pixels that people wrote."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lamina.extras import need

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_HELD_OUT = 360


@dataclass(frozen=True)
class Digits:
    """The images and how they are split.

    Attributes:
        images: Tensor [1797, 64], f32 from 0 to 1.
        labels: Tensor [1797], i64 from 0 to 9.
        train: Indices of the images to learn from.
        validation: Indices of the 360 images that are held out.
    """

    images: Tensor
    labels: Tensor
    train: Tensor
    validation: Tensor

    def columns(self) -> dict[str, NDArray | list[str]]:
        """Return the columns of the examples table: example, label, split, and the image as a data URI."""
        split = np.full(len(self.labels), "train", dtype=object)
        split[self.validation.numpy()] = "validation"
        pixels = (255 * (1 - self.images.numpy())).round().astype(np.uint8).reshape(-1, 8, 8)
        return {
            "example": np.arange(len(self.labels)),
            "label": self.labels.numpy(),
            "split": split.tolist(),
            "image": [png(image) for image in pixels],
        }


def load_digits() -> Digits:
    """Return the digits, split alike every time.

    Raises:
        MissingExtraError: If scikit-learn is not installed (`lamina[demo]`).
    """
    import torch

    data = need("sklearn.datasets", extra="demo").load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return Digits(
        images=torch.tensor(data.data / 16, dtype=torch.float32),
        labels=torch.tensor(data.target, dtype=torch.int64),
        train=order[_HELD_OUT:].sort().values,
        validation=order[:_HELD_OUT].sort().values,
    )


def png(pixels: NDArray[np.uint8]) -> str:
    """Return a gray image of shape (height, width) as a data URI that holds a PNG file.

    Example:
        >>> png(np.zeros((1, 1), np.uint8))[:22]
        'data:image/png;base64,'
    """
    height, width = pixels.shape
    # One byte 0 in front of every line: the line is stored unfiltered.
    lines = b"".join(b"\x00" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()
