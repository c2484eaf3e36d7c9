from __future__ import annotations

from typing import Any

import torch

from lamina_kernels.attention import attend, gather_parts, merge
from tests.kernels.attention_checks import FIRST, close, tensors
from tests.kernels.hsic_checks import normal


def test_parts_of_two_ranks_merge_to_the_whole(monkeypatch):
    q, k, v = (normal(1, 2, n, 16, seed=n) for n in (6, 20, 20))
    q.requires_grad_()
    asked: dict[str, Any] = {"statistics": FIRST, "topk": 2, "align": "top-left"}
    hit = torch.arange(20) % 3 == 0
    cuts = slice(0, 12), slice(12, 20)
    own, far = (attend(q, k[:, :, c], v[:, :, c], targets={"set": hit[c]}, **asked) for c in cuts)
    # The other rank sends its tensors in the order of this one's.
    order = [id(x) for x in tensors((own.stats, own.out))]
    sent = dict(zip(order, tensors((far.stats, far.out)), strict=True))
    sending = iter([sent[key].detach() for key in order])

    def all_gather(received: list[torch.Tensor], tensor: torch.Tensor, group: Any) -> None:
        received[0].copy_(tensor)
        received[1].copy_(next(sending))

    for name, value in (("get_world_size", lambda group: 2), ("get_rank", lambda group: 0), ("all_gather", all_gather)):
        monkeypatch.setattr(torch.distributed, name, value)
    parts = gather_parts(far._replace(out=own.out, stats=own.stats))
    got, wanted = merge(parts, first_keys=[0, 12]), attend(q, k, v, targets={"set": hit}, **asked)
    close(got, wanted)
    # Each rank differentiates its own part; both sum to the gradient of the whole.
    mine = torch.autograd.grad(got.out.sum(), q, retain_graph=True)[0]
    whole = torch.autograd.grad(wanted.out.sum(), q)[0]
    both = torch.autograd.grad(merge([own, far]).out.sum(), q)[0]
    torch.testing.assert_close(both, whole, rtol=1e-4, atol=1e-5)
    assert mine.any()
    assert not torch.allclose(mine, whole)
