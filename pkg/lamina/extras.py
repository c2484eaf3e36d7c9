"""Optional dependencies: imported where they are needed, named where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from lamina.errors import MissingExtraError


def need(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Its import name, dotted or not.
        extra: The extra of the distribution `lamina` that installs it.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed; the hint says how to install it. A dependency that is there
            but fails to import raises its own error.

    Example:
        >>> from lamina.extras import need
        >>> need("json", extra="report").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise MissingExtraError(
            f"this needs the package {error.name}, which is not installed",
            hint=f"pip install 'lamina[{extra}]'",
        ) from error
