"""The grammar of one section of a search space: from nested mappings to named, conditional entries.

Each key of a section or group has one of these values:

- a list: a choice; ``{values: [...], weights?: [...], when?: {...}}`` is the same with weights or a condition;
- ``{low, high, step?, log?, prior?, spread?, when?}``: a range, of integers if both ends are; ``prior`` is the value
  expected to be best, around which values are drawn (see ``priors.py``);
- a mapping whose key is a choice of a sibling: a group, active if the sibling has that value;
- a scalar, or ``{value: …, when: {...}}``: a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autodistill.core.errors import nearest
from autodistill.search.space.groups import LEAF, is_group, leaf_choices
from autodistill.search.space.priors import Prior, read_prior

Condition = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Entry:
    """A parsed key: a parameter if it has a distribution, else a constant.

    Attributes:
        name: dotted path.
        distribution: values of a parameter; ``None`` for a constant.
        value: value of a constant.
        condition: active if every named parameter has one of the listed values.
        prior: prior of a parameter's values, if any.
    """

    name: str
    distribution: BaseDistribution | None
    value: Any = None
    condition: Condition = ()
    prior: Prior | None = None


def read_entries(section: str, node: Any, problems: list[str]) -> list[Entry]:
    """Read the entries of one section, parents before children; problems are appended to the list, never raised."""
    if not isinstance(node, Mapping):
        problems.append(f"{section}: expected a mapping of parameters, got {type(node).__name__}")
        return []
    entries = _Reader(section, problems).read(section, node, (), {})
    _check_collisions(entries, problems)
    return _parents_first(entries)


@dataclass(frozen=True)
class _Reader:
    section: str
    problems: list[str]

    def read(self, path: str, node: Mapping[Any, Any], condition: Condition, scope: Mapping[str, str]) -> list[Entry]:
        """Read the entries of one group; ``scope`` maps the keys visible to ``when`` to their dotted paths."""
        leaves = {str(k): v for k, v in node.items() if not is_group(v)}
        groups = {str(k): v for k, v in node.items() if is_group(v)}
        scope = {**scope, **{key: f"{path}.{key}" for key in leaves}}
        out = []
        for key, value in leaves.items():
            entry = self._leaf(f"{path}.{key}", value, condition, scope)
            if entry is not None:
                out.append(entry)
        for key, value in groups.items():
            owner = next((name for name, leaf in leaves.items() if key in map(str, leaf_choices(leaf))), None)
            if owner is None:
                offered = [str(c) for leaf in leaves.values() for c in leaf_choices(leaf)]
                close = nearest(key, [*offered, *leaves])
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.problems.append(
                    f"{path}.{key}: no choice beside it is called {key!r}, so the group can never be active{hint}"
                )
                continue
            choice = next(c for c in leaf_choices(leaves[owner]) if str(c) == key)
            parent = next((e.condition for e in out if e.name == f"{path}.{owner}"), condition)
            out += self.read(f"{path}.{key}", value, _join(parent, ((f"{path}.{owner}", (choice,)),)), scope)
        return out

    def _leaf(self, name: str, value: Any, condition: Condition, scope: Mapping[str, str]) -> Entry | None:
        if isinstance(value, Mapping):
            unknown = sorted(set(map(str, value)) - LEAF)
            if unknown:
                close = nearest(unknown[0], LEAF)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.problems.append(f"{name}: unknown key {unknown[0]!r}{hint} Allowed: {', '.join(sorted(LEAF))}")
                return None
            condition = _join(condition, self._when(name, value.get("when", {}), scope))
            entry = self._written(name, value, condition)
            return entry if entry is None or entry.distribution is None else self._with_prior(entry, value)
        if not isinstance(value, (list, tuple)):
            return Entry(name, None, value, condition)
        return self._choice(name, value, condition)

    def _written(self, name: str, value: Mapping[Any, Any], condition: Condition) -> Entry | None:
        """Read a constant, choice or range that is written as a mapping."""
        if "value" in value:
            return Entry(name, None, value["value"], condition)
        if "values" not in value:
            return self._range(name, value, condition)
        if not isinstance(value["values"], (list, tuple)):
            self.problems.append(f"{name}: values must be a list, got {value['values']!r}")
            return None
        return self._choice(name, value["values"], condition)

    def _with_prior(self, entry: Entry, value: Mapping[Any, Any]) -> Entry | None:
        assert entry.distribution is not None
        prior, problem = read_prior(entry.distribution, value)
        if problem:
            self.problems.append(f"{entry.name}: {problem}")
            return None
        return replace(entry, prior=prior)

    def _choice(self, name: str, choices: Iterable[Any], condition: Condition) -> Entry | None:
        listed = list(choices)
        bad = [c for c in listed if not (c is None or isinstance(c, (bool, int, float, str)))]
        if not listed:
            self.problems.append(f"{name}: an empty list offers no choice")
        elif bad:
            self.problems.append(f"{name}: a choice must be a number, text, true/false or null, got {bad[0]!r}")
        elif len({(type(c), c) for c in listed}) != len(listed):
            self.problems.append(f"{name}: a choice is listed twice in {listed!r}")
        else:
            return Entry(name, CategoricalDistribution(listed), None, condition)
        return None

    def _range(self, name: str, value: Mapping[Any, Any], condition: Condition) -> Entry | None:
        low, high, step, log = value.get("low"), value.get("high"), value.get("step"), value.get("log", False)
        problem = _range_problem(low, high, step, log)
        if problem:
            self.problems.append(f"{name}: {problem}")
            return None
        assert isinstance(low, (int, float))
        assert isinstance(high, (int, float))
        if isinstance(low, int) and isinstance(high, int) and (step is None or isinstance(step, int)):
            return Entry(name, IntDistribution(low, high, step=step or 1, log=bool(log)), None, condition)
        return Entry(name, FloatDistribution(float(low), float(high), step=step, log=bool(log)), None, condition)

    def _when(self, name: str, when: Any, scope: Mapping[str, str]) -> Condition:
        if not isinstance(when, Mapping):
            self.problems.append(f"{name}: when must map a parameter to its values, got {when!r}")
            return ()
        out = []
        for key, allowed in when.items():
            if key not in scope:
                close = nearest(key, scope)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.problems.append(f"{name}: when names {key!r}, which is not a parameter beside it{hint}")
                continue
            out.append((scope[key], tuple(allowed) if isinstance(allowed, (list, tuple)) else (allowed,)))
        return tuple(out)


def _range_problem(low: Any, high: Any, step: Any, log: Any) -> str:
    numbers = [x for x in (low, high) if isinstance(x, (int, float)) and not isinstance(x, bool)]
    if len(numbers) < 2:
        return f"a range needs the numbers low and high, got low={low!r}, high={high!r}"
    if low > high:
        return f"the range is the wrong way round: low {low} is above high {high}; swap them"
    if not isinstance(log, bool):
        return f"log must be true or false, got {log!r}"
    if log and low <= 0:
        return f"a log range needs low above 0, got {low}"
    if step is not None and (isinstance(step, bool) or not isinstance(step, (int, float)) or step <= 0):
        return f"step must be a number above 0, got {step!r}"
    if log and step is not None and step != 1:
        return "log and step exclude each other; drop one"
    return ""


def _join(first: Condition, second: Condition) -> Condition:
    return tuple(dict.fromkeys([*first, *second]))


def _check_collisions(entries: list[Entry], problems: list[str]) -> None:
    """Report entries with the same last name that can be active together: a candidate can hold only one."""
    for i, first in enumerate(entries):
        for second in entries[i + 1 :]:
            same = first.name.rsplit(".", 1)[-1] == second.name.rsplit(".", 1)[-1]
            if same and not _exclusive(first.condition, second.condition):
                problems.append(f"{second.name}: {first.name} has the same last name and can be active with it")


def _exclusive(first: Condition, second: Condition) -> bool:
    theirs: dict[str, set[Any]] = {}
    for name, allowed in second:
        theirs.setdefault(name, set(allowed)).intersection_update(allowed)
    return any(name in theirs and not (set(allowed) & theirs[name]) for name, allowed in first)


def _parents_first(entries: list[Entry]) -> list[Entry]:
    """Sort entries topologically by their conditions; the order is stable."""
    out: list[Entry] = []
    left = list(entries)
    names = {entry.name for entry in entries}
    while left:
        done = {entry.name for entry in out}
        ready = [e for e in left if all(n in done or n not in names for n, _ in e.condition)]
        if not ready:  # a cycle of `when`: keep the given order; these conditions never hold
            return out + left
        out.append(ready[0])
        left.remove(ready[0])
    return out
