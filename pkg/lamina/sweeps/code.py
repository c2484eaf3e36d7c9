"""What a function does, as a hash: it changes when the function, or what it calls, is edited."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module, metadata
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from lamina.sweeps.canonical import NotCanonicalError, digest

_SHARED = ("lamina.measures", "lamina.rows", "lamina_kernels")
"""What every measure stands on."""


def fingerprint(function: Callable[..., Any]) -> bytes:
    """Return 16 bytes that follow from the compiled code of a function and of what it refers to.

    Followed are functions, classes and plain values that it names, in its own file or others of the user's, and so on
    from there. Of Lamina it is the files of the rooms that it names, of installed packages their version, of the
    standard library nothing. Comments do not count. What is called by a name that the code does not hold (a method of
    an argument, `getattr` of a text) is not followed.

    Example:
        >>> from lamina import geometry, similarity
        >>> fingerprint(similarity.cka) == fingerprint(geometry.twonn), len(fingerprint(similarity.cka))
        (False, 16)
    """
    walk = _Walk()
    walk.function(function)
    rooms = {name: _room(name) for name in sorted({*walk.rooms, *_SHARED})}
    return digest([walk.found, rooms])


class _Walk:
    """What was found on the way: names and hashes, in the order in which the code leads to them."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bytes]] = []
        self.rooms: set[str] = set()
        self._seen: dict[int, Any] = {}

    def function(self, function: Any) -> None:
        name = f"{function.__module__}.{function.__qualname__}"
        if self._is_elsewhere(function.__module__) or not self._is_new(function):
            return
        self.found.append((name, _of_code(function.__code__)))
        self.value(f"{name} defaults", [function.__defaults__, function.__kwdefaults__])
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for free, cell in cells:
            try:
                self.value(f"{name} {free}", cell.cell_contents)
            except ValueError:  # a name that is not bound yet
                continue
        self._names(name, function.__code__, function.__globals__)

    def _names(self, name: str, code: CodeType, known: dict[str, Any]) -> None:
        for called in code.co_names:
            if called in known:
                self.value(f"{name} {called}", known[called])
                if isinstance(known[called], ModuleType):
                    self._of_module(known[called], code)
            elif (module := _imported(called, code)) is not None:
                self._of_module(module, code)
        for inner in _inner(code):
            self._names(name, inner, known)

    def _of_module(self, module: ModuleType, code: CodeType) -> None:
        # names of Lamina's face lead to its rooms
        if module.__name__ == "lamina" or not self._is_elsewhere(module.__name__):
            for called in code.co_names:
                if called in vars(module):
                    self.value(f"{module.__name__}.{called}", vars(module)[called])

    def value(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType):
            self._is_elsewhere(value.__name__)
        elif isinstance(value, FunctionType):
            self.function(value)
        elif isinstance(value, type):
            self._class(value)
        else:
            wrapped = getattr(value, "__wrapped__", None) or getattr(value, "__func__", None)
            if isinstance(wrapped, FunctionType):
                self.function(wrapped)
                return
            try:
                self.found.append((name, digest(value)))
            except NotCanonicalError:
                self.found.append((name, str(type(value)).encode()))

    def _class(self, one: type) -> None:
        name = f"{one.__module__}.{one.__qualname__}"
        if self._is_elsewhere(one.__module__) or not self._is_new(one):
            return
        self.found.append((name, b"class"))
        for base in one.__bases__:
            self._class(base)
        for member, value in vars(one).items():
            if not member.startswith("__") or member in ("__init__", "__call__", "__post_init__"):
                for each in (value.fget, value.fset) if isinstance(value, property) else (value,):
                    self.value(f"{name}.{member}", each)

    def _is_new(self, one: Any) -> bool:
        """Whether a function or class is met for the first time."""
        if id(one) in self._seen:
            return False
        self._seen[id(one)] = one
        return True

    def _is_elsewhere(self, module: str) -> bool:
        """Whether a module is none of the user's; then what it says of itself is kept."""
        top = module.split(".")[0]
        if top in ("lamina", "lamina_kernels"):
            if module != "lamina":
                self.rooms.add(".".join(module.split(".")[:2]) if top == "lamina" else top)
            return True
        if top in sys.stdlib_module_names:
            return True
        if _is_installed(top):
            self.found.append((top, _version(top).encode()))
            return True
        return False


def _of_code(code: CodeType) -> bytes:
    constants = [each for each in code.co_consts if not isinstance(each, CodeType)]
    inner = [_of_code(each) for each in _inner(code)]
    return digest([code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags, constants, inner])


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _imported(name: str, code: CodeType) -> ModuleType | None:
    """Return the module that a function imports under a name while it runs."""
    if name in sys.modules:
        return sys.modules[name]
    if "." not in name:
        return None
    try:
        return import_module(name)
    except ImportError:
        return None


@lru_cache(maxsize=256)
def _is_installed(top: str) -> bool:
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    places = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    return any(place in Path(file).resolve().parents for place in places)


@lru_cache(maxsize=256)
def _version(top: str) -> str:
    """Return what a package says of its version."""
    own = getattr(sys.modules.get(top), "__version__", None)
    try:
        return str(own or metadata.version(top))
    except metadata.PackageNotFoundError:
        return ""


@lru_cache(maxsize=256)
def _room(name: str) -> bytes:
    """Return a hash of the Python files of a package of Lamina, or of a module."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    if file is None:
        return b""
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    hasher = blake2b(digest_size=16)
    for each in files:
        data = each.read_bytes() if each.is_file() else b""
        hasher.update(f"{each.relative_to(file.parent)} {len(data)}\n".encode() + data)
    return hasher.digest()
