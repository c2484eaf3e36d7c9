"""A run's configuration as JSON text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lamina.errors import SchemaError


def to_json(config: Mapping[str, Any]) -> str:
    """The text of a JSON object.

    Raises:
        SchemaError: Something in it is not JSON; the message names where.
    """
    if not isinstance(config, Mapping):
        raise SchemaError(f"the config is a {type(config).__name__}", hint="give a mapping")
    return json.dumps(_plain(config, "config"))


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise SchemaError(f"{path} has the key {bad[0]!r}", hint="the keys of a config are texts")
        return {key: _plain(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise SchemaError(
        f"{path} is {value!r} of type {type(value).__name__}",
        hint="a config holds texts, finite numbers, booleans, None, lists and mappings",
    )
