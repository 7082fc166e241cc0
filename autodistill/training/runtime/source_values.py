"""Values that a builder reads besides its parameters: globals, closures and defaults.

They may change the network without a change of the builder's text, e.g. a multiplier that is read from the environment
or the command line.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

_LONGEST = 10_000  # characters of a value's text; a longer value is data rather than a setting


def values_of(function: Callable[..., Any], is_own: Callable[[str], bool]) -> list[str]:
    """Return the values that a function reads, as sorted lines ``name = value``.

    Functions and classes of its own modules are followed, so that the values they read are included.

    Args:
        function: a builder.
        is_own: returns whether functions of the module with that name are followed.
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
    """Yield name and value of everything that a function, a class or a partial function reads."""
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
        if isinstance(value, ModuleType):  # for settings.WIDTH, the code object lists both names
            yield from ((f"{name}.{one}", vars(value)[one]) for one in names & vars(value).keys())
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # the cell has no value yet
            yield name, cell.cell_contents
    yield "defaults", [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]


def _names(code: CodeType) -> set[str]:
    """Return the global and attribute names used by a code object and by the functions nested in it."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return {*code.co_names, *(name for one in inner for name in _names(one))}


def _as_text(value: Any) -> str:
    """Return a text of the value that is the same in every process; empty if there is none."""
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    try:
        text = repr(value)
    except Exception:  # __repr__ is user code and may raise anything
        return ""
    return text if len(text) <= _LONGEST and " at 0x" not in text else ""
