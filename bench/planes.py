"""How fast are byte planes coded and decoded on one thread, and what do they leave, beside ZipNN and zstd?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import zstandard

from bench import paths
from bench.clock import timed
from bench.command import is_quick
from bench.harness import Case, as_case, interleave
from bench.language_model import Training
from bench.peers import Worker
from bench.table import Table, spread
from lamina import _core
from lamina.progress import track

REPETITIONS, UPDATES = 11, 60
GOALS = {("bf16", "encode"): 1.0, ("bf16", "decode"): 1.6, ("f32", "encode"): 1.5, ("f32", "decode"): 2.0}
ZIPNN = {"bf16": "bfloat16", "f32": "float32"}


def weights(*, quick: bool) -> dict[str, np.ndarray]:
    """Return the bytes of a language model's weights, some of whose training was done, by dtype."""
    training = Training()
    for _ in track(range(1 if quick else UPDATES), "training"):
        training.update()
    flat = torch.cat([weight.detach().reshape(-1) for weight in training.model.parameters()])
    bits = flat.bfloat16().view(torch.uint16)
    return {"bf16": bits.numpy().view(np.uint8), "f32": flat.numpy().view(np.uint8)}


def lamina_calls(dtype: str, data: np.ndarray) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Return what is left of the bytes, and what encodes and decodes them, with their checksums."""
    coded, out = _core.Coded(dtype, data), np.zeros_like(data)
    coded.read(out)
    assert np.array_equal(out, data)
    return coded.bytes, {"encode": lambda: _core.Coded(dtype, data), "decode": lambda: coded.read(out)}


def zstd_calls(data: np.ndarray) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Return the same for zstd at its level 3, which knows nothing of elements."""
    encoder, decoder = zstandard.ZstdCompressor(3), zstandard.ZstdDecompressor()
    coded = encoder.compress(data.data)
    return len(coded), {"encode": lambda: encoder.compress(data.data), "decode": lambda: decoder.decompress(coded)}


def zipnn_calls(worker: Worker, dtype: str, data: np.ndarray) -> tuple[int, dict[str, Case]]:
    """Return the same for ZipNN, in its own environment."""
    options, cases = {"dtype": ZIPNN[dtype]}, dict[str, Case]()
    worker.prepare("size", "bench.peer_calls.zipnn_codec:size", {"data": data}, "cpu", options)
    found = worker.result("size")
    assert found["same"], "ZipNN lost bytes"
    for work in ("encode", "decode"):
        case = f"zipnn: {work}"
        worker.prepare(case, f"bench.peer_calls.zipnn_codec:{work}", {"data": data}, "cpu", options)
        cases[case] = as_case(lambda case=case: worker.ask("seconds", case=case))
    return int(found["bytes"]), cases


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    rows, samples = [], {}
    with contextlib.nullcontext() if quick else Worker(paths.PEERS) as peers:
        versions = peers.ask("versions", packages=["zipnn"]) if peers else {}
        for dtype, data in weights(quick=quick).items():
            left: dict[str, int] = {}
            cases: dict[str, Case] = {}
            for name, (size, calls) in {
                "lamina": lamina_calls(dtype, data),
                "zstd, level 3": zstd_calls(data),
            }.items():
                left[name] = size
                cases |= {f"{name}: {work}": as_case(timed(call, "cpu")) for work, call in calls.items()}
            if peers:
                left["zipnn"], calls = zipnn_calls(peers, dtype, data)
                cases |= calls
            seconds = interleave(cases, 1 if quick else REPETITIONS, dtype)
            if peers:
                peers.forget()
            for name, size in left.items():
                row: dict[str, Any] = {"dtype": dtype, "codec": name, "ratio": f"{data.nbytes / size:.4f}"}
                for work in ("encode", "decode"):
                    values = seconds[f"{name}: {work}"]["time"]
                    samples[f"{dtype}: {name}: {work}"] = values
                    took = spread(values)
                    row |= {f"{work}, GB/s": data.nbytes / 1e9 / took.median}
                    row |= {f"best {work}, GB/s": data.nbytes / 1e9 / took.least}
                    row |= {f"goal of {work}": GOALS[dtype, work] if name == "lamina" else None}
                rows.append(row)
    columns = ["dtype", "codec", "ratio"]
    columns += [text for w in ("encode", "decode") for text in (f"{w}, GB/s", f"best {w}, GB/s", f"goal of {w}")]
    Table(
        question="How fast are byte planes coded and decoded on one thread, and what do they leave?",
        columns=columns,
        rows=rows,
        notes=[
            f"the weights of bench/language_model.py (5.7 million) after {UPDATES} updates; GB/s of raw bytes",
            "lamina: blocks of 128 KiB, encoded with their CRC32C into new memory, decoded with a check of it into "
            "memory that is there",
            "ZipNN: method huffman, one thread; it changes its input, so that encoding includes a copy; it decodes "
            "into new memory; its own README gives 1.12 and 1.66 GB/s for bf16 on another machine",
            f"{REPETITIONS} interleaved repetitions, median and best; every byte was compared before",
        ],
        packages=["lamina", "torch", "zstandard"],
        versions=versions,
        samples=samples,
    ).publish("planes", quick=quick)


if __name__ == "__main__":
    main()
