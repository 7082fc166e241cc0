"""Composition of search spaces: ``include: tiny``, or ``include: [tiny, mine.yaml]``.

Included spaces are merged in their order, and the including space last:

- mappings are merged key by key: sections, and the groups of parameters of one family or loss;
- a choice, a range or a scalar replaces the old one as a whole (``width: [8, 16]`` does not add to the old widths),
  so that exactly the listed values are searched;
- ``key: null`` removes an included key;
- groups and conditions whose choice no longer exists are removed: ``family: [resnet]`` is enough to keep one of seven
  families.

Each file is complete before it is included: a key that it removes does not come back. Names of built-in spaces and
paths relative to the including file are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autodistill.core.errors import ConfigError
from autodistill.search.space.groups import is_group, prune

INCLUDE = "include"


def included(mapping: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """Return the names in a space's ``include``.

    Raises:
        ConfigError: the value is neither a name nor a list of names.
    """
    names = mapping.get(INCLUDE, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError([f"{INCLUDE}: expected a space's name or file, or a list of them, got {names!r}"], source)
    return tuple(names)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``above`` over ``below``, without the groups of ``below`` whose choice no longer exists.

    Groups of ``above`` itself are kept, so that a misspelt one is reported when the space is parsed.
    """
    laid = _lay(below, above)
    return _lay(prune(laid), _brought(above, below), removing=False)


def _brought(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``above`` without the keys that only remove something."""
    return {
        key: _brought(value, below[key]) if is_group(value) and is_group(below.get(key)) else value
        for key, value in above.items()
        if not (value is None and key in below)
    }


def _lay(below: Mapping[str, Any], above: Mapping[str, Any], *, removing: bool = True) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        if removing and value is None and key in below:
            del out[key]
        elif is_group(value) and is_group(out.get(key)):
            out[key] = _lay(out[key], value, removing=removing)
        else:
            out[key] = value
    return out
