"""Attached groups, written from docs/format.md alone: what a writer makes of `row=`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.store import forge

OPEN, CLOSE, SITE, GROUP = 1, 2, 3, 5
ATTACHED, OF_SITE, OF_NAMES = 2, 0, 5
RESERVE = 1 << 20


def attach(
    run: Path, writer: int, site: str, parts: Sequence[tuple[Sequence[int], np.ndarray]], *, number: int = 100
) -> None:
    """Add a writer that attached float32 values of a site (of that number) to rows: for each group their names and
    [rows, d]."""
    file = f"segments/{writer:06}-000000.safetensors"
    width = parts[0][1].shape[1]
    data = bytearray(RESERVE)
    records = []
    for group, (rows, values) in enumerate(parts):
        names = np.asarray(rows, dtype=np.int64)
        start = len(data)
        blocks = []
        for role, key, held in ((OF_NAMES, 0, names.tobytes()), (OF_SITE, number, values.astype(np.float32).tobytes())):
            blocks.append({0: role, 1: key, 2: len(data), 3: len(held), 4: forge.crcs(held), 5: 0})
            data += held
        data += bytes(-len(data) % 4096)
        record = {0: file, 1: group, 2: ATTACHED, 3: start, 4: len(data) - start, 5: int(names.min()), 6: names.size}
        records.append([GROUP, record | {7: blocks, 8: [], 9: [], 10: int(names.max())}])
    (run / file).write_bytes(data)
    opened = [OPEN, {0: "elsewhere", 1: 1, 3: 0, 4: "0" * 32}]
    declared = [SITE, {0: number, 1: site, 2: "f32", 3: [width]}]
    bodies = [[opened], [declared, *records], [[CLOSE, {1: 0}]]]
    (run / f"logs/{writer:06}.0000").write_bytes(forge.log([forge.encode(body) for body in bodies]))
