"""What is refused although each part of it exists, by form, with the reason; docs/gram.md shows the same table."""

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


BY_L1 = Refusal(
    "selection or counting by l1", ("triton",), "it takes no matrix product; impl='blocked' computes it on a GPU too"
)
NO_FUNCTION = Refusal(
    "a Pointwise kernel without a function",
    ("triton",),
    "only its reference in torch was given; impl='blocked' runs that",
)
LARGE_GROUPS = Refusal(
    "HSIC of rows in groups of more than 64",
    ("triton",),
    "a tile of its kernel holds whole groups; impl='blocked' takes them on a GPU too",
)
THRICE = Refusal("a third derivative", ("blocked",), "only impl='reference' is differentiated by torch itself")
TWICE = Refusal("a second derivative of HSIC", ("blocked",), "only impl='reference' is differentiated by torch itself")

REFUSALS = (BY_L1, NO_FUNCTION, LARGE_GROUPS, THRICE, TWICE)


def refuse(op: str, refusal: Refusal) -> NoReturn:
    """Raise NotImplementedError for a combination."""
    raise NotImplementedError(f"{op}: {refusal.what} is not supported: {refusal.reason}")
