"""The tiles that the kernels of attention visit, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernels.forms import Form


def _visits(*arguments: Any, impl: str) -> Any:
    from tests.kernels.attention_walks import visits

    return visits(*arguments)


def _every_tile_is_visited_once_and_no_other(op: Any) -> None:
    from tests.kernels.attention_walks import every_tile_is_visited_once_and_no_other

    every_tile_is_visited_once_and_no_other(op)


TRITON = Form(_visits, "triton", {}, "interpreter")


def test_every_tile_is_visited_once_and_no_other():
    TRITON.run(_every_tile_is_visited_once_and_no_other)


@pytest.mark.parametrize(
    "fault",
    [
        "attention_kernel_takes_edges_for_full",
        "attention_kernel_takes_whole_blocks_for_full",
        "attention_kernel_visits_all_that_is_listed",
    ],
)
def test_a_fault_is_noticed(fault):
    with pytest.raises(AssertionError):
        TRITON.run(_every_tile_is_visited_once_and_no_other, fault=fault)
