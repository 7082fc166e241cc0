"""Strict YAML for study files and search spaces.

Only the plain types of YAML 1.2 are read (null, true/false, decimal numbers including ``1e-3``, text), so ``no``,
``010``, ``1:30`` and ``2024-01-01`` stay text. Duplicate keys, tags, merge keys, numbers that are not finite, aliases
that expand without bound and documents that nest without bound are problems. All problems are reported together, with
their lines. The meaning of the keys is not checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from autodistill.core.errors import ConfigError

MAX_CHARACTERS = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 40

_NULL, _BOOL, _INT, _FLOAT, _TEXT, _MAP, _LIST = (
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq")
)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the plain types of YAML 1.2 in place of those of 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)


_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|nan))$"),
    list("-+.0123456789"),
)


def load(text: str, source: str) -> tuple[Any, dict[str, int]]:
    """Read one YAML document.

    Args:
        text: The document; an empty one is read as an empty mapping.
        source: File it came from, for messages.

    Returns:
        The data (mappings have text keys only: ``8:`` and ``"8":`` are the same key), and the line (from 1) of every
        dotted path: ``student.resnet.width`` for a key, ``student.family.0`` for an item of a list.

    Raises:
        ConfigError: It is not YAML, or not within the accepted subset; all problems are listed with ``source:line``.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError([f"{source}: got {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed."], source)
    walk = _Walk(source)
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = {} if node is None else walk.value(node, (), 0)
    except yaml.YAMLError as error:
        raise ConfigError([_parser_message(error, source)], source) from None
    except RecursionError:
        raise ConfigError([f"{source}: nested deeper than {MAX_DEPTH} levels; flatten it."], source) from None
    if walk.problems:
        raise ConfigError(walk.problems, source)
    return data, walk.lines


def dump(data: Mapping[str, Any]) -> str:
    """Return ``data`` as YAML that ``load`` reads back to an equal value; keys keep their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes text which ``_Loader`` or a YAML 1.1 parser would read as another type."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
            *_Loader.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        """Return true, so that shared parts are written in full instead of as aliases, which are hard to read."""
        return True


class _Walk:
    """Converter of parsed nodes to plain data; it collects lines and problems."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []
        self.lines: dict[str, int] = {}
        self._nodes = 0

    def value(self, node: yaml.Node, path: tuple[str, ...], depth: int) -> Any:
        """Return the data below ``node``; aliases are expanded and count as values."""
        self._nodes += 1
        if path:
            self.lines.setdefault(".".join(path), node.start_mark.line + 1)
        if self._nodes > MAX_NODES:
            if self._nodes == MAX_NODES + 1:
                self._problem(node, f"more than {MAX_NODES:,} values after expanding aliases; shorten the file.")
            return None
        if depth > MAX_DEPTH:
            self._problem(
                node, f"nested deeper than {MAX_DEPTH} levels (or an alias that contains itself); flatten it."
            )
            return None
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _LIST:
            return [self.value(child, (*path, str(i)), depth + 1) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, child in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, "a key must be a name, not a list or mapping.")
                continue
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key == "<<" and key_node.style is None:
                self._problem(key_node, "merge keys (<<) are not supported; use include: or write the keys out.")
            elif key in first:
                self._problem(key_node, f"{'.'.join((*path, key))}: given twice, first in line {first[key]}; keep one.")
            else:
                first[key] = line
                self.lines[".".join((*path, key))] = line
                out[key] = self.value(child, (*path, key), depth + 1)
        return out

    def _scalar(self, node: yaml.Node) -> Any:
        text, tag = str(node.value), node.tag
        if tag == _TEXT:
            return text
        if tag == _NULL:
            return None
        if tag == _BOOL and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        try:
            if tag == _INT:
                return int(text)
            if tag == _FLOAT and math.isfinite(number := float(text)):
                return number
        except ValueError:
            pass
        if tag in {_INT, _FLOAT, _BOOL}:
            self._problem(node, f"{text!r} is not a supported number or boolean; write a finite number, true or false.")
        else:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(node, f"the tag {name!r} is not supported; write plain values.")
        return None

    def _problem(self, node: yaml.Node, message: str) -> None:
        self.problems.append(f"{self.source}:{node.start_mark.line + 1}: {message}")


def _parser_message(error: yaml.YAMLError, source: str) -> str:
    """Return PyYAML's error message on one line, with file and line."""
    mark = getattr(error, "problem_mark", None)
    where = f"{source}:{mark.line + 1}" if mark is not None else source
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    details = f"{problem} ({context})" if context else problem
    return f"{where}: not valid YAML: {details}."
