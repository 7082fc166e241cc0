"""Conditions of a space: what a ``when`` names, in any section, and the order of parameters that follows from it.

A condition is a list of references with the values that each must have. A reference is the full name of a parameter or
constant (``student.lcnet.variant``), or a section and a setting of the candidate (``student.variant``), which stands
for the parameter of whichever group gives that setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution

from autodistill.core.errors import nearest
from autodistill.search.space.distributions import allowed_words, contains
from autodistill.search.space.groups import named
from autodistill.search.space.priors import Prior

Condition = tuple[tuple[str, tuple[Any, ...]], ...]
"""References, each with the values of which the parameter must have one."""


@dataclass(frozen=True)
class Entry:
    """A parsed key: a parameter if it has a distribution, else a constant.

    Attributes:
        name: dotted path.
        distribution: values of a parameter; ``None`` for a constant.
        value: value of a constant.
        condition: active if every named parameter has one of the listed values.
        prior: prior of a parameter's values, if any.
        unless: of a constant: not active if this condition, unless empty, holds too; the value of ``otherwise``.
        strict: references of the condition that were written as full names, so that all their values must exist.
    """

    name: str
    distribution: BaseDistribution | None
    value: Any = None
    condition: Condition = ()
    prior: Prior | None = None
    unless: Condition = ()
    strict: tuple[str, ...] = ()


def join(first: Condition, second: Condition) -> Condition:
    """Return the condition that holds where both hold."""
    return tuple(dict.fromkeys([*first, *second]))


def exclusive(first: Condition, second: Condition) -> bool:
    """Return whether two conditions cannot hold together."""
    theirs: dict[str, set[Any]] = {}
    for name, allowed in second:
        theirs.setdefault(name, set(allowed)).intersection_update(allowed)
    return any(name in theirs and not (set(allowed) & theirs[name]) for name, allowed in first)


def resolved(entries: Sequence[Entry], problems: list[str]) -> list[Entry]:
    """Return the entries of all sections, each after those that its condition names; the order is stable otherwise.

    References to nothing, values that no parameter has, and circles are appended to ``problems``.
    """
    found: dict[tuple[str, tuple[Any, ...]], str] = {}  # the parameters of a group share its conditions
    for entry in entries:
        for reference, allowed in entry.condition:
            if (reference, allowed) not in found:
                found[reference, allowed] = _wrong(reference, allowed, entry, entries)
    wrong = [text for text in found.values() if text]
    problems += wrong
    return list(entries) if wrong else _parents_first(entries, problems)


def _wrong(reference: str, allowed: tuple[Any, ...], entry: Entry, entries: Sequence[Entry]) -> str:
    """Return what is wrong with one reference of an entry's condition; empty if nothing is."""
    names = [one.name for one in entries]
    meant = named(reference, names)
    if not meant:
        settings = {f"{name.partition('.')[0]}.{name.rpartition('.')[2]}" for name in names}
        close = nearest(reference, [*names, *sorted(settings)])
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{entry.name}: when names {reference!r}, which is not a parameter of this space{hint}"
    parents = [one for one in entries if one.name in meant]
    missing = [value for value in allowed if not any(_offers(one, value) for one in parents)]
    if not missing or (reference not in entry.strict and len(missing) < len(allowed)):
        return ""
    return f"{entry.name}: when asks for {reference} {missing[0]!r}, which it never is{_hint(missing[0], parents)}"


def _offers(entry: Entry, value: Any) -> bool:
    return value == entry.value if entry.distribution is None else contains(entry.distribution, value)


def _hint(value: Any, parents: Sequence[Entry]) -> str:
    choices = [str(c) for one in parents for c in getattr(one.distribution, "choices", ())]
    close = nearest(value, choices)
    if close:
        return f"; did you mean {close[0]!r}?"
    words = [str(one.value) if one.distribution is None else allowed_words(one.distribution) for one in parents]
    return f"; allowed: {', '.join(dict.fromkeys(words))}"


def _parents_first(entries: Sequence[Entry], problems: list[str]) -> list[Entry]:
    """Sort entries topologically by their conditions."""
    names = list(dict.fromkeys(entry.name for entry in entries))
    meant = {ref: named(ref, names) for entry in entries for ref, _ in (*entry.condition, *entry.unless)}
    parents = [{n for ref, _ in (*e.condition, *e.unless) for n in meant[ref]} for e in entries]
    out: list[Entry] = []
    left = list(range(len(entries)))
    while left:
        waiting = {entries[i].name for i in left}
        ready = next((i for i in left if not parents[i] & waiting), None)
        if ready is None:
            circle = _circle({entries[i].name: parents[i] & waiting for i in left})
            problems.append(f"{circle[0]}: its condition depends on itself ({' needs '.join(circle)})")
            return list(entries)
        out.append(entries[ready])
        left.remove(ready)
    return out


def _circle(parents: dict[str, set[str]]) -> list[str]:
    """Return names of which each needs the next, the last one being the first again; each name must need another."""
    trail = [next(iter(parents))]
    while trail[-1] not in trail[:-1]:
        trail.append(min(parents[trail[-1]]))
    return trail[trail.index(trail[-1]) :]


def in_words(condition: Iterable[tuple[str, tuple[Any, ...]]], name: str = "") -> str:
    """Return a condition in words, without the part that the name of its parameter, if given, states already."""
    parts = [
        f"{reference} is {' or '.join(map(str, allowed))}"
        for reference, allowed in condition
        if not (len(allowed) == 1 and name.startswith(f"{reference.rpartition('.')[0]}.{allowed[0]}."))
    ]
    return ", ".join(parts)
