"""Globs over dotted names: sites, modules, parameters.

`*` matches within one component, and never a dot; `**` as a component matches any number of components,
also none. Brackets are not special: `attn.output[0]` names the first element of an output, and a dot
inside brackets divides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lamina.errors import NotFoundError, SchemaError
from lamina.runs.nearest import nearest_names

# What a component is made of: characters that divide nothing, and whole brackets.
_PIECE = r"(?:[^.\[\]]|\[[^\[\]]*\])"
_COMPONENT = f"{_PIECE}+"


def matches(pattern: str, name: str) -> bool:
    """Tell whether a glob matches a dotted name.

    Args:
        pattern: A name in which `*` stands for any part of one component and `**` for any number of them.
        name: The name.

    Returns:
        Whether the whole name matches.

    Example:
        >>> from lamina.runs.globs import matches
        >>> matches("blocks.*.output", "blocks.0.output"), matches("blocks.*.output", "blocks.0.mlp.output")
        (True, False)
        >>> matches("**.output", "output"), matches("**.output", "blocks.0.mlp.output")
        (True, True)
    """
    return _compiled(pattern).fullmatch(name) is not None


def select(patterns: str | Sequence[str], names: Iterable[str], *, what: str = "site") -> list[str]:
    """Return the names that any of the globs match, in the order of `names`.

    Args:
        patterns: One glob or several.
        names: The names that exist.
        what: What the names are, for the error.

    Returns:
        The names that match, each once.

    Raises:
        NotFoundError: A glob matches nothing; the hint lists the nearest names.
        SchemaError: The globs are no texts.

    Example:
        >>> from lamina.runs.globs import select
        >>> select(["loss", "*.output"], ["fc.input", "fc.output", "loss"])
        ['fc.output', 'loss']
    """
    names = list(dict.fromkeys(names))
    chosen: set[str] = set()
    given = list(patterns) if isinstance(patterns, Iterable) and not isinstance(patterns, str) else [patterns]
    for pattern in given:
        if not isinstance(pattern, str):
            raise SchemaError(f"a {what} is called {pattern!r}", hint="give a name or a glob, or several: texts")
        found = [name for name in names if matches(pattern, name)]
        if not found:
            hint = nearest_names(pattern, names)
            hint += "; * stands for one part between dots, ** for any number" if pattern in ("*", "**") else ""
            raise NotFoundError(f"no {what} matches {pattern!r}", hint=hint)
        chosen.update(found)
    return [name for name in names if name in chosen]


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    components = _components(pattern)
    text = ""
    joined = True  # whether the next component stands at the start or right after a dot
    for at, component in enumerate(components):
        if component != "**":
            text += ("" if joined else r"\.") + _translate(component)
            joined = False
        elif at == len(components) - 1:
            many = rf"(?:\.{_COMPONENT})*"
            text += f"(?:{_COMPONENT}{many})?" if joined else many
        else:
            text += rf"(?:{_COMPONENT}\.)*" if joined else rf"(?:\.{_COMPONENT})*"
    return re.compile(text, re.DOTALL)


def _components(pattern: str) -> list[str]:
    components = [""]
    depth = 0
    for character in pattern:
        depth += (character == "[") - (character == "]")
        if character == "." and depth <= 0:
            components.append("")
        else:
            components[-1] += character
    return components


def _translate(component: str) -> str:
    if component == "*":
        return _COMPONENT
    parts = re.split(r"(\*+)", component)
    return "".join(f"{_PIECE}*" if part.startswith("*") else re.escape(part) for part in parts)
