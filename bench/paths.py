"""Where benchmarks read and write."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

RESULTS = ROOT / "bench" / "results"

SCRATCH = ROOT / "target" / "bench"
"""A folder that a benchmark may empty."""

OURS = Path(sys.executable)

PEERS = ROOT / ".venv-peers" / "bin" / "python"
