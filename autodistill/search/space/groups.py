"""Groups of a search space: nested mappings that are active if a sibling parameter has a certain value.

Input and output are plain mappings; optuna is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAF = {"low", "high", "step", "log", "values", "value", "when", "weights", "prior", "spread"}
"""Keys of a parameter that is written as a mapping."""


def prune_groups(node: Any) -> Any:
    """Drop groups and ``when`` values whose choice no sibling offers any more, after a restriction."""
    if not isinstance(node, Mapping):
        return node
    offered = {str(choice) for value in node.values() for choice in leaf_choices(value)}
    out: dict[str, Any] = {}
    for key, value in node.items():
        if is_group(value):
            if str(key) in offered:
                out[key] = prune_groups(value)
        else:
            kept = _prune_when(value, node)
            if kept is not None:
                out[key] = kept
    return out


def _prune_when(value: Any, siblings: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping) or "when" not in value:
        return value
    when = {}
    for key, allowed in value["when"].items():
        listed = allowed if isinstance(allowed, (list, tuple)) else [allowed]
        if key in siblings:
            listed = [choice for choice in listed if choice in leaf_choices(siblings[key])]
        if not listed:
            return None
        when[key] = listed
    return {**value, "when": when}


def is_group(value: Any) -> bool:
    """Return whether a value is a group of parameters, and not one parameter written as a mapping."""
    return isinstance(value, Mapping) and not (set(value) & LEAF)


def leaf_choices(value: Any) -> list[Any]:
    """Return the values that a parameter lists; empty for a range."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("values"), (list, tuple)):
            return list(value["values"])
        return [value["value"]] if "value" in value else []
    return [value]
