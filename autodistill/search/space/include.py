"""How a search space is made of others: ``include: tiny``, or ``include: [tiny, mine.yaml]``.

Included spaces are laid over each other in their order, and the including space over them all:

- mappings are merged key by key: sections, and the groups of parameters of one family or loss;
- a choice, a range or a scalar replaces the old one as a whole (``width: [8, 16]`` does not add to the old widths),
  so that what is written is what is searched;
- ``key: null`` takes an included key out;
- groups and conditions that no choice leads to any more go: ``family: [resnet]`` over seven families is all it takes.

Each file is whole before it is included: what it leaves out does not come back. Names of built-in spaces and paths
relative to the including file are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autodistill.core.errors import ConfigError
from autodistill.search.space.groups import is_group, prune_groups

INCLUDE = "include"


def included(mapping: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The names in a space's ``include``.

    Raises:
        ConfigError: it is neither a name nor a list of names.
    """
    names = mapping.get(INCLUDE, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError([f"{INCLUDE}: expected a space's name or file, or a list of them, got {names!r}"], source)
    return tuple(names)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, without the groups of ``below`` that no choice leads to any more.

    Groups that ``above`` brings itself stay, so that a misspelt one is reported when the space is read.
    """
    laid = _lay(below, above)
    pruned = {key: prune_groups(value) if isinstance(value, Mapping) else value for key, value in laid.items()}
    return _lay(pruned, _brought(above, below))


def _brought(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` without the keys that only take something out."""
    return {
        key: _brought(value, below[key]) if is_group(value) and is_group(below.get(key)) else value
        for key, value in above.items()
        if not (value is None and key in below)
    }


def _lay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        if value is None and key in below:
            del out[key]
        elif is_group(value) and is_group(out.get(key)):
            out[key] = _lay(out[key], value)
        else:
            out[key] = value
    return out
