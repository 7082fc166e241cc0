"""The search space: parameters of a candidate, and the conditions under which they are active.

A space is parsed from nested mappings (YAML or a dict; grammar: docs/reference/search_spaces.md). It is independent of
students and losses: their names are only names here. Optuna parameter names are the dotted paths, stable over versions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from autodistill.core.errors import ConfigError, nearest
from autodistill.core.records import stable_key
from autodistill.search.space.conditions import Condition
from autodistill.search.space.distributions import allowed_words, contains, from_unit, held
from autodistill.search.space.grammar import read_entries
from autodistill.search.space.groups import SECTIONS, named, prune
from autodistill.search.space.priors import Prior
from autodistill.search.space.weights_section import WEIGHTS, weights_problems

Values = dict[str, Any]
"""Optuna parameter name to value; active parameters only."""
_REACHES = 20  # most draws to make one parameter active
_ABSENT = object()
"""Value of a parameter that is not active; equal to no choice."""


@dataclass(frozen=True)
class Parameter:
    """One searched parameter.

    Attributes:
        name: dotted path, e.g. ``student.resnet.width``; also its Optuna name.
        distribution: its values.
        condition: active if every named parameter, of any section, has one of the listed values; empty if always
            active. ``student.variant`` names the candidate's setting, whichever group gives it.
        prior: prior of its values; ``None`` if all are equally likely.
    """

    name: str
    distribution: BaseDistribution
    condition: Condition = ()
    prior: Prior | None = None

    @property
    def section(self) -> str:
        """``student``, ``distillation`` or ``train``."""
        return self.name.split(".", 1)[0]

    @property
    def key(self) -> str:
        """Name inside the candidate: the last part of the path."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Constant:
    """A fixed setting that every (active) candidate has.

    Attributes:
        name: dotted path.
        value: value of the setting.
        condition: as for :class:`Parameter`.
        unless: not active where this condition, if not empty, holds too: then a parameter of the same name is.
    """

    name: str
    value: Any
    condition: Condition = ()
    unless: Condition = ()

    @property
    def section(self) -> str:
        """``student``, ``distillation`` or ``train``."""
        return self.name.split(".", 1)[0]

    @property
    def key(self) -> str:
        """Name inside the candidate: the last part of the path."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Space:
    """A conditional search space.

    Attributes:
        parameters: searched parameters, each after those that it depends on.
        constants: fixed settings.
        source: mapping that the space was parsed from, after restriction.
    """

    parameters: tuple[Parameter, ...]
    constants: tuple[Constant, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @staticmethod
    def parse(mapping: Mapping[str, Any], source: str = "space") -> Space:
        """Parse a space from nested mappings.

        Args:
            mapping: sections ``student``, ``distillation``, ``train``; only ``student`` is required.
            source: name of the space in messages, e.g. its file name.

        Raises:
            ConfigError: the mapping is invalid; the error lists every problem.
        """
        if isinstance(mapping, Space):
            return mapping
        problems: list[str] = []
        for section in mapping:
            if section not in (*SECTIONS, "description", "image_sizes", WEIGHTS):
                close = nearest(section, SECTIONS)
                hint = f"did you mean {close[0]!r}? " if close else ""
                problems.append(f"{section}: unknown section; {hint}allowed: {', '.join(SECTIONS)}")
        if not mapping.get("student"):
            problems.append("student: missing; a space needs at least one student parameter")
        entries = read_entries(mapping, problems)
        problems += weights_problems(mapping)
        if problems:
            raise ConfigError(problems, source)
        parameters = tuple(
            Parameter(entry.name, entry.distribution, entry.condition, entry.prior)
            for entry in entries
            if entry.distribution is not None
        )
        constants = tuple(
            Constant(entry.name, entry.value, entry.condition, entry.unless)
            for entry in entries
            if entry.distribution is None
        )
        return Space(parameters, constants, dict(mapping))

    @property
    def weights(self) -> dict[str, str]:
        """Variant or family, to the text that names the weights of its students; others have timm's."""
        return dict(self.source.get(WEIGHTS) or {})

    def suggest(self, trial: Trial) -> dict[str, dict[str, Any]]:
        """Draw one candidate through Optuna's define-by-run interface.

        Returns:
            Section to settings: ``{"student": {…}, "distillation": {…}, "train": {…}}``.
        """
        values: Values = {}
        for parameter in self.parameters:
            if self._holds(parameter.condition, values):
                values[parameter.name] = _suggest(trial, parameter)
        return self.nest(values)

    def sample(self, rng: np.random.Generator) -> Values:
        """Draw one assignment of all active parameters, each by its prior, or else uniformly on its own (log) scale."""
        return self.fill(lambda parameter: _draw(parameter, rng))

    def fill(self, choose: Callable[[Parameter], Any]) -> Values:
        """Return one assignment of all active parameters, parents first, with the values from ``choose``."""
        values: Values = {}
        for parameter in self.parameters:
            if not parameter.condition or self._holds(parameter.condition, values):
                values[parameter.name] = choose(parameter)
        return values

    def active(self, values: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return the parameters that are active under ``values``, with their distributions, parents first."""
        return {p.name: p.distribution for p in self.parameters if self._holds(p.condition, values)}

    def nest(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Convert parameter values to the sections of a candidate; names of conditional groups are dropped."""
        out: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for parameter in self.parameters:
            if parameter.name in values and self._holds(parameter.condition, values):
                out[parameter.section][parameter.key] = values[parameter.name]
        for constant in self.constants:
            if self._is_fixed(constant, values):
                out[constant.section][constant.key] = constant.value
        return out

    def flatten(self, sections: Mapping[str, Mapping[str, Any]]) -> Values:
        """Convert the sections of a candidate to parameter values, the inverse of :meth:`nest`.

        Raises:
            ConfigError: a setting is missing or outside its range.
        """
        values: Values = {}
        problems = []
        for parameter in self.parameters:
            if not self._holds(parameter.condition, values):
                continue
            settings = sections.get(parameter.section, {})
            if parameter.key not in settings:
                problems.append(f"{parameter.name}: missing")
                continue
            values[parameter.name] = held(parameter.distribution, settings[parameter.key])
        problems += self.outside(values)
        if problems:
            raise ConfigError(problems, "candidate")
        return values

    def flatten_section(self, section: str, settings: Mapping[str, Any]) -> Values:
        """Convert one section of a candidate to parameter values, without knowing the others.

        A parameter that depends on another section counts as active if its setting is given and one of its values.

        Raises:
            ConfigError: a setting is missing or outside its range.
        """
        values: Values = {}
        given: set[str] = set()
        problems = []
        for parameter in self.parameters:
            own, elsewhere = self._parted(parameter.condition, section)
            if parameter.section != section or not self._holds(own, values):
                continue
            value = held(parameter.distribution, settings.get(parameter.key))
            if elsewhere and (parameter.key in given or not contains(parameter.distribution, value)):
                continue
            if parameter.key not in settings:
                problems.append(f"{parameter.name}: missing")
                continue
            given.add(parameter.key)
            values[parameter.name] = value
        problems += self.outside(values)
        if problems:
            raise ConfigError(problems, "candidate")
        return values

    def holds(self, student: Mapping[str, Any]) -> bool:
        """Return whether a student is in this space, including its fixed settings."""
        try:
            values = self.flatten_section("student", student)
        except ConfigError:
            return False
        names = {p.name: p.key for p in self.parameters}
        made = {names[name]: value for name, value in values.items()}
        for constant in self.constants:
            own, elsewhere = self._parted(constant.condition, "student")
            if constant.section != "student" or constant.key in made or not self._holds(own, values):
                continue
            possible = not (elsewhere or constant.unless) or student.get(constant.key) == constant.value
            if possible:
                made[constant.key] = constant.value
        return stable_key(made) == stable_key(dict(student))

    def outside(self, values: Mapping[str, Any]) -> list[str]:
        """Return an error message for each invalid parameter value; unknown names are ignored."""
        given = ((p.name, p.distribution, values[p.name]) for p in self.parameters if p.name in values)
        return [f"{name}: {value!r} is not in {allowed_words(d)}" for name, d, value in given if not contains(d, value)]

    def check_names(self, sections: Mapping[str, Any]) -> None:
        """Check that a user's candidate has only settings of this space.

        Raises:
            ConfigError: a section or setting is unknown; the error lists the nearest names.
        """
        known: dict[str, set[str]] = {section: set() for section in SECTIONS}
        for one in self.entries:
            known[one.section].add(one.key)
        problems = []
        for section, settings in sections.items():
            if section not in known:
                problems.append(f"{section}: not a section; allowed: {', '.join(SECTIONS)}")
            elif not isinstance(settings, Mapping):
                problems.append(f"{section}: takes settings as NAME: VALUE, got {settings!r}")
            else:
                for key in settings.keys() - known[section]:
                    close = nearest(str(key), known[section])
                    words = f"nearest: {', '.join(close) or 'none'}"
                    problems.append(f"{section}.{key}: not a setting of this space; {words}")
        if problems:
            raise ConfigError(sorted(problems), "candidate")

    def restrict(self, choices: Mapping[str, Any], source: str = "--set") -> Space:
        """Return the space with some parameters narrowed: ``{"student.family": ["resnet"], "train.lr": 0.01}``.

        A list keeps these choices, a scalar fixes the value, a ``{low, high}`` mapping narrows a range.

        Raises:
            ConfigError: a name is unknown, or a value is not in the space.
        """
        problems: list[str] = []
        mapping = _deep_copy(self.source)
        known = {p.name: p.distribution for p in self.parameters}
        for name, wanted in choices.items():
            if name not in known:
                close = nearest(name, known)
                hint = f"{_elsewhere(name, self.constants)}; nearest: {', '.join(close) or 'none'}"
                problems.append(f"{name}: not a parameter of this space{hint}")
                continue
            _narrow(mapping, name, wanted, known[name], problems)
        if problems:
            raise ConfigError(problems, source)
        return Space.parse(prune(mapping), source)

    def section(self, name: str) -> Space:
        """Return the space of one section, e.g. the architectures, and of what its conditions need of the others."""
        kept = {one.name for one in self.entries if one.section == name}
        wanted = list(kept)
        while wanted:
            new = self._named_by(wanted.pop()) - kept
            kept |= new
            wanted += new
        sections = {one.partition(".")[0] for one in kept} | {name}
        return Space(
            tuple(p for p in self.parameters if p.name in kept),
            tuple(c for c in self.constants if c.name in kept),
            {one: self.source.get(one, {}) for one in SECTIONS if one in sections},
        )

    def reach(self, name: str, value: Any, rng: np.random.Generator) -> Values | None:
        """Draw an assignment in which a parameter is active with ``value``; ``None`` if none is found."""
        for _ in range(_REACHES):
            values = self._towards(name, value, rng)
            if name in values and values[name] == value:
                return values
        return None

    def _towards(self, name: str, value: Any, rng: np.random.Generator) -> Values:
        """Draw an assignment, with the values that searched parameters must have to make ``name`` active."""
        forced: dict[str, tuple[Any, ...]] = {name: (value,)}
        picked: dict[str, Parameter] = {}  # one of several conditions of one name
        for parameter in reversed(self.parameters):  # children before those that they depend on
            if parameter.name not in forced:
                continue
            alike = self._entries[parameter.name][0]
            if picked.setdefault(parameter.name, alike[int(rng.integers(len(alike)))]) is not parameter:
                continue
            for reference, allowed in parameter.condition:
                offering = [p for p in self._searched(reference) if any(contains(p.distribution, v) for v in allowed)]
                if offering:
                    parent = offering[int(rng.integers(len(offering)))]
                    both = [v for v in forced.get(parent.name, allowed) if v in allowed]
                    forced[parent.name] = tuple(v for v in both if contains(parent.distribution, v))

        def choose(parameter: Parameter) -> Any:
            wanted = forced.get(parameter.name)
            return wanted[int(rng.integers(len(wanted)))] if wanted else _draw(parameter, rng)

        return self.fill(choose)

    def size(self) -> int | None:
        """Return the number of different assignments; ``None`` if a real-valued parameter has no step."""
        sizes = {p.name: _size(p.distribution) for p in self.parameters}
        if any(size is None for size in sizes.values()):
            return None
        return sum(
            math.prod(sizes[name] or 1 for name in self.active(values) if name not in self.parents)
            for values in self._assignments(self.parents)
        )

    def enumerate(self, limit: int = 100_000) -> list[Values] | None:
        """Return every assignment, in a fixed order; ``None`` if there are more than ``limit``."""
        size = self.size()
        if size is None or size > limit:
            return None
        return list(self._assignments({p.name for p in self.parameters}))

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that :meth:`parse` reads."""
        copy: dict[str, Any] = _deep_copy(self.source)
        return copy

    def _assignments(self, names: Set[str]) -> Iterator[Values]:
        """Yield all assignments of the named parameters, respecting their conditions."""

        def extend(index: int, values: Values) -> Iterator[Values]:
            if index == len(self.parameters):
                yield dict(values)
                return
            parameter = self.parameters[index]
            if parameter.name not in names or not self._holds(parameter.condition, values):
                yield from extend(index + 1, values)
                return
            for choice in _choices(parameter.distribution):
                yield from extend(index + 1, {**values, parameter.name: choice})

        return extend(0, {})

    @property
    def entries(self) -> tuple[Parameter | Constant, ...]:
        """All parameters and constants."""
        return (*self.parameters, *self.constants)

    @functools.cached_property
    def parents(self) -> frozenset[str]:
        """Names of the parameters that a condition names: others are active or not by their values."""
        conditions = [p.condition for p in self.parameters] + [(*c.condition, *c.unless) for c in self.constants]
        return frozenset(p.name for one in conditions for reference, _ in one for p in self._searched(reference))

    @functools.cached_property
    def parents_of_students(self) -> bool:
        """Whether a student's parameters depend on those of another section."""
        return any(p.section != "student" for p in self.section("student").parameters)

    @functools.cached_property
    def _entries(self) -> dict[str, tuple[list[Parameter], list[Constant]]]:
        out: dict[str, tuple[list[Parameter], list[Constant]]] = {}
        for parameter in self.parameters:
            out.setdefault(parameter.name, ([], []))[0].append(parameter)
        for constant in self.constants:
            out.setdefault(constant.name, ([], []))[1].append(constant)
        return out

    @functools.cached_property
    def _references(self) -> dict[str, tuple[str, ...]]:
        """References of all conditions, each with the parameters and constants that it stands for."""
        conditions = [p.condition for p in self.parameters] + [(*c.condition, *c.unless) for c in self.constants]
        return {name: named(name, self._entries) for one in conditions for name, _ in one}

    def _searched(self, reference: str) -> list[Parameter]:
        return [p for name in self._references[reference] for p in self._entries[name][0]]

    def _named_by(self, name: str) -> set[str]:
        """Return the parameters and constants that the conditions of one name."""
        parameters, constants = self._entries[name]
        conditions = [p.condition for p in parameters] + [(*c.condition, *c.unless) for c in constants]
        return {n for one in conditions for reference, _ in one for n in self._references[reference]}

    def _parted(self, condition: Condition, section: str) -> tuple[Condition, Condition]:
        """Split a condition into the part on one section and the part on others."""
        own = tuple(one for one in condition if one[0].partition(".")[0] == section)
        return own, tuple(one for one in condition if one not in own)

    def _holds(self, condition: Condition, values: Mapping[str, Any]) -> bool:
        for reference, allowed in condition:
            value = values.get(reference, _ABSENT)
            if value is _ABSENT:
                value = self._stands_for(reference, values)
            if value not in allowed:
                return False
        return True

    def _stands_for(self, reference: str, values: Mapping[str, Any]) -> Any:
        """Return the value of a reference that is no active parameter: another group's, a constant's, or none."""
        for name in self._references[reference]:
            if name in values:
                return values[name]
            for constant in self._entries[name][1]:
                if self._is_fixed(constant, values):
                    return constant.value
        return _ABSENT

    def _is_fixed(self, constant: Constant, values: Mapping[str, Any]) -> bool:
        """Return whether a constant is active."""
        holds = self._holds(constant.condition, values)
        return holds and not (constant.unless and self._holds(constant.unless, values))


def _suggest(trial: Trial, parameter: Parameter) -> Any:
    name, d = parameter.name, parameter.distribution
    if isinstance(d, CategoricalDistribution):
        return trial.suggest_categorical(name, d.choices)
    if isinstance(d, IntDistribution):
        return trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
    assert isinstance(d, FloatDistribution)
    return trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)


def _draw(parameter: Parameter, rng: np.random.Generator) -> Any:
    d = parameter.distribution
    if parameter.prior is not None:
        return from_unit(d, parameter.prior.unit(rng.random()))
    if isinstance(d, CategoricalDistribution):
        return d.choices[int(rng.integers(len(d.choices)))]
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if d.step is not None and not d.log:
        steps = round((d.high - d.low) / d.step)
        value = d.low + d.step * int(rng.integers(steps + 1))
        return int(value) if isinstance(d, IntDistribution) else float(min(value, d.high))
    # a log-scaled integer is drawn from a wider interval, so that both bounds are as likely as other values
    half = 0.5 if isinstance(d, IntDistribution) else 0.0
    low, high = (math.log(d.low - half), math.log(d.high + half)) if d.log else (d.low, d.high)
    drawn = float(rng.uniform(low, high))
    value = math.exp(drawn) if d.log else drawn
    value = min(max(value, d.low), d.high)
    return round(value) if isinstance(d, IntDistribution) else value


def _size(d: BaseDistribution) -> int | None:
    if isinstance(d, CategoricalDistribution):
        return len(d.choices)
    if isinstance(d, IntDistribution):
        return (d.high - d.low) // d.step + 1
    assert isinstance(d, FloatDistribution)
    if d.step is None:
        return 1 if d.low == d.high else None
    return round((d.high - d.low) / d.step) + 1


def _choices(d: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(d, CategoricalDistribution):
        return tuple(d.choices)
    if isinstance(d, IntDistribution):
        return tuple(range(d.low, d.high + 1, d.step))
    assert isinstance(d, FloatDistribution)
    if d.step is None:
        return (d.low,)
    return tuple(d.low + i * d.step for i in range(_size(d) or 1))


def _deep_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep_copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_deep_copy(item) for item in value]
    return value


def _narrow(
    mapping: dict[str, Any], name: str, wanted: Any, distribution: BaseDistribution, problems: list[str]
) -> None:
    """Write one restriction into the nested mapping; conditions (``when``) stay unchanged."""
    parent = mapping
    *path, last = name.split(".")
    for part in path:
        parent = parent[part]
    old = parent[last]
    old = old if isinstance(old, Mapping) else {"values": old}
    when = {key: old[key] for key in ("when", "otherwise") if key in old}
    if isinstance(wanted, Mapping) and "values" not in wanted:
        bounds = {**{k: v for k, v in old.items() if k not in when}, **wanted}
        ends = {end: held(distribution, bounds.get(end)) for end in ("low", "high")}
        bad = [v for v in ends.values() if not contains(distribution, v)]
        parent[last] = {**bounds, **ends, **({} if bad else _inside(bounds, ends)), **when}
    else:
        given = dict(wanted) if isinstance(wanted, Mapping) else {"values": wanted}
        listed = given["values"] if isinstance(given["values"], (list, tuple)) else [given["values"]]
        choices = [held(distribution, v) for v in listed]
        bad = [choice for choice in choices if not contains(distribution, choice)]
        weights = {} if bad or "weights" in given else _kept_weights(old, distribution, choices)
        parent[last] = {**given, "values": choices, **weights, **when}
    for value in bad:
        close = nearest(value, [str(c) for c in getattr(distribution, "choices", ())])
        hint = f"; did you mean {close[0]!r}?" if close else "."
        allowed = f"Allowed: {allowed_words(distribution)}; {_wider(name)}"
        problems.append(f"{name}: {value!r} is not in the space{hint} {allowed}")


def _elsewhere(name: str, constants: Sequence[Constant]) -> str:
    """Return a hint for a name that the space does not search: it is fixed, or belongs to another section."""
    fixed = next((one for one in constants if one.name == name), None)
    if fixed is not None:
        return f", which fixes it to {fixed.value!r}; {_wider(name)}"
    if name.startswith("train."):
        return f"; a setting that all trials share is written training.{name.removeprefix('train.')}"
    return ""


def _inside(bounds: Mapping[str, Any], ends: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prior of a range, clipped to narrower bounds."""
    return {"prior": min(max(bounds["prior"], ends["low"]), ends["high"])} if "prior" in bounds else {}


def _kept_weights(old: Mapping[str, Any], distribution: BaseDistribution, choices: Sequence[Any]) -> dict[str, Any]:
    """Return the weights of the choices that are kept."""
    if "weights" not in old or not isinstance(distribution, CategoricalDistribution):
        return {}
    known = list(distribution.choices)
    return {"weights": [old["weights"][known.index(choice)] for choice in choices]}


def _wider(name: str) -> str:
    """Return a hint on how to add values to a space."""
    section, key = name.split(".", 1)
    where = f"{section}: {{{key.replace('.', ': {')}: [...]" + "}" * (key.count(".") + 1)
    return f"to add values, write a file with 'include: SPACE' and '{where}', and give it as --space FILE"
