from __future__ import annotations

from lamina.runs.scan.cells import Cells
from lamina.runs.scan.features import Features
from lamina.runs.scan.groups import Group
from lamina.runs.scan.scan import Scan
from lamina.runs.scan.types import COLUMN_TYPES, site_type

__all__ = ["COLUMN_TYPES", "Cells", "Features", "Group", "Scan", "site_type"]
