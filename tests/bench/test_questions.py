"""Every question answers on tiny sizes, so that no benchmark rots between its real runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from bench import paths

ANSWERS = {
    "machine": ["memcpy", "GEMM fp32"],
    "store_append": ["lamina append + flush", "np.save + fsync"],
    "durable": ["write() + fdatasync", "lamina, 8 threads"],
    "blocking": ["1"],
    "recording_overhead": ["no recorder", "recorder open, every step due"],
    "norms": ["float32", "bfloat16"],
    "emitting": ["1"],
    "transformer_step": ["no recorder", "lamina, every step", "nnsight trace, every step"],
    "probing": ["forward pass", "lamina probe"],
    "capturing": ["forward pass", "lamina.capture"],
    "hsic_sums": ["dense torch", "reference", "blocked", "rbf, gradients"],
    "attention": ["torch, fused", "blocked: lse, max, entropy", "JS of two patterns, log-sum-exps known"],
    "attention_predicted": ["forward: lse, max, entropy", "both: entropy", "divergence: JS, log-sum-exps known"],
    "query": ["lamina", "memmap + Polars in memory"],
    "cka": ["dense float64", "lamina"],
    "nearest": ["lamina", "scikit-learn", "torch in blocks"],
    "sparse_decode": ["lamina", "embedding_bag", "CSR", "gather, scatter", "dense"],
    "twonn": ["lamina", "cdist in blocks"],
    "ksg": ["lamina", "scipy's trees alone"],
    "neural_collapse": ["read + product alone", "lamina", "by hand in torch, no errors"],
    "gather": ["memcpy", "lamina, out=", "torch map[index], fresh"],
    "scan": ["memcpy", "lamina, out="],
    "loading": ["memcpy", "lamina, raw", "lamina, planes", "safetensors load_file, each cloned"],
    "slicing": ["lamina, raw", "lamina, compacted", "safe_open().get_slice", 'safetensors load_file(backend="pread")'],
    "epoch": ["memcpy", "lamina, rows.batches", "lamina, rows.dataset", "np.take(memmap)"],
    "planes": ["bf16", "f32"],
    "checkpoint_bytes": ["bf16", "optimizer", "model, 90 % of it frozen"],
    "saving": ["lamina, save", "lamina, by DCP save", "DCP async_save + fsync", "zarr v3, not compressed, + fsync"],
    "small_saves": ["lamina, durable at the end", "torch.save, one file each"],
    "training_with_saves": ["no saves", "lamina, save"],
    "cka_grid": ["lamina, in one go: feature products", "lamina, call by call"],
    "cka_matrix": ["4 passes of row_sums", "its 3 matrix products", "cka_matrix"],
    "gram_sums": ["lamina, bf16x3", "split", "cka_matrix, RBF, 32 layers", "harmonic"],
    "gram_predicted": ["RBF row sums", "nearest, k = 16", "cka_matrix, RBF, 32 layers, each", "harmonic"],
    "gram_cpu": ["scikit-learn, in blocks", "blocked"],
    "sparse_step": ["lamina", "torch topk + dense"],
    "sparse_encode": ["lamina", "split, topk", "split, threshold", "topk", "cuBLAS"],
    "sparse_predicted": ["encode, TopK", "product, stored", "decode", "gradient of the dictionary"],
    "codebooks": ["lamina", "torch"],
    "codes": ["write and index, durable | lamina", "stats of all features | lamina, no index"],
    "sweep_cached": ["the pairs' lines, read and parsed as JSON", "all same-step pairs"],
    "open_run": ["open, warm", "sites(), first, warm"],
}

# It needs root and loop devices; tests/power_cut has its parts.
BY_HAND = {"power_cut"}


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_answers_and_writes_no_results(question, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "SCRATCH", tmp_path / "scratch")
    # The peers need an environment of their own; their worker has tests in test_peers.py.
    monkeypatch.setattr(paths, "PEERS", tmp_path / "no-peers" / "python")
    # Threads that wait for each other on a busy machine take seconds for nothing.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        importlib.import_module(f"bench.{question}").main(["--quick"])
    finally:
        torch.set_num_threads(threads)
    page = capsys.readouterr().out
    assert page.startswith("# ")
    for row in ANSWERS[question]:
        assert f"| {row} |" in page, row
    assert not (tmp_path / "results").exists()


def test_make_bench_runs_every_question():
    found = {path.stem for path in (paths.ROOT / "bench").glob("*.py") if "def main(" in path.read_text()}
    listed = re.search(r"^QUESTIONS := ((?:.*\\\n)*.*)$", (paths.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert set(listed[1].replace("\\\n", " ").split()) == found - BY_HAND == set(ANSWERS)


def test_every_result_that_is_kept_answers_a_question_that_is_there():
    for page in Path(paths.ROOT / "bench" / "results").glob("*.md"):
        assert page.name.partition(".")[0] in ANSWERS.keys() | BY_HAND
