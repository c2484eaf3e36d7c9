from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import (
    ALiBi,
    Cosine,
    Dot,
    KeyBias,
    RelativeBias,
    Sigmoid,
    Softmax,
    SquaredDistance,
    attend,
    block_mask,
    divergence,
    documents,
    merge,
)
from lamina_kernels.attention.masks import BlockMask

Q, K, V = torch.ones(2, 4, 5, 16), torch.ones(2, 2, 7, 16), torch.ones(2, 2, 7, 24)
P, PK = torch.ones(9, 4, 16), torch.ones(12, 2, 16)
LSE = torch.ones(2, 4, 5)
FIVE, SEVEN = (block_mask(lambda b, h, i, j: i >= j, n, n) for n in (5, 7))


def starts(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def packed(q: torch.Tensor, k: torch.Tensor, **more: Any) -> dict[str, Any]:
    return {"cu_seqlens_q": q, "cu_seqlens_k": k, **more}


GOOD = packed(starts(0, 4, 9), starts(0, 4, 12))

REFUSED = [
    # rows
    ((Q[0], K, V), {}, r"q has shape \[4, 5, 16\], expected \(batch, heads, rows, dim\); packed rows"),
    ((Q, K.half(), V), {}, "k is torch.float16 on cpu, but q is torch.float32 on cpu"),
    ((Q.long(), K.long(), V.long()), {}, "q is torch.int64, expected float16, bfloat16, float32 or float64"),
    ((Q, K, V.to("meta")), {}, "v is torch.float32 on meta, but q is torch.float32 on cpu"),
    ((Q, K[:1], V[:1]), {}, r"q has shape \[2, 4, 5, 16\], k \[1, 2, 7, 16\].*: batches must be equal"),
    ((Q, K[..., :8], V), {}, r"q has shape \[2, 4, 5, 16\] and k \[2, 2, 7, 8\]: the last dimensions must be equal"),
    ((Q, K, V[:, :, :6]), {}, r"k has shape \[2, 2, 7, 16\] and v \[2, 2, 6, 24\]: .* equal but for the last"),
    ((Q[:, :3], K, V), {}, r"q has shape \[2, 3, 5, 16\] and k .*: the 3 heads of q must be a multiple of the 2 of k"),
    ((Q[:, :0], K, V), {}, "the 0 heads of q must be a multiple of the 2 of k"),
    ((Q[..., :0], K[..., :0], V), {}, "q has heads of dim 0, expected 1 to 256"),
    ((torch.ones(1, 1, 2, 257),) * 3, {}, "q has heads of dim 257, expected 1 to 256"),
    ((Q, K, torch.ones(2, 2, 7, 300)), {}, "v has heads of dim 300, expected 1 to 256"),
    # options
    ((Q, K, V), {"window": (-1, 3)}, r"window is \(-1, 3\), expected two numbers that are not negative, None for no"),
    ((Q, K, V), {"window": 3}, r"window is 3, expected \(left, right\)"),
    ((Q, K, V), {"window": (1.0, 2)}, r"window is \(1.0, 2\)"),
    ((Q, K, V), {"align": "left"}, "align is 'left', expected 'bottom-right' or 'top-left'"),
    ((Q, K, V), {"precision": "fp8"}, "precision is 'fp8', expected None, 'bf16x6', 'tf32' or 'ieee'"),
    ((Q, K, V), {"topk": 9}, "topk is 9, expected a number from 0 to 8"),
    ((Q, K, V), {"topk": True}, "topk is True"),
    ((Q, K, V), {"share": 1.5}, "share is 1.5, expected a weight from 0 to 1"),
    ((Q, K, V), {"share": math.nan}, "share is nan"),
    (
        (Q, K, V),
        {"scale": 0.5, "score": Cosine(0.1)},
        r"scale is 0.5 with Cosine, which has its own; scale belongs to Dot",
    ),
    ((Q, K, V), {"impl": "tritn"}, "attend has no form 'tritn', it has .*did you mean 'triton'"),
    ((Q.double(), K.double(), V.double()), {"impl": "triton"}, "float64 has the forms 'reference' and 'blocked' alone"),
    # statistics
    ((Q, K, V), {"statistics": "lse"}, r"statistics is 'lse', expected several names, such as \('lse',\)"),
    (
        (Q, K, V),
        {"statistics": ("entorpy",)},
        "statistics has 'entorpy', expected names out of .*; did you mean 'entropy'",
    ),
    ((Q, K, V), {"statistics": ("entropy",), "normalizer": Sigmoid()}, "has 'entropy', which Sigmoid does not have"),
    ((Q, K, V), {"statistics": ("distance",), "normalizer": Sigmoid()}, "has 'distance', which Sigmoid does not have"),
    # what is learned
    (
        (Q, K, V),
        {"score": Cosine(torch.ones(3))},
        r"score.temperature has shape \[3\], expected \[4\]: one, or one a query",
    ),
    ((Q, K, V), {"score": SquaredDistance(torch.ones(2, 4))}, r"score.bandwidth has shape \[2, 4\], expected \[4\]"),
    ((Q, K, V), {"normalizer": Softmax(sink=torch.ones(2))}, r"normalizer.sink has shape \[2\], expected \[4\]"),
    ((Q, K, V), {"normalizer": Sigmoid(torch.ones(5))}, r"normalizer.bias has shape \[5\], expected \[4\]"),
    (
        (Q, K, V),
        {"normalizer": Sigmoid(torch.ones(4).long())},
        "normalizer.bias is torch.int64 on cpu, expected floating",
    ),
    ((Q, K, V), {"bias": ALiBi(torch.ones(2))}, r"bias.slopes has shape \[2\], expected \[4\]: one a query head"),
    (
        (Q, K, V),
        {"bias": ALiBi(torch.ones(4, device="meta"))},
        "bias.slopes is torch.float32 on meta, expected .* on cpu",
    ),
    ((Q, K, V), {"bias": RelativeBias(torch.ones(4, 6))}, r"bias.table has shape \[4, 6\], expected \[4, 2 R \+ 1\]"),
    ((Q, K, V), {"bias": RelativeBias(torch.ones(2, 7))}, r"bias.table has shape \[2, 7\], expected \[4, 7\]"),
    (
        (Q, K, V),
        {"bias": KeyBias(torch.ones(5))},
        r"bias.values has shape \[5\], expected \[7\], \[4, 7\] or \[2, 4, 7\]",
    ),
    ((Q, K, V), {"bias": KeyBias(torch.ones(3, 1, 7))}, r"bias.values has shape \[3, 1, 7\]"),
    ((Q, K, V), {"bias": KeyBias(torch.ones(7).bool())}, "bias.values is torch.bool on cpu, expected floating point"),
    # masks
    ((Q, K, V), {"mask": FIVE}, "mask is of 5 queries and 5 keys, 1 sequences and 1 heads, expected 5 and 7"),
    (
        (Q, K, V),
        {"mask": block_mask(lambda b, h, i, j: i >= j + b, 5, 7, sequences=3)},
        "3 sequences and 1 heads, expected",
    ),
    ((Q, K, V), {"mask": block_mask(lambda b, h, i, j: i >= j, 5, 7).to("meta")}, "mask is on meta, but q is on cpu"),
    # packed
    ((P, PK, PK), {"cu_seqlens_q": starts(0, 9)}, "cu_seqlens_q is given without cu_seqlens_k"),
    ((P, PK, PK), {"cu_seqlens_k": starts(0, 9)}, "cu_seqlens_k is given without cu_seqlens_q"),
    ((Q, K, V), GOOD, r"q has shape \[2, 4, 5, 16\], expected \(total, heads, dim\)"),
    (
        (P, PK, PK),
        packed(starts(0, 4, 8), starts(0, 4, 12)),
        "cu_seqlens_q goes from 0 to 8, expected from 0 to 9, all of q",
    ),
    ((P, PK, PK), packed(starts(0, 4, 9), starts(1, 4, 12)), "cu_seqlens_k goes from 1 to 12, expected from 0 to 12"),
    (
        (P, PK, PK),
        packed(starts(0, 9), starts(0, 13, 12)),
        "cu_seqlens_k falls from 13 to 12 at 2, expected rising numbers",
    ),
    ((P, PK, PK), packed(starts(0, 9), starts(0, 4, 12)), "cu_seqlens_q tells of 1 sequences and cu_seqlens_k of 2"),
    (
        (P, PK, PK),
        packed(starts(0, 9).long(), starts(0, 12)),
        r"cu_seqlens_q is torch.int64 of shape \[2\], expected int32",
    ),
    ((P, PK, PK), packed(starts(0), starts(0, 12)), r"cu_seqlens_q is torch.int32 of shape \[1\]"),
    ((P, PK, PK), packed(starts(0, 9).to("meta"), starts(0, 12)), "cu_seqlens_q is on meta, but q is on cpu"),
    ((P, PK, PK), GOOD | {"max_seqlen_k": 7}, "max_seqlen_k is 7, but cu_seqlens_k tells of a sequence of 8"),
    ((P, PK, PK), GOOD | {"max_seqlen_q": -1}, "max_seqlen_q is -1, expected the length of the longest sequence"),
    ((Q, K, V), {"max_seqlen_q": 5}, "max_seqlen_q is given without cu_seqlens_q"),
    # targets
    (
        (Q, K, V),
        {"targets": {"a": torch.zeros(6).long()}},
        r"targets\['a'\] has shape \[6\], expected \[5\], \[4, 5\] or \[2, 4, 5",
    ),
    (
        (Q, K, V),
        {"targets": {"a": torch.zeros(5).bool()}},
        r"targets\['a'\] has shape \[5\], expected \[7\].*each of the keys",
    ),
    (
        (Q, K, V),
        {"targets": {"a": torch.zeros(5)}},
        r"targets\['a'\] is torch.float32, expected int64 \(an index\) or bool",
    ),
    ((Q, K, V), {"targets": {"a": torch.zeros(5).long().to("meta")}}, r"targets\['a'\] is on meta, but q is on cpu"),
    (
        (Q, K, V),
        {"targets": {str(n): torch.zeros(7).bool() for n in range(17)}},
        "targets has 17 sets of keys, expected at",
    ),
]


@pytest.mark.parametrize(("rows", "options", "message"), REFUSED, ids=range(len(REFUSED)))
def test_arguments_that_do_not_fit_are_refused_by_name(rows, options, message):
    with pytest.raises(ValueError, match=message):
        attend(*rows, **options)


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"score": "cosine"},
        r"score is 'cosine', expected Dot\(\), Cosine\(temperature\) or SquaredDistance\(bandwidth\)",
    ),
    ({"normalizer": torch.softmax}, r"normalizer is .*, expected Softmax\(\) or Sigmoid\(\)"),
    ({"bias": torch.zeros(5, 7)}, r"bias is a tensor of shape \[5, 7\], expected ALiBi"),
    (
        {"mask": torch.ones(5, 7).bool()},
        r"mask is a tensor of shape \[5, 7\], expected what block_mask.*; block_mask\(lambda",
    ),
    ({"targets": [-1]}, "targets is list, expected a dictionary of names"),
    ({"targets": {"a": "previous"}}, r"targets\['a'\] is str, expected an offset \(int\), an index"),
    ({"targets": {"a": True}}, r"targets\['a'\] is bool, expected an offset"),
    ({"bias": ALiBi([1.0])}, "bias.slopes is list, expected a tensor"),  # pyright: ignore[reportArgumentType]
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_of_another_kind_is_refused_by_name(options, message):
    with pytest.raises(TypeError, match=message):
        attend(Q, K, V, **options)


def test_what_is_no_tensor_is_refused():
    rows: Any = [[1.0]]
    with pytest.raises(TypeError, match="attend: k is list, expected a tensor"):
        attend(Q, rows, V)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout_p": 0.1}, "dropout is not supported: .*dropout_p has to be 0"),
        (
            {"normalizer": Softmax(softcap=3.0), "bias": KeyBias(torch.zeros(7))},
            "a KeyBias with a softcap is not supported",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(options, message):
    with pytest.raises(NotImplementedError, match=message):
        attend(Q, K, V, **options)


def test_a_mask_of_packed_sequences_is_refused():
    with pytest.raises(NotImplementedError, match="a mask of packed sequences is not supported: cu_seqlens keeps them"):
        attend(P, PK, PK, mask=SEVEN, **GOOD)


def test_without_a_gpu_triton_gives_way_to_nothing():
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"attend: impl='triton' cannot run: .*a Triton kernel needs a GPU"):
            attend(Q, K, V, impl="triton")


def test_triton_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(dispatch, "_TRITON_IS_INSTALLED", False)
    with pytest.raises(RuntimeError, match="attend: impl='triton' cannot run: Triton is not installed"):
        attend(Q, K, V, impl="triton")


def test_heads_of_eight_are_taken():
    narrow = attend(Q[..., :8], K[..., :8], V, impl="blocked").out
    assert torch.equal(narrow, attend(Q[..., :8], K[..., :8], V).out)


@pytest.mark.parametrize("number", [0.0, -1.0, math.nan, math.inf])
def test_a_number_that_is_not_positive_is_refused(number):
    for make, name in ((Cosine, "Cosine: temperature"), (SquaredDistance, "SquaredDistance: bandwidth")):
        with pytest.raises(ValueError, match=f"{name} is .*, expected a positive number"):
            make(number)
    with pytest.raises(ValueError, match=r"Softmax: softcap is .*, expected a positive number"):
        Softmax(softcap=number)


DIVERGENCES: list[tuple[tuple[torch.Tensor, ...], dict[str, Any], str]] = [
    ((Q, K, Q, K), {"kind": "hellinger"}, "divergence: kind is 'hellinger', expected 'kl', 'js' or 'tv'"),
    ((Q, K, Q.double(), K.double()), {}, "divergence: other_q is torch.float64 on cpu, but q is torch.float32 on cpu"),
    ((Q, K, Q[:, :2], K), {}, r"divergence: q has shape .*, but other_q \[2, 2, 5, 16\] .* must be equally many"),
    ((Q, K, Q, K[:, :, :4]), {}, r"other_k \[2, 2, 4, 16\]: sequences, heads, queries and keys must be equally many"),
    ((Q, K[..., :8], Q, K), {}, "divergence: q has shape .* the last dimensions must be equal"),
    (
        (Q, K, Q, K),
        {"lse": (LSE, LSE[:, :2])},
        r"divergence: lse\[1\] has shape \[2, 2, 5\], expected \[2, 4, 5\]: \[batch, heads, queries\]",
    ),
    (
        (Q, K, Q, K),
        {"lse": (LSE.double(), LSE)},
        r"divergence: lse\[0\] is torch.float64 on cpu, expected torch.float32 on cpu",
    ),
    ((Q, K, Q, K), {"lse": (LSE, LSE.to("meta"))}, r"lse\[1\] is torch.float32 on meta, expected torch.float32 on cpu"),
    (
        (P, PK, P, PK),
        {"lse": (LSE, LSE), **GOOD},
        r"lse\[0\] has shape \[2, 4, 5\], expected \[4, 9\]: \[heads, total\]",
    ),
]


@pytest.mark.parametrize(("rows", "options", "message"), DIVERGENCES, ids=range(len(DIVERGENCES)))
def test_a_divergence_names_what_does_not_fit(rows, options, message):
    with pytest.raises(ValueError, match=message):
        divergence(*rows, **options)


@pytest.mark.parametrize("lse", [LSE, (LSE,), (LSE, None), (LSE, LSE, LSE), "lse"])
def test_a_divergence_takes_the_log_sum_exps_of_both_or_of_none(lse):
    with pytest.raises(TypeError, match=r"divergence: lse is .*, expected two tensors, the log-sum-exps of both"):
        divergence(Q, K, Q, K, lse=lse)


def test_merge_names_what_does_not_fit():
    part = attend(Q, K, V, statistics=("lse",))
    with pytest.raises(ValueError, match="merge: parts is empty"):
        merge([])
    with pytest.raises(
        ValueError, match=r"merge: parts\[1\] has no lse, expected attend\(…, statistics=\('lse', …\)\)"
    ):
        merge([part, attend(Q, K, V)])
    with pytest.raises(
        ValueError, match=r"merge: parts\[1\] has the output \[2, 4, 4, 24\], but parts\[0\] \[2, 4, 5, 24\]"
    ):
        merge([part, attend(Q[:, :, 1:], K, V, statistics=("lse",))])
    with pytest.raises(ValueError, match="merge: first_keys has 1 numbers for 2 parts"):
        merge([part, part], first_keys=[0])


MASKS: list[tuple[Any, str]] = [
    (lambda: block_mask(lambda b, h, i, j: i >= j, 5, 5, block=100), "block_mask: block is 100, expected 64 or 128"),
    (
        lambda: block_mask(lambda b, h, i, j: i >= j, -1, 5),
        "block_mask: queries is -1, expected a number that is not neg",
    ),
    (lambda: block_mask(lambda b, h, i, j: i - j, 5, 5), "the predicate returned torch.int64, expected a bool tensor"),
    (lambda: block_mask(lambda b, h, i, j: True, 5, 5), "the predicate returned bool, expected a bool tensor"),  # pyright: ignore[reportArgumentType]
    (lambda: documents(torch.zeros(3)), r"documents: ids is torch.float32 of shape \[3\], expected integers"),
    (lambda: documents(torch.zeros(1, 2, 3).long()), r"ids is torch.int64 of shape \[1, 2, 3\]"),
    (lambda: documents(torch.zeros(2, 3).long(), torch.zeros(3).long()), "they must have equally many sequences"),
    (lambda: BlockMask.from_state({"sizes": torch.tensor([5, 5, 64])}), "from_state: 'starts' is missing"),
]


@pytest.mark.parametrize(("make", "message"), MASKS, ids=range(len(MASKS)))
def test_a_mask_names_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_was_not_asked_is_none():
    result = attend(Q, K, V)
    assert all(value is None for value in result.stats)
    assert (result.out.dtype, result.out.shape) == (torch.float32, (2, 4, 5, 24))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_statistics_are_single_or_double_and_keys_are_int64(dtype):
    q, k, v = (x.to(dtype) for x in (Q, K, V))
    asked = ("lse", "entropy", "max", "argmax", "sum_p2", "expected_score", "received")
    result = attend(q, k, v, statistics=asked, topk=2, share=0.1, targets={"set": torch.arange(7) < 2, "next": 1})
    stats: Any = result.stats
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert result.out.dtype == dtype
    assert {getattr(stats, name).dtype for name in asked if name != "argmax"} == {wanted}
    assert {x.dtype for x in (*stats.targets.values(), stats.top_scores)} == {wanted}
    assert {x.dtype for x in (stats.argmax, stats.top_keys, stats.keys_above)} == {torch.int64}


def test_packed_statistics_have_no_batch():
    result = attend(P, PK, PK, statistics=("lse", "distance", "received"), targets={"first": 0}, **GOOD)
    stats: Any = result.stats
    assert result.out.shape == (9, 4, 16)
    assert {tuple(x.shape) for x in (stats.lse, *stats.distance, stats.targets["first"])} == {(4, 9)}
    assert stats.received.shape == (4, 12)


def test_a_longer_longest_sequence_changes_nothing():
    got, wanted = (attend(P, PK, PK, **GOOD, max_seqlen_q=longest, max_seqlen_k=longest).out for longest in (20, None))
    assert torch.equal(got, wanted)


def test_scores_and_normalizers_can_be_compared_and_shown():
    assert (Dot(), Cosine(0.5), Softmax()) == (Dot(), Cosine(0.5), Softmax())
    assert repr(Sigmoid(bias=-2.0)) == "Sigmoid(bias=-2.0)"


def test_importing_it_imports_no_triton_and_nothing_of_lamina():
    code = (
        "import sys, lamina_kernels.attention\n"
        "assert not {'triton', 'lamina'} & set(sys.modules), sorted({'triton', 'lamina'} & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
