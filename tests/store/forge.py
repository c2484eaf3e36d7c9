"""The reader's inverse: records with valid checksums, whatever they say."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import cbor2
import google_crc32c


def encode(value: Any) -> bytes:
    """Deterministic CBOR, with every float in 64 bits (cbor2 shortens NaN and infinity)."""
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, list | tuple):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        return _head(5, len(value)) + b"".join(encode(key) + encode(item) for key, item in value.items())
    return cbor2.dumps(value)


def _head(major: int, length: int) -> bytes:
    first, *rest = cbor2.dumps(length)
    return bytes([first | major << 5, *rest])


def sealed(data: bytes) -> bytes:
    return data + blake3.blake3(data).digest()


def frame(body: bytes, sequence: int, before: bytes, *, generation: int = 0, length: int | None = None) -> bytes:
    """A frame whose stated length may be a lie."""
    stated = len(body) if length is None else length
    return sealed(b"LAMFRAM1" + struct.pack("<IIQ", stated, generation, sequence) + before + body)


def split(log: bytes) -> list[bytes]:
    """The frames of a log."""
    frames, start = [], 0
    while start < len(log):
        end = start + 88 + int.from_bytes(log[start + 8 : start + 12], "little")
        frames.append(log[start:end])
        start = end
    return frames


def operations(one: bytes) -> list[Any]:
    """The operations of a frame."""
    return cbor2.loads(one[56:-32])


def log(bodies: list[bytes]) -> bytes:
    """A whole log with these bodies."""
    data, before = b"", bytes(32)
    for sequence, body in enumerate(bodies):
        data += frame(body, sequence, before)
        before = data[-32:]
    return data


def commit(body: bytes) -> bytes:
    return sealed(b"LAMCOMM1" + struct.pack("<I", len(body)) + body)


def commit_path(run: Path, number: int) -> Path:
    return run / "commits" / f"{2**64 - 1 - number:020}"


def rewrite_commits(run: Path, change: Callable[[int, dict[int, Any]], None]) -> None:
    """Changes the bodies of all commits in order, and seals the chain again."""
    before = b""
    for path in sorted((run / "commits").iterdir(), reverse=True):
        body = cbor2.loads(path.read_bytes()[12:-32])
        if 1 in body:
            body[1][1] = before
        change(body[0], body)
        path.write_bytes(commit(encode(body)))
        before = path.read_bytes()[-32:]


def rewrite_log(run: Path, change: Callable[[list[list[Any]]], None], *, name: str = "000000.0000") -> None:
    """Changes the operations, frame by frame, of a log, and seals it again."""
    path = run / "logs" / name
    frames = [operations(one) for one in split(path.read_bytes())]
    change(frames)
    path.write_bytes(log([encode(body) for body in frames]))


def run_json(members: dict[str, Any]) -> bytes:
    """A `run.json` with a valid checksum; texts are given as JSON already where they are `bytes`."""
    lines = [
        f'"{name}": '.encode() + (value if isinstance(value, bytes) else json.dumps(value).encode())
        for name, value in members.items()
        if name != "blake3"
    ]
    body = b"{\n" + b",\n".join(lines) + b",\n"
    return body + f'"blake3": "{blake3.blake3(body).hexdigest()}"}}\n'.encode()


def rewrite_run(run: Path, **changed: Any) -> None:
    """Changes members of `run.json`, there and in its copy in commit 0."""
    text = run_json(json.loads((run / "run.json").read_text()) | changed)
    (run / "run.json").write_bytes(text)

    def copy(number: int, body: dict[int, Any]) -> None:
        if number == 0:
            body[6][0][1][0] = text.decode(errors="replace")

    rewrite_commits(run, copy)


def crcs(data: bytes) -> bytes:
    pieces = [data[at : at + (1 << 17)] for at in range(0, len(data), 1 << 17)]
    return b"".join(google_crc32c.value(piece).to_bytes(4, "little") for piece in pieces)
