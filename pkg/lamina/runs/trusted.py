"""What is taken from a pickle: tensors and plain values, as torch takes them, and NumPy arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


def load_trusted(file: Any, *, mmap: bool = False) -> Any:
    """What `torch.load(weights_only=True)` loads onto the CPU, and NumPy arrays, which torch knows but does not trust.

    Raises what `torch.load` raises; `pickle.UnpicklingError` for anything that would run code.
    """
    import torch

    with torch.serialization.safe_globals(_arrays()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of unusual pickles, which are refused or understood
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)


def _arrays() -> list[Any]:
    kinds = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"}
    rebuild: Any = np._core.multiarray._reconstruct  # pyright: ignore[reportAttributeAccessIssue]
    return [np.ndarray, np.dtype, rebuild, *kinds]
