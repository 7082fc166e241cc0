"""Groups of a search space: nested mappings that are active if a sibling parameter has a certain value.

Input and output are plain mappings; optuna is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

SECTIONS = ("student", "distillation", "train")
"""Sections of a space and of a candidate."""

LEAF = {"low", "high", "step", "log", "values", "value", "when", "otherwise", "weights", "prior", "spread"}
"""Keys of a parameter that is written as a mapping."""


def prune(space: Mapping[str, Any], *, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Drop groups and ``when`` values whose choice no parameter offers any more, after a restriction or a merge.

    A parameter whose condition cannot hold any more is replaced by its ``otherwise``, or dropped. Each drop may make
    further conditions impossible, in any section. A condition on a name that the space never had is kept, so that it is
    reported when the space is parsed.

    Args:
        space: the space.
        before: the space before parameters were taken out of it, whose names count as known; by default ``space``.
    """
    known = frozenset(_leaves(before or space))
    now = dict(space)
    while True:
        leaves = _leaves(now)
        pruned = {
            key: _pruned(value, key, leaves, known) if key in SECTIONS and isinstance(value, Mapping) else value
            for key, value in now.items()
        }
        if pruned == now:
            return pruned
        now = pruned


def named(reference: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that a full reference stands for.

    This is the name itself if it exists. Otherwise ``student.variant`` stands for every parameter of the section that
    gives the candidate's setting ``variant``, in whichever group it is.
    """
    listed = list(names)
    if reference in listed:
        return (reference,)
    section, _, key = reference.partition(".")
    same = [name for name in listed if name.partition(".")[0] == section and name.rpartition(".")[2] == key]
    return tuple(dict.fromkeys(same))


def is_group(value: Any) -> bool:
    """Return whether a value is a group of parameters, and not one parameter written as a mapping."""
    return isinstance(value, Mapping) and not (set(value) & LEAF)


def leaf_choices(value: Any) -> list[Any]:
    """Return the values that a parameter lists, with its ``otherwise``; empty for a range."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, Mapping):
        return [value]
    listed = list(value["values"]) if isinstance(value.get("values"), (list, tuple)) else []
    return [*listed, *(value[key] for key in ("value", "otherwise") if key in value)]


def _pruned(node: Mapping[str, Any], path: str, leaves: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    offered = {str(choice) for value in node.values() if not is_group(value) for choice in leaf_choices(value)}
    out: dict[str, Any] = {}
    for key, value in node.items():
        if is_group(value):
            if str(key) in offered:
                out[key] = _pruned(value, f"{path}.{key}", leaves, known)
        elif not isinstance(value, Mapping) or not isinstance(value.get("when"), Mapping):
            out[key] = value
        elif (when := _possible(value["when"], path, leaves, known)) is not None:
            out[key] = {**value, "when": when}
        elif "otherwise" in value:
            out[key] = value["otherwise"]
    return out


def _possible(
    when: Mapping[str, Any], path: str, leaves: Mapping[str, Any], known: frozenset[str]
) -> dict[str, Any] | None:
    """Return a condition without impossible values; ``None`` if it cannot hold."""
    out: dict[str, Any] = {}
    for key, allowed in when.items():
        listed = list(allowed) if isinstance(allowed, (list, tuple)) else [allowed]
        names = _meant(str(key), path, known)
        if names:
            listed = [choice for choice in listed if any(_offers(leaves[n], choice) for n in names if n in leaves)]
        if not listed:
            return None
        out[key] = listed
    return out


def _meant(key: str, path: str, known: frozenset[str]) -> tuple[str, ...]:
    """Return the parameters that a key of ``when`` names: beside or above it, or by a full name."""
    if "." in key:
        return named(key, sorted(known))
    while path:
        if f"{path}.{key}" in known:
            return (f"{path}.{key}",)
        path = path.rpartition(".")[0]
    return ()


def _offers(leaf: Any, choice: Any) -> bool:
    if choice in leaf_choices(leaf):
        return True
    if not isinstance(leaf, Mapping) or not isinstance(choice, (int, float)):
        return False
    low, high = leaf.get("low"), leaf.get("high")
    return isinstance(low, (int, float)) and isinstance(high, (int, float)) and low <= choice <= high


def _leaves(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter and constant of a space as it is written, by its dotted path."""

    def walk(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if is_group(value):
                yield from walk(f"{path}.{key}", value)
            else:
                yield f"{path}.{key}", value

    sections = ((key, space[key]) for key in SECTIONS if isinstance(space.get(key), Mapping))
    return {name: leaf for key, node in sections for name, leaf in walk(key, node)}
