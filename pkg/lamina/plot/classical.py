"""Classical multidimensional scaling: points in the plane whose distances are near to given ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def classical(distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return points in the plane, centered, and the share of the distances that the plane shows.

    The leading eigenvectors of -J D^2 J / 2, J the centering matrix, scaled by the roots of their eigenvalues. If the
    distances are those of points in a plane, these are the points, up to a turn or a mirror image, and the share is 1.

    Args:
        distances: Shape (n, n), symmetric, zeros on the diagonal.

    Returns:
        Shape (n, 2), each axis mirrored so that its largest coordinate is positive; and the two largest eigenvalues,
        where they are above 0, over the sum of the absolute values of all (Mardia 1978): below 1 where the distances
        need more dimensions, or are none of any space.

    Source: Torgerson 1952; Gower 1966.

    Example:
        >>> points, share = classical(np.array([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]]))
        >>> round(float(np.linalg.norm(points[1] - points[2])), 6), round(share, 6)
        (5.0, 1.0)
    """
    squares = distances**2
    centered = -(squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()) / 2
    values, vectors = np.linalg.eigh(centered)
    kept = np.maximum(values[::-1][:2], 0)
    points = np.zeros((len(distances), 2))
    points[:, : len(kept)] = vectors[:, ::-1][:, :2] * np.sqrt(kept)
    largest = np.take_along_axis(points, np.abs(points).argmax(0)[None], 0)
    total = float(np.abs(values).sum())
    return points * np.where(largest < 0, -1.0, 1.0), float(kept.sum()) / total if total > 0 else 1.0
