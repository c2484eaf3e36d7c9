"""Metrics that were found in a step, on their way to the writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Found:
    """Metrics of one step.

    Attributes:
        at: Vectors by name, an entry for each of the sites.
        whole: Single numbers by name, of the whole model.
        sites: The sites.
    """

    at: dict[str, torch.Tensor] = field(default_factory=dict)
    whole: dict[str, Any] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
