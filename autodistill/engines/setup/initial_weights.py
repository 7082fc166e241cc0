"""Weights that a study's students may start from: found, checked and fetched before anything is trained.

``init: pretrained`` is offered only to students that have weights. A study whose students must start from weights that
do not exist, or that cannot be had now, is refused within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import ConfigError, InfeasibleError, UsageError
from autodistill.core.records import TeacherSpec
from autodistill.core.teacher_choice import CHOICE
from autodistill.engines.timing.cold_views import setting_values

if TYPE_CHECKING:
    from autodistill.engines.monitor.watch import Watch
    from autodistill.search.space.conditions import Condition
    from autodistill.search.space.space import Constant, Parameter, Space
    from autodistill.training.weights.source import WeightSource

PRETRAINED = "pretrained"
INIT = "train.init"
_FAMILY = "student.family"
_KEYS = ("variant", "model")
_LISTED = 12
_ASKED_AT_ONCE = 8


@dataclass(frozen=True)
class _Network:
    """A network of the space: a family, and a variant where the family has some.

    Attributes:
        values: parameter name to value, of family and variant.
        student: the same as settings of a student.
        variant: dotted path of the searched variant; empty if it is fixed or the family has none.
    """

    values: Mapping[str, Any]
    student: Mapping[str, Any]
    variant: str = ""

    @property
    def name(self) -> str:
        """Name for messages."""
        return str(self.student.get("variant", self.student.get("model", self.student["family"])))


@dataclass
class _Found:
    """What was found about the networks of a space that may start from weights."""

    sources: dict[str, WeightSource] = field(default_factory=dict)  # by name of the network
    have: list[_Network] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    without: list[_Network] = field(default_factory=list)  # those that may be random
    forced: dict[str, str] = field(default_factory=dict)  # those that may not, with the reason
    forced_variants: set[str] = field(default_factory=set)  # dotted paths of their variants
    must: set[str] = field(default_factory=set)  # names of all those that may not be random


@dataclass(frozen=True)
class InitialWeights:
    """Weights that the students of a study may start from.

    Attributes:
        sources: the weights, each once.
        notes: lines for the user about students that have none.
    """

    sources: tuple[WeightSource, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what there is and what has to be fetched, for users; the hub is asked for sizes."""
        if not self.sources:
            return list(self.notes)
        away = self.away()
        here = [one for one in self.sources if one.is_here]
        counts: dict[str, int] = {}
        for one in self.sources:
            counts[one.licence] = counts.get(one.licence, 0) + 1
        licences = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        size = sum(one.size or 0 for one in away)
        fetched = f", {len(away)} to fetch ({size / 1e6:,.1f} MB)" if away else ""
        return [f"weights: {len(here)} here{fetched}; licences: {licences}", *self.notes]

    def away(self) -> list[WeightSource]:
        """Return the weights that have to be fetched, with their sizes.

        Raises:
            WeightsError: the hub does not have some of them.
        """
        from concurrent.futures import ThreadPoolExecutor

        from autodistill.training.weights.source import sized

        missing = [one for one in self.sources if not one.is_here]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            return list(pool.map(sized, missing))


def ask_early(space: Space, training: Mapping[str, Any], teacher: TeacherSpec) -> None:
    """Ask whether the hub can be reached, without waiting, if weights may be needed: torch takes seconds to load."""
    published = teacher.source not in ("auto", CHOICE) and not Path(teacher.source).expanduser().exists()
    started = teacher.options.get("pretrained") or teacher.options.get("weights")
    if published or started or PRETRAINED in setting_values(space, training, "init", "random"):
        from autodistill.training.weights import hub

        hub.ask()


def with_weights(
    space: Space, training: Mapping[str, Any], *, ask: bool = True, strict: bool = True
) -> tuple[Space, InitialWeights]:
    """Return the space in which ``init: pretrained`` is offered only to students that have weights, and the weights.

    Args:
        space: search space of the study, with all restrictions.
        training: settings shared by all trials.
        ask: whether to find out if weights that are not here can be fetched; false looks at names and files only.
        strict: whether problems are raised; false for a study that is opened again, perhaps only to be read.

    Raises:
        ConfigError: students that must start from weights have none, or no student has any, or some are not on this
            machine and the hub cannot be reached. All problems are listed.
    """
    if PRETRAINED not in setting_values(space, training, "init", "random"):
        return space, InitialWeights()
    from autodistill.search.space.narrowing import offer_only
    from autodistill.training.students.starting_weights import check_mapping

    if strict and (problems := check_mapping(space.weights) or _unfit(space)):
        raise ConfigError(problems, "weights of the search space")
    found = _look(space, training)
    if found.forced and strict:
        raise ConfigError([_forced(found)], "initial weights")
    if not found.sources and not strict:
        return space, InitialWeights()
    if not found.sources:
        reasons = "; ".join(list(found.lacking.values())[:2])
        raise ConfigError([f"init offers pretrained, but no student of the space has weights: {reasons}"], "the space")
    notes = _available(found, ask=ask)
    if not found.without:
        return space, InitialWeights(_each_once(found.sources.values()), notes)
    where, elsewhere = _cells(found.have, found.without), _cells(found.without, found.have)
    note = f"init is always random for {_some(one.name for one in found.without)}: they have no weights here"
    narrowed = offer_only(space, INIT, PRETRAINED, where=where, elsewhere=elsewhere)
    return narrowed, InitialWeights(_each_once(found.sources.values()), (*notes, note))


def fetch_all(weights: InitialWeights, watch: Watch) -> None:
    """Download the weights that are not here, and report size and licence of each.

    Raises:
        WeightsError: a download failed.
    """
    from autodistill.training.weights.source import fetch

    if not weights.sources:
        return
    watch.stage("weights", weights.lines()[0].removeprefix("weights: "), 0.0)
    away = weights.away()
    total, done = max(sum(one.size or 0 for one in away), 1), 0
    for count, one in enumerate(away, 1):
        if watch.should_stop():
            return
        watch.stage("weights", f"fetching {count} of {len(away)}: {one.words}", done / total)
        fetch(one)
        done += one.size or 0


def _unfit(space: Space) -> list[str]:
    """Return the problems of weights on this machine that do not fit the networks that the space maps them to."""
    from autodistill.training.students.starting_weights import fit_problem

    if not space.weights:
        return []
    found = (fit_problem(network.student, space.weights) for network in _networks(space))
    return [text for text in dict.fromkeys(found) if text]


def _look(space: Space, training: Mapping[str, Any]) -> _Found:
    """Look up the weights of every network of the space for which ``pretrained`` can be drawn."""
    from autodistill.training.students.starting_weights import source_of

    found = _Found()
    default = training.get("init", "random")
    licence = next(iter(setting_values(space, training, "licence", "any")))
    choices = [c for p in space.parameters if p.name == INIT for c in getattr(p.distribution, "choices", ())]
    for network in _networks(space):
        drawn = [space.nest({**network.values, INIT: choice}) for choice in choices or [default]]
        possible = {one["train"].get("init", default) for one in drawn}
        if PRETRAINED not in possible:
            continue
        try:
            found.sources[network.name] = source_of(network.student, space.weights, licence=licence)
            found.have.append(network)
            if possible == {PRETRAINED}:
                found.must.add(network.name)
        except (UsageError, InfeasibleError) as error:
            found.lacking[network.name] = str(error)
            if possible == {PRETRAINED}:
                found.forced[network.name] = str(error)
                found.forced_variants.add(network.variant)
            else:
                found.without.append(network)
    return found


def _networks(space: Space) -> Iterator[_Network]:
    """Yield every family of the space, with every variant that it may have there."""
    every: list[Parameter | Constant] = [*space.parameters, *space.constants]
    families = [value for one in every if one.name == _FAMILY for value in _values(one)]
    for family in dict.fromkeys(families):
        chosen = {_FAMILY: family}
        own = [
            one for one in every if one.section == "student" and one.key in _KEYS and _goes_with(one.condition, family)
        ]
        if not own:
            yield _Network(chosen, {"family": family})
        for one in own:
            searched = _is_searched(one)
            for value in _values(one):
                values = {**chosen, one.name: value} if searched else chosen
                yield _Network(values, {"family": family, one.key: value}, one.name if searched else "")


def _values(one: Parameter | Constant) -> Sequence[Any]:
    """Return the values of a parameter or constant."""
    if _is_searched(one):
        return tuple(getattr(getattr(one, "distribution", None), "choices", ()))
    return (getattr(one, "value", None),)


def _is_searched(one: Parameter | Constant) -> bool:
    return hasattr(one, "distribution")


def _goes_with(condition: Condition, family: Any) -> bool:
    return any(name == _FAMILY and family in allowed for name, allowed in condition) or not any(
        name == _FAMILY for name, _ in condition
    )


def _available(found: _Found, *, ask: bool) -> tuple[str, ...]:
    """Check that weights that are not here can be fetched; with the hub switched off, do without them.

    Raises:
        ConfigError: they cannot, and ``ask`` is true. The message names those that are here.
    """
    from autodistill.training.weights import hub
    from autodistill.training.weights.source import unreachable

    away = {name: one for name, one in found.sources.items() if not one.is_here}
    if not away or (not ask and not hub.offline()) or (ask and hub.reachable()):
        return ()
    here = [name for name in found.sources if name not in away]
    free = [one for one in found.have if one.name in away and one.name not in found.must]
    if not hub.offline() or not here or len(free) < len(away):
        if not ask:
            return ()  # reported when the search begins
        text = unreachable(list(away), here)
        if here and len(free) == len(away):
            text += " HF_HUB_OFFLINE=1 searches with those that are here."
        raise ConfigError([text], "initial weights")
    for one in free:
        found.have.remove(one)
        found.without.append(one)
        del found.sources[one.name]
    return (f"HF_HUB_OFFLINE is set: only weights that are here are used, those of {', '.join(here)}",)


def _cells(networks: Iterable[_Network], others: Iterable[_Network]) -> list[Condition]:
    """Return conditions that hold for exactly these networks of the space, at most one at a time."""
    mixed = {one.values[_FAMILY] for one in others}
    whole = tuple(dict.fromkeys(one.values[_FAMILY] for one in networks if one.values[_FAMILY] not in mixed))
    variants: dict[tuple[Any, str], list[Any]] = {}
    for one in networks:
        if one.values[_FAMILY] in whole:
            continue
        key = (one.values[_FAMILY], one.variant)
        variants.setdefault(key, []).append(one.values.get(one.variant))
    cells: list[Condition] = [((_FAMILY, whole),)] if whole else []
    return [*cells, *(((_FAMILY, (family,)), (name, tuple(values))) for (family, name), values in variants.items())]


def _each_once(sources: Iterable[WeightSource]) -> tuple[WeightSource, ...]:
    return tuple({one.text: one for one in sources}.values())


def _forced(found: _Found) -> str:
    """Return the message about students that must start from weights and have none."""
    terms = [reason.rstrip(".") for reason in dict.fromkeys(found.forced.values()) if "licence" in reason]
    why = f" ({terms[0]})" if terms else ""
    text = f"init is pretrained, but these students have no weights: {_some(found.forced)}{why}."
    if not found.have:
        return f"{text} Use init: random."
    return (
        f"{text} Those that have: {_some(found.sources)}. Keep only those: {_restriction(found)}; or let the space "
        "choose: init: [pretrained, random]."
    )


def _restriction(found: _Found) -> str:
    """Return the options that keep the networks with weights."""
    families = dict.fromkeys(str(one.values[_FAMILY]) for one in found.have)
    out = [f"--set {_FAMILY}={','.join(families)}"]
    for name in sorted({one.variant for one in found.have} & found.forced_variants - {""}):
        kept = [str(one.values[name]) for one in found.have if one.variant == name]
        out.append(f"--set {name}={','.join(kept)}")
    return " ".join(out)


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_LISTED]) + (", …" if len(every) > _LISTED else "")
