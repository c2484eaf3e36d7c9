"""The command line that every question has: `python -m bench.<question> [--quick]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def parser(question: str | None) -> argparse.ArgumentParser:
    """Make the parser of a question, which may add options of its own.

    Args:
        question: What `--help` prints: the question's docstring.
    """
    made = argparse.ArgumentParser(description=question)
    made.add_argument("--quick", action="store_true", help="a smoke run with tiny sizes, which writes no results")
    return made


def is_quick(question: str | None, argv: Sequence[str] | None) -> bool:
    """Read the command line of a question without options of its own, and say whether the run is a quick one.

    Args:
        question: What `--help` prints: the question's docstring.
        argv: The arguments; None takes the program's.
    """
    return parser(question).parse_args(argv).quick


def best_device() -> str:
    """Return `"cuda"` where torch finds a GPU, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
