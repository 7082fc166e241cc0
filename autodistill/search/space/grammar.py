"""The grammar of one section of a search space: from nested mappings to named, conditional entries.

Each key of a section or group has one of these values:

- a list: a choice; ``{values: [...], weights?: [...], when?: {...}}`` is the same with weights or a condition;
- ``{low, high, step?, log?, prior?, spread?, when?}``: a range, of integers if both ends are; ``prior`` is the value
  expected to be best, around which values are drawn (see ``priors.py``);
- a mapping whose key is a choice of a sibling: a group, active if the sibling has that value;
- a scalar, or ``{value: …, when: {...}}``: a constant.

``when`` names parameters beside or above its own, or, by full names, those of any section and group (see
``conditions.py``). ``otherwise`` is the value where ``when`` does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autodistill.core.errors import nearest
from autodistill.search.space.conditions import Condition, Entry, exclusive, join, resolved
from autodistill.search.space.groups import LEAF, SECTIONS, is_group, leaf_choices
from autodistill.search.space.priors import read_prior


def read_entries(space: Mapping[str, Any], problems: list[str]) -> list[Entry]:
    """Read the entries of all sections, parents before children; problems are appended to the list, never raised."""
    entries: list[Entry] = []
    for section in SECTIONS:
        if section not in space:
            continue
        if isinstance(space[section], Mapping):
            read = _Reader(problems).read(section, space[section], (), {})
            _check_collisions(read, problems)
            entries += read
        else:
            problems.append(f"{section}: expected a mapping of parameters, got {type(space[section]).__name__}")
    return entries if problems else resolved(entries, problems)


@dataclass(frozen=True)
class _Reader:
    problems: list[str]

    def read(self, path: str, node: Mapping[Any, Any], condition: Condition, scope: Mapping[str, str]) -> list[Entry]:
        """Read the entries of one group; ``scope`` maps the keys visible to ``when`` to their dotted paths."""
        leaves = {str(k): v for k, v in node.items() if not is_group(v)}
        groups = {str(k): v for k, v in node.items() if is_group(v)}
        scope = {**scope, **{key: f"{path}.{key}" for key in leaves}}
        out = []
        for key, value in leaves.items():
            out += self._leaf(f"{path}.{key}", value, condition, scope)
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
            own = [e for e in out if e.name == f"{path}.{owner}" and (not e.unless or e.value == choice)]
            parent = own[-1].condition if own else condition  # an otherwise of this value, which is last, asks for less
            out += self.read(f"{path}.{key}", value, join(parent, ((f"{path}.{owner}", (choice,)),)), scope)
        return out

    def _leaf(self, name: str, value: Any, condition: Condition, scope: Mapping[str, str]) -> list[Entry]:
        """Read a parameter or constant; its ``otherwise``, if it has one, is a constant of the same name."""
        if isinstance(value, (list, tuple)):
            entry = self._choice(name, value, condition)
            return [entry] if entry is not None else []
        if not isinstance(value, Mapping):
            return [Entry(name, None, value, condition)]
        unknown = sorted(set(map(str, value)) - LEAF)
        if unknown:
            close = nearest(unknown[0], LEAF)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            self.problems.append(f"{name}: unknown key {unknown[0]!r}{hint} Allowed: {', '.join(sorted(LEAF))}")
            return []
        when = self._when(name, value.get("when", {}), scope)
        entry = self._written(name, value, join(condition, when))
        if entry is not None and entry.distribution is not None:
            entry = self._with_prior(entry, value)
        if entry is None:
            return []
        strict = tuple(key for key in map(str, value.get("when", {})) if "." in key)
        out = [replace(entry, strict=strict)]
        if "otherwise" in value:
            out += self._otherwise(name, value["otherwise"], condition, when)
        return out

    def _otherwise(self, name: str, value: Any, condition: Condition, when: Condition) -> list[Entry]:
        if not when:
            self.problems.append(f"{name}: otherwise is the value where when does not hold; it needs a when beside it")
        elif not (value is None or isinstance(value, (bool, int, float, str))):
            self.problems.append(f"{name}: otherwise must be a number, text, true/false or null, got {value!r}")
        else:
            return [Entry(name, None, value, condition, unless=when)]
        return []

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
            listed = tuple(allowed) if isinstance(allowed, (list, tuple)) else (allowed,)
            if "." in str(key):  # a full name; whether there is such a parameter is known when all sections are read
                out.append((str(key), listed))
            elif key in scope:
                out.append((scope[key], listed))
            else:
                close = nearest(key, scope)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.problems.append(
                    f"{name}: when names {key!r}, which is not a parameter beside it{hint} One of another group or "
                    "section is written with its full name, e.g. student.family"
                )
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


def _check_collisions(entries: list[Entry], problems: list[str]) -> None:
    """Report entries with the same last name that can be active together: a candidate can hold only one."""
    for i, first in enumerate(entries):
        for second in entries[i + 1 :]:
            same = first.name.rsplit(".", 1)[-1] == second.name.rsplit(".", 1)[-1]
            if same and first.name != second.name and not exclusive(first.condition, second.condition):
                problems.append(f"{second.name}: {first.name} has the same last name and can be active with it")
