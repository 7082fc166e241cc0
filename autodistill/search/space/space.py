"""The search space: parameters of a candidate, and the conditions under which they are active.

A space is parsed from nested mappings (YAML or a Python dict; grammar in docs/architecture.md). It is independent of
students and losses: their names are only names here. Optuna parameter names are the dotted paths, stable over versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from autodistill.search.space.distributions import allowed_words, contains, from_unit, held
from autodistill.search.space.grammar import Entry, read_entries
from autodistill.search.space.groups import prune_groups
from autodistill.search.space.priors import Prior

SECTIONS = ("student", "distillation", "train")
Values = dict[str, Any]
"""Optuna parameter name to value; active parameters only."""


@dataclass(frozen=True)
class Parameter:
    """One searched parameter.

    Attributes:
        name: dotted path, e.g. ``student.resnet.width``; also its Optuna name.
        distribution: its values.
        condition: active if every named parameter has one of the listed values; empty if always active.
        prior: prior of its values; ``None`` if all are equally likely.
    """

    name: str
    distribution: BaseDistribution
    condition: tuple[tuple[str, tuple[Any, ...]], ...] = ()
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
    """

    name: str
    value: Any
    condition: tuple[tuple[str, tuple[Any, ...]], ...] = ()


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
        entries: list[Entry] = []
        for section in mapping:
            if section not in (*SECTIONS, "description", "image_sizes"):
                close = nearest(section, SECTIONS)
                hint = f"did you mean {close[0]!r}? " if close else ""
                problems.append(f"{section}: unknown section; {hint}allowed: {', '.join(SECTIONS)}")
        if not mapping.get("student"):
            problems.append("student: missing; a space needs at least one student parameter")
        for section in SECTIONS:
            if section in mapping:
                entries += read_entries(section, mapping[section], problems)
        if problems:
            raise ConfigError(problems, source)
        parameters = tuple(
            Parameter(entry.name, entry.distribution, entry.condition, entry.prior)
            for entry in entries
            if entry.distribution is not None
        )
        constants = tuple(
            Constant(entry.name, entry.value, entry.condition) for entry in entries if entry.distribution is None
        )
        return Space(parameters, constants, dict(mapping))

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
            if self._holds(constant.condition, values):
                section, key = constant.name.split(".", 1)[0], constant.name.rsplit(".", 1)[-1]
                out[section][key] = constant.value
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

    def holds(self, student: Mapping[str, Any]) -> bool:
        """Return whether a student is in this space, including its fixed settings."""
        section = self.section("student")
        try:
            values = section.flatten({"student": student})
        except ConfigError:
            return False
        return stable_key(section.nest(values)["student"]) == stable_key(dict(student))

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
        for name in (*(p.name for p in self.parameters), *(c.name for c in self.constants)):
            known[name.split(".", 1)[0]].add(name.rsplit(".", 1)[-1])
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
        return Space.parse(_drop_dead_groups(mapping), source)

    def section(self, name: str) -> Space:
        """Return the space of one section only, e.g. the architectures."""
        return Space(
            tuple(p for p in self.parameters if p.section == name),
            tuple(c for c in self.constants if c.name.split(".", 1)[0] == name),
            {name: self.source.get(name, {})},
        )

    def size(self) -> int | None:
        """Return the number of different assignments; ``None`` if a real-valued parameter has no step."""
        sizes = {p.name: _size(p.distribution) for p in self.parameters}
        if any(size is None for size in sizes.values()):
            return None
        parents = {name for p in self.parameters for name, _ in p.condition}
        return sum(
            math.prod(sizes[name] or 1 for name in self.active(values) if name not in parents)
            for values in self._assignments(parents)
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

    def _assignments(self, names: set[str]) -> Iterator[Values]:
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

    def _holds(self, condition: Sequence[tuple[str, tuple[Any, ...]]], values: Mapping[str, Any]) -> bool:
        for name, allowed in condition:
            value = values[name] if name in values else self._constant(name)
            if value not in allowed:
                return False
        return True

    def _constant(self, name: str) -> Any:
        return next((c.value for c in self.constants if c.name == name), None)


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
    when = {"when": old["when"]} if "when" in old else {}
    if isinstance(wanted, Mapping) and "values" not in wanted:
        bounds = {**{k: v for k, v in old.items() if k != "when"}, **wanted}
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


def _drop_dead_groups(mapping: dict[str, Any]) -> dict[str, Any]:
    """Remove groups and ``when`` values whose choice was removed by a restriction."""
    return {key: prune_groups(value) if key in SECTIONS else value for key, value in mapping.items()}
