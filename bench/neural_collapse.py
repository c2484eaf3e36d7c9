"""How fast is neural collapse of a million rows, beside one read of them and their matrix product?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from bench import limits, paths
from bench.agreement import Within
from bench.clock import timed
from bench.command import is_quick
from bench.harness import TIMES, Contender, cells, compare, peaks, speeds
from bench.table import Table, spread
from lamina import geometry

N, D, CLASSES, BLOCK = 1_000_000, 512, 100, 16_384
REPETITIONS = 3
RULE = Within(1e-4)
FILE = paths.SCRATCH / "neural-collapse.npy"

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected: one product of 2 n d^2 operations; Lamina reads the rows three times (means, class means, products), "
    "computes five eighths of the symmetric product, and a fifth as much again for NC4: 1.5 to 2 times read + product",
    "expected, memory: 32 buckets of d x d products in float32 and float64 (100 MiB), and blocks of 16 MiB",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    n, d, classes, repetitions = (600, 8, 3, 1) if quick else (N, D, CLASSES, REPETITIONS)
    labels = record(n, d, classes)
    machine = [limits.gemm("fp32", "cpu", 128 if quick else None), limits.copy("cpu", 2**20 if quick else 2**28)]
    needs = {"GEMM fp32": 2.0 * n * d * d, "memcpy": 4.0 * n * d}
    contenders = [
        Contender("lamina", "bench.neural_collapse:through_lamina", {"path": str(FILE)}, needs=needs),
        Contender("by hand in torch, no errors", "bench.neural_collapse:by_hand", {"path": str(FILE)}, needs=needs),
    ]
    floor = Contender("read + product alone", "", needs=needs)
    expected = by_hand(labels, device="cpu", path=str(FILE), dtype=torch.float64)()
    arrays, what = {"labels": labels}, f"n = {n}"
    machine.append(limits.Limit(floor.name, "row", n, read_and_multiply()))
    samples = compare(
        contenders,
        arrays,
        expected,
        rule=RULE,
        limits=machine,
        repetitions=repetitions,
        device="cpu",
        peers=None,
        description=what,
    )
    added = {} if quick else peaks(contenders, arrays, device="cpu", description=what)
    rows, least = [], spread(samples[floor.name]).median
    for contender in [floor, *contenders]:
        row = {"by": contender.name} | cells(contender, machine, samples)
        row["x read + product"] = spread(samples[contender.name]).median / least
        row["peak, MiB"] = added[contender.name] / 2**20 if contender.name in added else None
        rows.append(row)
    FILE.unlink()
    Table(
        question="How fast is neural collapse of a million rows, and in how much memory?",
        columns=["by", *TIMES, "x read + product", "peak, MiB"],
        rows=rows,
        notes=[
            f"float32 rows [{n}, {d}] of {classes} classes in a file that is mapped into memory (in the page cache), "
            f"every row a group of its own; {repetitions} interleaved repetitions after a comparison with float64: "
            f"{RULE}",
            "lamina gives jackknife errors over 32 buckets of groups; by hand: class means, one covariance, NC1 to NC4",
            "goal: at most 2 times read + product (a copy of each block and its product with itself, float32)",
            "peak: what the first call adds to a fresh process, by VmHWM, in which pages of the mapped file count "
            f"({4 * n * d / 2**20:.0f} MiB in all)",
            *EXPECTED,
            speeds(machine[:2], [samples]),
        ],
        packages=["lamina", "torch", "numpy"],
        samples={what: samples},
    ).publish("neural_collapse", quick=quick)


def record(n: int, d: int, classes: int) -> np.ndarray:
    """Write the rows a block at a time, and return their classes."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    centers = generator.standard_normal((classes, d), np.float32) * np.float32(2)
    rows = np.lib.format.open_memmap(FILE, mode="w+", dtype=np.float32, shape=(n, d))
    for start in range(0, n, BLOCK):
        part = labels[start : start + BLOCK]
        rows[start : start + BLOCK] = centers[part] + generator.standard_normal((len(part), d), np.float32)
    rows.flush()
    return labels


def mapped(path: str) -> torch.Tensor:
    """Return the rows where they lie."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def through_lamina(labels: np.ndarray, *, device: str, path: str) -> Callable[[], Mapping[str, float]]:
    """NC1, NC2 and NC4 with their errors."""
    rows = mapped(path).to(device)

    def run() -> Mapping[str, float]:
        found = geometry.neural_collapse(rows, labels)
        return dict(zip(found.axes["metric"], found.value.tolist(), strict=True))

    return run


def by_hand(
    labels: np.ndarray, *, device: str, path: str, dtype: torch.dtype = torch.float32
) -> Callable[[], Mapping[str, float]]:
    """What one writes in torch: two passes in blocks, no errors."""
    rows, of_rows = mapped(path).to(device), torch.from_numpy(labels).to(device)
    count, d = int(labels.max()) + 1, rows.shape[1]

    def run() -> Mapping[str, float]:
        n = torch.bincount(of_rows, minlength=count).to(dtype)
        sums = torch.zeros(count, d, dtype=dtype, device=device)
        for at, x in zip(of_rows.split(BLOCK), rows.split(BLOCK), strict=True):
            sums.index_add_(0, at, x.to(dtype))
        means = sums / n[:, None]
        within, wrong = torch.zeros(d, d, dtype=dtype, device=device), 0
        for at, block in zip(of_rows.split(BLOCK), rows.split(BLOCK), strict=True):
            x = block.to(dtype)
            wrong += int(((means.square().sum(1) - 2 * x @ means.T).argmin(1) != at).sum())
            around = x - means[at]
            within += around.T @ around
        middle = means - means.mean(0)
        _, scales, directions = torch.linalg.svd(middle.double(), full_matrices=False)
        kept = scales > 1e-5 * scales[0]
        along = ((directions[kept] @ within.double()) * directions[kept]).sum(1)
        norms = middle.norm(dim=1)
        apart = (middle @ middle.T / torch.outer(norms, norms) + 1 / (count - 1)).abs()
        return {
            "nc1": float((along / scales[kept].square()).sum() / len(rows)),
            "nc2_norm": float(norms.std(correction=0) / norms.mean()),
            "nc2_angle": float((apart.sum() - apart.diagonal().sum()) / (count * (count - 1))),
            "nc4": wrong / len(rows),
        }

    return run


def read_and_multiply() -> Callable[[], float]:
    """What nobody can do without: a copy of each block, and its product with itself."""
    rows = mapped(str(FILE))

    def run() -> None:
        total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        for block in rows.split(BLOCK):
            x = block.clone()
            total += x.T @ x

    return timed(run, "cpu")


if __name__ == "__main__":
    main()
