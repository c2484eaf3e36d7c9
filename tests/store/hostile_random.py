"""Random changes of records, sealed again: what they say is anybody's guess, but nothing may crash."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.store import forge
from tests.store.small import SEALED_LOG

NUMBERS = [b"\x1b" + b"\xff" * 8, b"\x1b\x7f" + b"\xff" * 7, b"\x1b\x80" + bytes(7), b"\x1b\0\0\0\x40" + bytes(4)]
"""In CBOR: the greatest integers of 64 and of 63 bits, the one after that, and 2^38."""
BYTES = [0x00, 0x01, 0x1A, 0x1B, 0x3B, 0x7F, 0x80, 0xF6, 0xFF]


def mutate(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at, kind = chance.randrange(len(changed)), chance.random()
        if kind < 0.6:
            changed[at] = chance.choice([*BYTES, chance.randrange(256)])
        else:
            changed[at : at + 1] = chance.choice(NUMBERS) if kind < 0.8 else b""
    return bytes(changed)


def case(seed: int) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            path = forge.commit_path(run, chance.choice([1, 2]))
            path.write_bytes(forge.commit(mutate(path.read_bytes()[12:-32], chance)))
            return
        path = run / SEALED_LOG
        bodies = [one[56:-32] for one in forge.split(path.read_bytes())]
        at = chance.randrange(len(bodies))
        bodies[at] = mutate(bodies[at], chance)
        path.write_bytes(forge.log(bodies))

    return make


CASES = {f"random_{seed}": case(seed) for seed in range(400)}
