"""Problems of a configuration as sentences: file and line, key, value given, allowed values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import nearest
from autodistill.core.teacher_choice import INPUT

if TYPE_CHECKING:
    from pydantic import ValidationError

Path_ = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
    "model_type": "text or a mapping",
    "tuple_type": "a list, or text with commas",
}
_OPTIONS = (*INPUT, "model", "epochs", "pretrained")
"""Options of a teacher that look like keys of its section; the last three are options of ``auto``."""

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True)
class Problem:
    """One problem of a configuration.

    Attributes:
        line: Line of the file, from 1; 0 if it is not in a file.
        text: The problem as a sentence.
    """

    line: int
    text: str


@dataclass(frozen=True)
class Sources:
    """Origin of the keys of a configuration.

    Attributes:
        name: The file, or a description of keywords and flags.
        lines: Dotted key to its line in the file.
        folder: Folder that relative paths refer to.
        is_file: Whether ``name`` is a file, with lines.
        flags: Dotted key to the flag that set it.
    """

    name: str
    lines: Mapping[str, int] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)
    is_file: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)

    def with_flags(self, flags: Mapping[str, str]) -> Sources:
        """Return the same origin with the flags that set keys."""
        return replace(self, flags=dict(flags))

    def problem(self, path: Path_, text: str) -> Problem:
        """Return a problem of the key at ``path``: ``study.yaml:3: data.root: …`` or ``--data-root: …``."""
        keys = [".".join(str(part) for part in path[:length]) for length in range(len(path), 0, -1)]
        for key in keys:
            if key in self.flags:
                return Problem(0, f"{self.flags[key]}: {text}")
        line = next((self.lines[key] for key in keys if key in self.lines), 0)
        place = f"{self.name}:{line}: " if line else f"{self.name}: " if self.is_file else ""
        return Problem(line, f"{place}{keys[0]}: {text}")


def explain(
    error: ValidationError, allowed_keys: Callable[[Path_], tuple[str, ...]], sources: Sources
) -> list[Problem]:
    """Convert the problems found by pydantic to sentences.

    Args:
        error: Error of pydantic.
        allowed_keys: Returns the keys that are allowed in the section at a path.
        sources: Origin of the keys.
    """
    found = error.errors(include_url=False, include_context=True)
    misspelt = {tuple(one["loc"])[:-1]: str(one["loc"][-1]) for one in found if one["type"] == "extra_forbidden"}
    problems = []
    for one in found:
        path: Path_ = tuple(one["loc"])
        if one["type"] == "missing" and nearest(misspelt.get(path[:-1], ""), [str(path[-1])]):
            continue  # the missing key was misspelt, which is already reported
        texts = _sentences(one["type"], path, one.get("input"), one.get("ctx", {}), one["msg"], allowed_keys)
        problems += [sources.problem(path, text) for text in texts]
    return problems


def to_lines(problems: Sequence[Problem]) -> list[str]:
    """Return the sentences in the order of the file."""
    return [one.text for one in sorted(problems, key=lambda one: one.line)]


def _sentences(
    kind: str,
    path: Path_,
    got: Any,
    context: Mapping[str, Any],
    message: str,
    allowed_keys: Callable[[Path_], tuple[str, ...]],
) -> list[str]:
    if kind == "extra_forbidden" and path[0] == "teacher" and path[-1] in _OPTIONS:
        return [f"this is an option of the teacher; write teacher.options.{path[-1]}"]
    if kind == "extra_forbidden":
        return [unknown_key(str(path[-1]), allowed_keys(path[:-1]))]
    if kind == "missing":
        return ["missing; set a value"]
    if kind == "value_error":
        return str(context.get("error", message)).split("\n")
    if kind == "literal_error":
        return [_choice(got, str(context.get("expected", "")))]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return [f"got {got!r}; it must be {words} {context.get(name)}"]
    if kind == "string_too_short":
        return ["empty; set a value"]
    if kind in _EXPECTED:
        return [f"expected {_EXPECTED[kind]}, got {got!r}"]
    return [f"got {got!r}; {message[:1].lower()}{message[1:]}"]


def unknown_key(key: str, allowed: tuple[str, ...]) -> str:
    """Return ``unknown key; did you mean 'source'? allowed: …`` with the nearest names first."""
    close = nearest(key, allowed)
    rest = [name for name in allowed if name not in close]
    meant = f" did you mean {close[0]!r}?" if close else ""
    return f"unknown key;{meant} allowed: {', '.join([*close, *rest])}"


def _choice(got: Any, expected: str) -> str:
    allowed = [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
    close = nearest(got, allowed)
    meant = f" did you mean {close[0]!r}?" if close else ""
    return f"got {got!r};{meant} allowed: {', '.join([*close, *(a for a in allowed if a not in close)])}"
