"""The values that a builder reads beside its parameters: globals, closures, defaults. They may come from anywhere.

A multiplier that is read from the environment or the command line changes the network, and no text of the builder.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

_LONGEST = 10_000  # characters of a value's text; whatever takes more is data rather than a setting


def values_of(function: Callable[..., Any], is_own: Callable[[str], bool]) -> list[str]:
    """What ``function`` reads, and the functions and classes of its own modules that it names, as sorted lines.

    Args:
        function: a builder.
        is_own: says of the name of a module whether its functions are looked into.
    """
    seen: set[int] = set()
    lines: set[str] = set()
    waiting: list[tuple[str, Any]] = [("", function)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, FunctionType | type | functools.partial):
            partial = isinstance(value, functools.partial)
            if id(value) not in seen and (value is function or partial or is_own(value.__module__)):
                seen.add(id(value))
                waiting += _read_by(value)
        elif not isinstance(value, ModuleType) and (text := _as_text(value)):
            lines.add(f"{name} = {text}")
    return sorted(lines)


def _read_by(value: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of everything that a function, a class or a partial function reads."""
    if isinstance(value, functools.partial):
        yield from [("function", value.func), ("arguments", value.args), *value.keywords.items()]
    elif isinstance(value, type):
        yield from [(base.__name__, base) for base in value.__bases__]
        for name, one in vars(value).items():
            if not name.startswith("__") or isinstance(one, FunctionType):
                yield f"{value.__name__}.{name}", getattr(one, "__func__", one)
    else:
        yield from _read_by_function(value)


def _read_by_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    names = _names(function.__code__)
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        yield name, value
        if isinstance(value, ModuleType):  # settings.WIDTH: both are names of the code
            yield from ((f"{name}.{one}", vars(value)[one]) for one in names & vars(value).keys())
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that has no value yet
            yield name, cell.cell_contents
    yield "defaults", [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]


def _names(code: CodeType) -> set[str]:
    """The global names of a function and of those inside it."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return {*code.co_names, *(name for one in inner for name in _names(one))}


def _as_text(value: Any) -> str:
    """The value as the same text in every process; empty where it has none."""
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    try:
        text = repr(value)
    except Exception:  # somebody else's method
        return ""
    return text if len(text) <= _LONGEST and " at 0x" not in text else ""
