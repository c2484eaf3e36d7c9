from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_kernels.attention import BlockMask, attend, block_mask, documents
from tests.faults import broken
from tests.kernels import attention_faults as _  # noqa: F401
from tests.kernels.hsic_checks import normal


def predicate(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Stripes, one block that is whole, one that is empty, and the highest bit of a word of bits."""
    return ((i * 3 + j * 5 + b - h) % 11 < 4) & (j < 100) | ((i < 64) & (j >= 128)) | (j == 31)


def bits_are_what_the_predicate_said(queries: int, keys: int, sequences: int, heads: int, block: int) -> None:
    mask = block_mask(predicate, queries, keys, sequences=sequences, heads=heads, block=block)
    b, h, i, j = torch.meshgrid(*(torch.arange(n) for n in (sequences, heads, queries, keys)), indexing="ij")
    seen = predicate(b, h, i, j)
    assert torch.equal(mask.dense(), seen)
    assert torch.equal(mask.sees(i.flatten(2), j.flatten(2)).view(seen.shape), seen)
    # The lists of either side hold the same blocks, rising: whole ones at even places, those seen in part at odd ones.
    assert mask.starts.shape[2] == 2 * -(-queries // block) + 1
    assert mask.key_starts.shape[2] == 2 * -(-keys // block) + 1
    sides = []
    for starts, blocks, partials in (
        (mask.starts, mask.blocks, mask.partial),
        (mask.key_starts, mask.key_blocks, mask.key_partial),
    ):
        found = set()
        for item, head, line in itertools.product(range(sequences), range(heads), range(starts.shape[2] - 1)):
            entries = range(*starts[item, head, line : line + 2].tolist())
            listed = [(int(blocks[e]), int(partials[e])) for e in entries]
            assert listed == sorted(listed)
            assert all((partial >= 0) == line % 2 for _other, partial in listed)
            found |= {(item, head, line // 2, other, partial) for other, partial in listed}
        sides.append(found)
    by_query, by_key = sides[0], {(item, head, row, column, p) for item, head, column, row, p in sides[1]}
    assert by_query == by_key
    # A block is listed if a pair of it is seen, and has bits if a pair of it is not.
    for item, head, row, column, partial in by_query:
        pairs = seen[item, head, row * block : (row + 1) * block, column * block : (column + 1) * block]
        assert pairs.any()
        assert (partial < 0) == bool(pairs.all())
    assert len(by_query) == sum(
        bool(c.any()) for m in seen.flatten(0, 1) for r in m.split(block) for c in r.split(block, 1)
    )


@pytest.mark.parametrize(
    ("queries", "keys", "sequences", "heads", "block"), [(130, 200, 1, 2, 64), (64, 256, 2, 1, 64), (1, 129, 2, 3, 128)]
)
def test_bits_are_what_the_predicate_said(queries, keys, sequences, heads, block):
    bits_are_what_the_predicate_said(queries, keys, sequences, heads, block)


@pytest.mark.parametrize("name", ["attention_mask_forgets_its_bits", "attention_mask_lists_keys_by_query"])
def test_a_fault_in_the_bits_is_noticed(name):
    with broken(name), pytest.raises(AssertionError):
        bits_are_what_the_predicate_said(130, 200, 1, 2, 64)


def documents_see_themselves(ids: torch.Tensor) -> None:
    assert torch.equal(
        documents(ids, block=64).dense()[:, 0], ids[..., :, None].eq(ids[..., None, :]).view(-1, *[len(ids.T)] * 2)
    )


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 200), most=st.integers(1, 9), ordered=st.booleans(), seed=st.integers(0, 99))
def test_documents_see_themselves(n, most, ordered, seed):
    ids = torch.randint(0, most, (2, n), generator=torch.Generator().manual_seed(seed))
    documents_see_themselves(ids.sort(1)[0] if ordered else ids)


def test_documents_visit_the_blocks_of_their_own_alone():
    mask = documents(torch.arange(1024) // 128, block=64)
    assert mask.seen_blocks == 8 * 4
    assert mask.bits.numel() == 0


def test_ids_may_be_any_integers():
    documents_see_themselves(torch.tensor([[2**63 - 1, 2**63 - 1, 2**63 - 2, -(2**63)] * 40]))


def test_queries_have_documents_of_their_own():
    mask = documents(torch.tensor([7, 7, 8]), torch.tensor([8, 7, 7, 9]), block=64)
    assert mask.dense()[0, 0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]


def test_a_mask_survives_being_saved(tmp_path):
    mask = block_mask(predicate, 130, 200, heads=2, block=64)
    torch.save(mask.state(), tmp_path / "mask.pt")
    back = BlockMask.from_state(torch.load(tmp_path / "mask.pt", weights_only=True))
    assert torch.equal(back.dense(), mask.dense())
    assert back.key_starts.dtype == torch.int32
    q, k, v = normal(1, 2, 130, 16, seed=0), normal(1, 2, 200, 16, seed=1), normal(1, 2, 200, 16, seed=2)
    assert torch.equal(attend(q, k, v, mask=back).out, attend(q, k, v, mask=mask).out)


def test_a_mask_of_one_list_a_block_is_refused():
    state = block_mask(predicate, 130, 200, block=64).state()
    with pytest.raises(ValueError, match=r"'starts' has shape \[1, 1, 4\], expected .* \[B, H, 7\]"):
        BlockMask.from_state(state | {"starts": state["starts"][..., ::2]})


def test_a_mask_can_be_looked_at():
    mask = block_mask(lambda b, h, i, j: (i >= j) & (j < 128), 192, 256, block=64)
    assert str(mask) == "192 queries x 256 keys in blocks of 64: 5 of 12 seen\n+...\n#+..\n##.."
    large = str(block_mask(lambda b, h, i, j: i >= j, 64 * 65, 64 * 65, block=64)).splitlines()
    assert len(large) == 1 + 33
    assert large[1].startswith("+..")


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_a_mask_of_nothing_is_empty(queries, keys):
    mask = block_mask(predicate, queries, keys)
    assert mask.dense().shape == (1, 1, queries, keys)
    assert mask.seen_blocks == 0
    assert documents(torch.zeros(queries).long(), torch.zeros(keys).long()).dense().shape == (1, 1, queries, keys)
