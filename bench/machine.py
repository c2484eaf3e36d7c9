"""What can this machine do at best?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bench import limits, paths
from bench.command import best_device, is_quick
from bench.harness import TIME, as_case, interleave
from bench.limits import Limit
from bench.table import Table, spread

REPETITIONS = 9


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    here = all_limits(device, quick)
    repetitions = 1 if quick else REPETITIONS
    samples = interleave({limit.name: as_case(limit.run) for limit in here}, repetitions, "limits")
    shutil.rmtree(paths.SCRATCH)
    rows = []
    for limit in here:
        took = spread(samples[limit.name][TIME])
        rows.append(
            {
                "limit": limit.name,
                "median": limit.speed(took.median),
                "slowest": limit.speed(took.greatest),
                "quartiles": f"{limit.speed(took.upper)} to {limit.speed(took.lower)}",
                "fastest": limit.speed(took.least),
            }
        )
    Table(
        question="What can this machine do at best?",
        columns=["limit", "median", "slowest", "quartiles", "fastest"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions; other tables measure the limits that they name in their own run",
            "files in pieces of 8 MiB; a cold read comes from outside the page cache, though a host may still cache it",
            "a byte that memcpy reads and writes counts once; exp of numbers in the cache; square matrices",
        ],
        packages=["torch", "numpy"],
        samples=samples,
    ).publish("machine", device=device, quick=quick)


def all_limits(device: str, quick: bool) -> list[Limit]:
    """Return every limit that this machine has."""
    size = 2**22 if quick else 2**28
    found = [limits.copy("cpu", size)]
    found += [limits.read(paths.SCRATCH, cold=cold, size=size) for cold in (True, False)]
    found += [limits.durable_write(paths.SCRATCH, size), limits.exp()]
    if device == "cpu":
        return [*found, *(limits.gemm(kind, "cpu", 128 if quick else None) for kind in ("fp32", "fp64"))]
    found += [limits.gemm(kind, device, 128 if quick else None) for kind in ("bf16", "tf32", "fp32", "fp64")]
    return [*found, limits.copy(device, size if quick else 2**32)]


if __name__ == "__main__":
    main()
