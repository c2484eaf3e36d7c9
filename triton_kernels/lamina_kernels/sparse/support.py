"""What is refused although each part of it exists, by form, with the reason; docs/sparse.md shows the same table."""

from __future__ import annotations

from lamina_kernels.refusals import Refusal
from lamina_kernels.sparse.encoding.problem import Largest, Problem, Rule

SHORTEST = 1024
"""Units of the shortest runs that the Triton kernel takes: each is a launch."""

SHORT_RUNS = Refusal(
    f"GroupTopK of runs of fewer than {SHORTEST:,} units",
    ("triton",),
    "each run is a launch of its kernel; impl='blocked' takes short ones, on a GPU too",
)

REFUSALS = (SHORT_RUNS,)


def refusal_of(p: Problem, rule: Rule) -> Refusal | None:
    """Return why the Triton kernel cannot encode what others can, or None."""
    if not isinstance(rule, Largest):
        return None
    return SHORT_RUNS if rule.groups > 1 and p.m // rule.groups < SHORTEST else None
