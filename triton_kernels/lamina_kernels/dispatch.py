"""The choice between the forms of an op."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def choose(op: str, forms: Collection[str], impl: str | None, *, default: str) -> str:
    """Return the name of the form to run.

    Args:
        op: The op's public name, for the message.
        forms: The names of the forms that the op has.
        impl: What the caller asked for, or None.
        default: What runs when the caller asked for nothing.

    Returns:
        `default` if `impl` is None, else `impl`.

    Raises:
        ValueError: The op has no form of that name.
    """
    if impl is None:
        return default
    if impl not in forms:
        nearest = difflib.get_close_matches(str(impl), forms, n=1)
        guess = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{op} has no form {impl!r}, it has {', '.join(map(repr, sorted(forms)))}{guess}")
    return impl
