"""The command line that every question has: `python -m bench.<question> [--quick]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def is_quick(question: str | None, argv: Sequence[str] | None) -> bool:
    """Read the command line and say whether the run is a quick one.

    Args:
        question: What `--help` prints: the question's docstring.
        argv: The arguments; None takes the program's.
    """
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--quick", action="store_true", help="a smoke run with tiny sizes, which writes no results")
    return parser.parse_args(argv).quick


def best_device() -> str:
    """Return `"cuda"` where torch finds a GPU, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
