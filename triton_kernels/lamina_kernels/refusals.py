"""What an op refuses although each part of it exists; each family lists its own, and its page shows the same table."""

from __future__ import annotations

from typing import NamedTuple, NoReturn


class Refusal(NamedTuple):
    """A combination that raises NotImplementedError.

    Attributes:
        what: The combination.
        forms: The forms that refuse it.
        reason: Why, and what to do instead.
    """

    what: str
    forms: tuple[str, ...]
    reason: str


def refuse(op: str, refusal: Refusal) -> NoReturn:
    """Raise NotImplementedError for a combination."""
    raise NotImplementedError(f"{op}: {refusal.what} is not supported: {refusal.reason}")
