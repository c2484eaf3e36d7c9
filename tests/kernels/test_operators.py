"""What is true of all operators."""

from __future__ import annotations

import subprocess
import sys

CALLS = """
import sys

import torch
from lamina_kernels.attention import attend, divergence
from lamina_kernels.gram import RBF, count, hsic, nearest, product
from lamina_kernels.sparse import TopK, decode, encode, reconstruction
{before}
x = torch.randn(20, 4, requires_grad=True)
codes = encode(x, x.detach(), select=TopK(3)).codes
losses = [
    attend(x[None, None], x[None, None], statistics=("entropy", "received")).stats.entropy,
    divergence(*[x[None, None]] * 4, kind="js").value,
    product(x, None, x, kernel=RBF(1.0)),
    nearest(x, None, 2).distances,
    hsic(x, x.detach(), kernel_x=RBF(1.0), kernel_y=RBF(1.0)),
    decode(codes, x),
    reconstruction(codes, x.detach(), x).loss,
]
count(x.detach(), None, 1.0)
sum(loss.sum() for loss in losses).backward()
assert "torch._dynamo" not in sys.modules, "torch's compiler was imported"
"""


def run(before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CALLS.format(before=before)], capture_output=True, text=True, timeout=120, check=False
    )


def test_no_call_and_no_gradient_imports_the_compiler() -> None:
    """It takes 3 seconds and 160 MiB."""
    done = run()
    assert done.returncode == 0, done.stderr


def test_that_test_notices_the_compiler() -> None:
    done = run("""
plain = torch.library.custom_op("tests::plain", lambda x: x + 1, mutates_args=(), schema="(Tensor x) -> Tensor")
plain(torch.ones(1))
""")
    assert "torch's compiler was imported" in done.stderr
