"""Creation of new trials: draws a candidate from the sampler and refuses duplicates and infeasible candidates.

It connects the study, which records trials and spending, with an Optuna sampler, which has no notion of students.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna

from autodistill.core.errors import InfeasibleError
from autodistill.core.records import (
    Candidate,
    Constraint,
    Estimate,
    Objective,
    Params,
    TrialRecord,
    certain,
    derive_seed,
    plain,
    stable_key,
)
from autodistill.search.objectives.within_teacher import Promise
from autodistill.search.rungs.epoch_time import EpochTime, relative
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.teacher_time import changes_views, views_key
from autodistill.search.sampler import by_name, control_arm
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.space import moves, random_draws
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder
from autodistill.search.storage.trial_log import TrialLog
from autodistill.search.storage.versions import versions

GIVEN = "enqueued: not the sampler's choice"

DRAWN = "drawn at random: the sampler had several times proposed nothing new within the bounds, or the time left"

Costs = Callable[[Params], Mapping[str, float] | None]
"""Function from student settings to known costs; ``None`` if nothing is known."""


@dataclass(frozen=True)
class Proposal:
    """A candidate, with the reason if it is refused.

    Attributes:
        candidate: the candidate; its trial is already in the storage.
        refusal: reason code and message; ``None`` for a candidate to evaluate.
        again: whether its trial was left without a candidate by a driver that died.
        costs: known costs of the candidate; some may be estimates.
    """

    candidate: Candidate
    refusal: tuple[str, str] | None = None
    again: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)


class Proposer:
    """Source of new trials for a study.

    Args:
        study: the Optuna study; its sampler is set here.
        log: trials of the study.
        space: search space.
        objectives: axes of the front.
        constraints: passed to the sampler; those on known costs are checked here.
        sampler: name, or an Optuna sampler.
        rungs: fidelities, whose reports the front sampler learns from.
        seed: seed of the study.

    Attributes:
        forbidden: key of each student that is never proposed, to the student and the reason.
        blank: numbers of trials whose driver died before they had a candidate; the next candidates get these numbers.
        timed: students that were timed before the search, with their seconds per epoch.
        epoch_time: predictor of seconds per epoch if the budget limits time; ``None`` if work is counted in epochs.
    """

    def __init__(
        self,
        study: optuna.Study,
        log: TrialLog,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        *,
        sampler: str | optuna.samplers.BaseSampler,
        rungs: Rungs,
        seed: int,
    ) -> None:
        self._study, self._log, self._space, self._seed = study, log, space, seed
        self._objectives, self._constraints, self._rungs = tuple(objectives), tuple(constraints), rungs
        self._aims: tuple[Constraint, ...] = ()
        self._sampler = sampler
        self._size = space.size()
        self._controlled = control_arm.has_control(space)
        self._known: dict[str, Mapping[str, float]] = {}  # from the survey or the cost function
        self._reported: dict[str, dict[str, float]] = {}  # measured by trials, which may not report every cost
        self._pool: list[tuple[Params, Mapping[str, float]]] = []
        self._costs: Costs | None = None
        self.forbidden: dict[str, tuple[Params, str]] = {}
        self._ready = False
        self.blank: list[int] = []
        self._queued = 0
        self._drawn: Mapping[str, Any] | None = None  # candidate that the study itself has enqueued
        self._count_queue()
        self._rates: dict[frozenset[tuple[str, Any]], float] = {}
        self._rates_of = 0
        self._views: dict[frozenset[tuple[str, str]], str] = {}
        self.timed: Sequence[tuple[Params, float]] = ()
        self.epoch_time: EpochTime | None = None

    def bind(self, constraints: Sequence[Constraint], aims: Sequence[Constraint]) -> None:
        """Set the present bounds; a candidate that violates one of ``aims`` is allowed, but counts as no gain."""
        now = (tuple(constraints), tuple(aims))
        if now != (self._constraints, self._aims):
            self._constraints, self._aims = now
            self._ready = False

    def promises(self, paused: Sequence[int], bound: float) -> list[Promise]:
        """Return the front sampler's predictions for paused trials; empty for other samplers or too little data."""
        return self.front_sampler().promises(self._study, paused, bound) if self.is_front and paused else []

    @property
    def queued(self) -> bool:
        """Whether enqueued candidates are waiting."""
        return self._queued > 0

    @property
    def exhausted(self) -> bool:
        """Whether every candidate of a finite space has been proposed."""
        return self._size is not None and self._log.distinct() >= self._size

    def renew(self) -> None:
        """Rebuild the sampler at the next proposal, with a new seed: the same seed would repeat its proposals.

        Enqueued candidates that were refused for lack of time are enqueued again, and the queue is recounted.
        """
        self._ready = False
        self._requeue_late()
        self._count_queue()

    def _requeue_late(self) -> None:
        late = [t.number for t in self._log.read() if t.reason == "TIME" and t.why == GIVEN]
        if not late:
            return
        stored = self._study.get_trials(deepcopy=False)
        queue = [t.system_attrs.get("fixed_params") for t in stored if t.state is optuna.trial.TrialState.WAITING]
        for number in late:
            params = stored[number].params
            if params not in queue and self._log.twin(self._log.attributes(number)["candidate"]["key"]) is None:
                self._study.enqueue_trial(params)
                queue.append(params)

    def set_known_costs(self, rows: Iterable[tuple[Params, Mapping[str, float]]], costs: Costs | None) -> None:
        """Set the surveyed students with their costs, and a function for the costs of other students."""
        self._pool = list(rows)
        self._known.update({stable_key(student): values for student, values in self._pool})
        self._costs = costs
        self._ready = False

    def forbid(self, student: Params, why: str) -> None:
        """Exclude a student with every recipe, because it kills the worker that trains it."""
        self.forbidden[stable_key(student)] = (student, why)
        if self._ready and isinstance(self._study.sampler, FrontSampler):
            self._study.sampler.forbid(student)

    @property
    def is_front(self) -> bool:
        """Whether the front sampler proposes."""
        return self._sampler == "front" or isinstance(self._sampler, FrontSampler)

    def front_sampler(self) -> FrontSampler:
        """Return the present front sampler; costs that are set later rebuild it."""
        self._build()
        assert isinstance(self._study.sampler, FrontSampler)
        return self._study.sampler

    def enqueue(self, values: Mapping[str, Any]) -> None:
        """Enqueue a candidate (parameter name to value), to be proposed before any of the sampler."""
        self._study.enqueue_trial(dict(values))
        self._queued += 1

    def timed_costs(self) -> list[tuple[Mapping[str, float], float, str]]:
        """Return known costs, seconds per epoch and family of the timed students whose costs are known."""
        out = []
        for student, seconds in self.timed:
            try:
                costs = self._lookup(student)
            except InfeasibleError:
                continue
            if costs:
                out.append((costs, seconds, str(student.get("family", ""))))
        return out

    def learn(self, student: Params, costs: Mapping[str, float]) -> None:
        """Store costs that a trial reported."""
        key = stable_key(student)
        self._reported[key] = {**self._reported.get(key, {}), **costs}

    def known_costs(self) -> list[Mapping[str, float]]:
        """Return the known costs of all students that are not forbidden."""
        keys = [key for key in dict.fromkeys([*self._known, *self._reported]) if key not in self.forbidden]
        return [{**self._known.get(key, {}), **self._reported.get(key, {})} for key in keys]

    def propose(self) -> Proposal:
        """Create one new trial in the storage.

        Raises:
            ExhaustedError: the sampler has nothing left to propose.
        """
        self._build()
        again = bool(self.blank)
        if not again:
            self._queue_control()
        number, sections, given, outside = self._fill(self.blank.pop(0)) if again else self._new_trial()
        seed = derive_seed(self._seed, number, "trial")
        candidate = Candidate(number, sections["student"], sections["distillation"], sections["train"], seed)
        if outside:
            return Proposal(candidate, ("OUTSIDE", outside), again)
        key = candidate.key()
        twin = self._log.twin(key)
        stored = {**sections, "seed": candidate.seed, "key": key, "versions": versions()}
        explanation = self._explanation(sections) if given else getattr(self._study.sampler, "last_explanation", "")
        self._log.set(number, "candidate", {**stored, "why": explanation} if explanation else stored)
        return replace(self._checked(candidate, twin), again=again)

    def check_again(self, record: TrialRecord) -> Proposal:
        """Check a candidate again whose driver died, perhaps before it was refused."""
        one = Candidate(record.number, record.student, record.distillation, record.train, record.seed)
        twin = self._log.twin(one.key())
        return self._checked(one, None if twin == record.number else twin)

    def _checked(self, candidate: Candidate, twin: int | None) -> Proposal:
        if twin is not None:
            return Proposal(candidate, ("DUPLICATE", f"same as trial {twin}; its result counts for both"))
        try:
            costs = self._lookup(candidate.student) or {}
        except InfeasibleError as error:
            return Proposal(candidate, (error.reason, str(error)))
        broken = broken_constraints(self._constraints, certain(costs))
        return Proposal(candidate, ("INFEASIBLE", broken) if broken else None, costs=costs)

    def draw_within(self) -> str:
        """Enqueue a random candidate that is new and feasible; return why none exists, or an empty text."""

        def refusal(values: Mapping[str, Any]) -> str:
            sections = self._space.nest(values)
            one = Candidate(-1, sections["student"], sections["distillation"], sections["train"], 0)
            refused = self._checked(one, self._log.twin(one.key())).refusal
            return refused[0] if refused else ""

        seed = derive_seed(self._seed, len(self._log), "within")
        values, why = random_draws.draw_feasible(self._space, self._constraints, refusal, seed)
        if values is None:
            return why
        self._drawn = self._space.nest(values)
        self.enqueue(values)
        return ""

    def draw_known(self, fits: Callable[[Mapping[str, float], Candidate], bool]) -> bool:
        """Enqueue a random suitable candidate with a surveyed student; return whether one was found.

        Args:
            fits: whether a candidate is suitable, given the known costs of its student.
        """
        rng = np.random.default_rng(derive_seed(self._seed, len(self._log), "known"))
        for index in rng.permutation(len(self._pool)).tolist():
            student = dict(self._pool[index][0])
            values = moves.complete_student(self._space, self._space.flatten_section("student", student), rng)
            sections = self._space.nest(values)
            one = Candidate(-1, student, sections["distillation"], sections["train"], 0)
            if fits(self._lookup(student) or {}, one) and self._checked(one, self._log.twin(one.key())).refusal is None:
                self._drawn = sections
                self.enqueue(values)
                return True
        return False

    def _explanation(self, sections: Mapping[str, Any]) -> str:
        return DRAWN if sections == self._drawn else GIVEN

    def _new_trial(self) -> tuple[int, dict[str, dict[str, Any]], bool, str]:
        """Create a trial; return its number, the sections of its candidate, whether it was enqueued, and any errors.

        Errors, as text, occur only in enqueued candidates: a dashboard or Optuna may enqueue any values.
        """
        sampler = self._study.sampler
        self._count_queue()  # a dashboard may have enqueued a candidate since
        if isinstance(sampler, FrontSampler) and not self._queued:  # as study.ask, in a third of the transactions
            values = sampler.propose(self._study)
            return self._log.create(values, self._space.active(values)), self._space.nest(values), False, ""
        trial = self._study.ask()
        self._log.add(trial.number, trial._trial_id)  # before values are suggested, which may fail
        return self._suggest(trial)

    def _fill(self, number: int) -> tuple[int, dict[str, dict[str, Any]], bool, str]:
        """Choose the candidate of a trial that exists, as :meth:`_new_trial` would have."""
        sampler, stored = self._study.sampler, self._log.stored_trial(number)
        if isinstance(sampler, FrontSampler) and "fixed_params" not in stored.system_attrs:
            values = moves.within(self._space, stored.params)
            if not stored.params:
                values = sampler.propose(self._study)
                self._log.give_params(number, values, self._space.active(values))
            if values is not None:
                return number, self._space.nest(values), False, ""
        return self._suggest(optuna.trial.Trial(self._study, stored._trial_id))

    def _suggest(self, trial: optuna.Trial) -> tuple[int, dict[str, dict[str, Any]], bool, str]:
        given = bool(trial._fixed_params)
        self._queued = max(0, self._queued - given)
        outside = self._space.outside(trial._fixed_params)
        if outside:
            return trial.number, self._space.nest({}), given, "; ".join(outside)
        sections = self._space.suggest(trial)
        self._log.set_params(trial.number, trial.params)
        return trial.number, sections, given, ""

    def _count_queue(self) -> None:
        self._queued = study_folder.waiting(self._study)

    def _queue_control(self) -> None:
        """Enqueue a trial without distillation if too few trials are; Optuna takes enqueued trials first."""
        if not self._controlled or len(self._log) + 1 < control_arm.ONE_IN:
            return
        trials = self._log.read()
        if control_arm.due(trials):
            every = self._study.get_trials(deepcopy=False)
            if any(t.state is optuna.trial.TrialState.WAITING for t in every):
                return
            stored = {t.number: t.params for t in every}
            self.enqueue(control_arm.control(trials, self._objectives, stored.__getitem__))

    def _build(self) -> None:
        if self._ready:
            return
        self._ready = True
        self._make_sampler()
        if isinstance(self._study.sampler, FrontSampler):
            for student, _ in self.forbidden.values():
                self._study.sampler.forbid(student)

    def _make_sampler(self) -> None:
        if isinstance(self._sampler, optuna.samplers.BaseSampler):
            self._study.sampler = self._sampler
            if isinstance(self._sampler, FrontSampler):
                self._connect(self._sampler)
            return
        sampler = by_name.build_sampler(
            self._sampler,
            self._space,
            seed=derive_seed(self._seed, 0 if self._sampler in by_name.BY_TRIALS else len(self._log), "sampler"),
            objectives=self._objectives,
            constraints=self._constraints,
            aims=self._aims,
            costs=self._costs_or_empty if self._costs else None,
            rungs=self._rungs.levels,
            epoch_cost=self._epoch_cost,
        )
        if isinstance(sampler, FrontSampler):
            if self._pool:
                sampler.set_pool(self._pool)
            self._connect(sampler)
        self._study.sampler = sampler

    def _connect(self, sampler: FrontSampler) -> None:
        """Let the sampler read the trials from memory, and keep with the study what it remembers beside them."""
        sampler.read_from(self._log.stored)
        sampler.memory.load(self._log.sampler_memory())
        sampler.memory.save = self._log.keep_sampler_memory

    def _epoch_cost(self, values: Mapping[str, Any]) -> float:
        """Return the predicted seconds of one epoch if the budget limits time, else 1; called for 1000 values at once.

        Before any trial has run, the value is a relative cost without a unit, so that the initial design can use cheap
        students.
        """
        if self.epoch_time is None:
            return 1.0
        if self._rates_of != self.epoch_time.refresh():
            self._rates, self._rates_of = {}, self.epoch_time.version
        settings = frozenset(item for item in values.items() if item[0].startswith("student."))
        if settings not in self._rates:
            student = self._space.nest(values)["student"]
            try:
                costs = self._lookup(student) or {}
            except InfeasibleError:
                costs = {}
            self._rates[settings] = self.epoch_time.predict(costs, str(student.get("family", ""))) or relative(costs)
        return self._rates[settings] + self._teacher_cost(values)

    def _teacher_cost(self, values: Mapping[str, Any]) -> float:
        """Return the seconds per epoch of computing teacher outputs that are not cached; 0 if nothing is predicted.

        The first trial with an augmentation pays for the outputs that later trials reuse, so the sampler avoids new
        augmentations late in a search.
        """
        if self.epoch_time is None or not self.epoch_time.ready:
            return 0.0
        names = frozenset((name, str(value)) for name, value in values.items() if changes_views(name))
        if names not in self._views:
            sections = self._space.nest(values)
            self._views[names] = views_key(sections["distillation"], sections["train"])
        top = self._rungs.levels[-1]
        return self.epoch_time.uncached.ahead(self._views[names], 0.0, top) / top

    def _costs_or_empty(self, student: Params) -> Mapping[str, float]:
        return self._lookup(student) or {}  # empty: costs unknown, may be proposed; ``None`` would exclude the student

    def _lookup(self, student: Params) -> Mapping[str, float] | None:
        """Return the known costs of a student: those measured by trials, others from the survey or the cost function.

        Raises:
            InfeasibleError: the student is forbidden.
        """
        key = stable_key(student)
        if key in self.forbidden:
            raise InfeasibleError(self.forbidden[key][1], "CRASH")
        reported = self._reported.get(key)
        if key not in self._known and self._costs is not None:
            found = self._costs(student)
            if found is None:
                return reported
            self._known[key] = {n: v if isinstance(v, Estimate) else plain(v) for n, v in found.items()}
        return {**self._known.get(key, {}), **(reported or {})} if key in self._known or reported else None


def broken_constraints(constraints: Sequence[Constraint], values: Mapping[str, float]) -> str:
    """Return the constraints that ``values`` violate, in words; empty if they satisfy all."""
    broken = [c for c in constraints if c.violation(values) > 0]
    return "; ".join(f"{c.metric} is {values[c.metric]:g}, the constraint is {c}" for c in broken)
