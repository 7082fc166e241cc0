"""The default sampler, which proposes candidates by expected hypervolume improvement.

:class:`FrontSampler` uses what general samplers do not: some objectives (size, latency) are known before training. It
models only the other objectives, with the known costs among its inputs, and computes the expected hypervolume
improvement in closed form. It is an ordinary Optuna sampler.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autodistill.core.errors import AutodistillError
from autodistill.core.records import Constraint, Objective, derive_seed
from autodistill.search.model.front_model import Model
from autodistill.search.model.model_input import CandidateBatch, ModelInput, front_owners, hint_names
from autodistill.search.model.observations import ObservationStore
from autodistill.search.model.scoring import CandidateScorer, EpochCost
from autodistill.search.objectives.objectives import worst_wanted
from autodistill.search.objectives.within_teacher import Promise
from autodistill.search.rungs import promotion
from autodistill.search.rungs.levels import RungDecision
from autodistill.search.rungs.promotion import Action, PausedTrial
from autodistill.search.sampler import initial_design
from autodistill.search.sampler.candidate_source import SEARCHED, CandidateSource
from autodistill.search.sampler.known_costs import CostFunction, Costs, KnownCosts
from autodistill.search.sampler.local_search import BRIEF, FULL, LocalSearchEffort, search_locally
from autodistill.search.sampler.prior_weight import PriorWeight
from autodistill.search.sampler.sampler_memory import SamplerMemory, Shortlist
from autodistill.search.space import moves
from autodistill.search.space.distributions import from_unit
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.priors import at_unit
from autodistill.search.space.space import Space
from autodistill.search.storage.history import Outcome, StoredTrial, infer_objectives

Floats = npt.NDArray[np.float64]

FIRST_DRAWS = 80
"""Fresh draws among which each trial of the initial design is chosen, beside the reference sample."""

COMPARED, FEW = 20, 8
"""Numbers of paused trials and of new candidates, by greatest gain, whose index is computed; the greatest index nearly
always belongs to the greatest gain."""

SHORTLIST, SHORTLIST_AGE = 96, 8
"""Number of new candidates that are remembered for comparison with paused trials, and for how many trials."""


class ExhaustedError(AutodistillError):
    """Every candidate of the space that may be proposed has been proposed; the search is complete."""


class FrontSampler(BaseSampler):
    """Sampler by expected hypervolume improvement with known costs.

    Args:
        space: search space, parsed or as a nested mapping.
        objectives: in the order of the study's values; by default read from the study's directions and metric names
            (without names: the first is trained, the others are the known costs in their order).
        costs: function from student settings to known costs by name; ``None`` (or ``InfeasibleError``) if the student
            cannot be built. It is called for hundreds of students, so it should be quick or cache its results; a
            surveyed pool (:meth:`set_pool`) can replace or precede it.
        constraints: those on known costs are respected exactly; a candidate expected to violate one on a trained
            objective counts as no gain.
        aims: bounds on trained objectives that are no constraints of the study; violating one also counts as no gain.
        seed: seed of all random draws, which also depend on the stored trials.
        startup: trials of the initial design (11, or 8 with rungs); the last is the cheapest known student.
        rungs: cumulative epochs of the rungs, the last being the full training; empty if every trial trains fully.
        epoch_cost: predicted work (e.g. seconds) of one epoch of a candidate, given its values; 1 by default. The
            initial design is chosen from the half of the candidates with the least work.

    Attributes:
        last_explanation: why the last candidate was proposed, in words.
        last_standings: results of the last comparison by :meth:`next_action`, by number of the paused trial.
        memory: what the sampler remembers beside the trials; kept with the study, so that a resumed search decides as
            an uninterrupted one would have.
    """

    def __init__(
        self,
        space: Space | Mapping[str, Any],
        objectives: Sequence[Objective] | None = None,
        *,
        costs: CostFunction | None = None,
        constraints: Sequence[Constraint] = (),
        aims: Sequence[Constraint] = (),
        seed: int = 0,
        startup: int | None = None,
        rungs: Sequence[float] = (),
        epoch_cost: EpochCost | None = None,
    ) -> None:
        self.space = space if isinstance(space, Space) else Space.parse(space)
        self.last_explanation = ""
        self._objectives = tuple(objectives) if objectives is not None else None
        self._known_costs = KnownCosts(self.space, costs, constraints)
        self._aims = tuple(aims)
        self._encoder = Encoder.of(self.space)
        self._prior_weight = PriorWeight(self.space, self._encoder)
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._source = CandidateSource(self._known_costs, self._encoder, self._rng)
        self._chosen: dict[int, dict[str, Any]] = {}
        self._observations: ObservationStore | None = None
        self._trials: Callable[[], Sequence[StoredTrial]] | None = None
        self.memory = SamplerMemory()
        self._rungs = tuple(rungs) if len(rungs) > 1 else ()
        self.startup = initial_design.length(self._rungs) if startup is None else startup
        self._epoch_cost = epoch_cost
        self._shortlist: Shortlist | None = None
        self._fitted: tuple[tuple[int, ...], CandidateScorer] | None = None
        self._lock = threading.RLock()
        self._next: tuple[int, dict[str, Any], Callable[[], str]] | None = None
        self.last_standings: dict[int, PausedTrial] = {}

    def set_pool(self, pool: Iterable[tuple[Mapping[str, Any], Costs]]) -> None:
        """Set the surveyed students, as pairs of student settings and known costs.

        Other students are proposed if ``costs`` returns their costs. An :class:`~autodistill.core.records.Estimate`
        among the costs enters the gain with its uncertainty.
        """
        self._known_costs.set_pool(pool)
        self._source.forget()
        self._shortlist = self._fitted = self._observations = None

    def forbid(self, student: Mapping[str, Any]) -> None:
        """Exclude a student, e.g. one that kills the worker that trains it."""
        self._known_costs.forbid(student)
        self._source.leave_out_forbidden()
        self._shortlist = self._next = None

    def read_from(self, trials: Callable[[], Sequence[StoredTrial]]) -> None:
        """Read trials from this function, which has them in memory, instead of the study's storage."""
        self._trials, self._observations = trials, None

    def reseed_rng(self) -> None:
        """Reseed a copy of the sampler in another worker (Optuna's hook)."""
        self._seed = int(np.random.default_rng().integers(2**31))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters of the candidate that was chosen for this trial."""
        if trial.system_attrs.get("fixed_params"):
            return {}
        with self._lock:  # Optuna's n_jobs are threads
            values = self.propose(study, salt=trial.number)
        self._chosen[trial.number] = values
        return self.space.active(values)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the chosen candidate."""
        del study
        return self._chosen.pop(trial.number, {}) if search_space else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value, by its prior if it has one: for parameters outside the space or beside enqueued ones."""
        del study
        known = next((p for p in self.space.parameters if p.name == param_name), None)
        prior = known.prior if known is not None and known.distribution == param_distribution else None
        uniform = np.random.default_rng(derive_seed(self._seed, trial.number, param_name)).random()
        return from_unit(param_distribution, at_unit(prior, float(uniform)))

    def propose(self, study: optuna.Study, *, paused: Collection[int] = (), salt: int = 0) -> dict[str, Any]:
        """Return the parameter values of the next candidate.

        Args:
            study: study whose trials the model learns from.
            paused: trials that are open but not being trained.
            salt: another number gives other random draws for the same trials.

        Raises:
            ExhaustedError: nothing is left to propose.
        """
        observations = self._read(study)
        if self._next is not None and self._next[0] == len(observations):
            _, values, explain = self._next
            self.last_explanation = explain()
            return values
        self._begin(observations, salt)
        found = self._choose_new(observations, paused)
        self._remember()
        return found

    def _choose_new(self, observations: ObservationStore, paused: Collection[int]) -> dict[str, Any]:
        if self._starting(observations):
            return self._initial_design(observations)
        scorer = self._fit(observations, paused)
        pool, gain = self._promising(scorer, observations)
        if not pool.values:
            return self._any_remaining(observations.keys())
        best = int(np.argmax(gain / scorer.work(pool)))
        self.last_explanation = scorer.explain(pool, best, len(gain))
        return pool.values[best]

    def exhausted(self, study: optuna.Study) -> bool:
        """Return whether nothing is left to propose; Optuna itself finds out only at the first suggested parameter."""
        try:
            values = self.propose(study)
        except ExhaustedError:
            return True
        why = self.last_explanation
        self._next = len(self._read(study)), values, lambda: why
        return False

    def next_action(
        self, study: optuna.Study, *, paused: Collection[int] = (), remaining: float = math.inf
    ) -> Action | None:
        """Choose whether a paused trial or a new candidate is trained next.

        If a new candidate is chosen, the next ``study.ask()`` returns it.

        Args:
            study: study whose trials the model learns from.
            paused: trials that can continue from a checkpoint.
            remaining: work left in the budget; nothing is started that cannot reach the top rung within it.

        Returns:
            The choice; ``None`` if nothing fits into the budget.
        """
        return self._decide(study, paused, remaining, fresh=True)

    def _decide(self, study: optuna.Study, paused: Collection[int], remaining: float, *, fresh: bool) -> Action | None:
        """Choose like :meth:`next_action`; without ``fresh``, new candidates come from a remembered shortlist."""
        observations = self._read(study)
        self._next, self.last_standings = None, {}
        self._begin(observations)
        action = self._compare(observations, sorted(paused), remaining, fresh=fresh)
        self._remember()
        return action

    def _compare(
        self, observations: ObservationStore, paused: Sequence[int], remaining: float, *, fresh: bool
    ) -> Action | None:
        if not self._rungs:
            return Action(None, math.inf, "every trial is a full training")
        if self._starting(observations):
            if len(observations) < self.startup or not paused:
                return Action(None, math.inf, "first design")
            return Action(min(paused), math.inf, "an objective has hardly been measured yet")
        if not self._learned():
            return Action(min(paused, default=None), math.inf, "every objective is known before training")
        scorer = self._fit(observations, paused)
        waiting = [observations.open.get(n) or observations.closed[n] for n in paused]
        best = self._best_paused(scorer, observations, waiting, remaining) if waiting else None
        new = self._best_challenger(scorer, observations, best, remaining, fresh=fresh)
        if best is None or (new is not None and new.index >= best.index):  # a tie goes to the new candidate
            return new
        self._next = None
        return best

    def _best_challenger(
        self,
        scorer: CandidateScorer,
        observations: ObservationStore,
        best: Action | None,
        remaining: float,
        *,
        fresh: bool,
    ) -> Action | None:
        """Return the best new candidate; against a paused trial, remembered ones are tried first, which is quicker."""
        recent = self._shortlist is not None and len(observations) - self._shortlist.trials <= SHORTLIST_AGE
        if recent and (best is not None or not fresh):
            new = self._best_new(scorer, observations, self._remembered(scorer, observations), remaining)
            if not fresh or (best is not None and new is not None and best.index > new.index):
                return new
        return self._best_new(scorer, observations, self._promising(scorer, observations), remaining)

    def _best_paused(
        self, scorer: CandidateScorer, observations: ObservationStore, waiting: Sequence[Outcome], remaining: float
    ) -> Action | None:
        pool = self._pool_of(observations, waiting)
        gain = scorer.gain(pool)
        likely = np.argsort(-gain, kind="stable")[:COMPARED].tolist()
        waiting, pool = [waiting[i] for i in likely], pool.take(likely)
        index, reach = scorer.index(pool, [o.rung for o in waiting])
        self.last_standings = promotion.standings(waiting, gain[likely], reach, index)
        index = np.where(reach <= remaining, index, -1.0)
        i = int(np.argmax(index))
        if index[i] < 0:
            return None
        why = f"{index[i]:.3g} of the front per epoch is the most that any trial or new candidate promises"
        return Action(waiting[i].number, float(index[i]), why)

    def _best_new(
        self,
        scorer: CandidateScorer,
        observations: ObservationStore,
        found: tuple[CandidateBatch, Floats],
        remaining: float,
    ) -> Action | None:
        pool, gain = found
        work = scorer.work(pool)
        fitting = np.flatnonzero(work * self._rungs[-1] <= remaining)
        if not len(fitting):
            return None
        likely = fitting[np.argsort(-gain[fitting] / work[fitting], kind="stable")[:FEW]]
        pool, work = pool.take(likely.tolist()), work[likely]
        index, reach = scorer.index(pool, [0] * len(pool.values))
        index = np.where(reach <= remaining, index, -1.0)
        # The prior only ranks new candidates; the index compared with paused trials is the model's alone.
        i = int(np.argmax(index * self._prior_weight.of(pool.values, len(observations))))
        if index[i] < 0:
            return None
        self._next = len(observations), pool.values[i], lambda: scorer.explain(pool, i, len(fitting))
        why = f"a new candidate promises {index[i]:.3g} of the front per epoch"
        return Action(None, float(index[i]), why, float(work[i]))

    def verdict(
        self, study: optuna.Study, number: int, *, paused: Collection[int] = (), remaining: float = math.inf
    ) -> RungDecision:
        """Decide whether trial ``number``, which has just reported, continues now.

        Args:
            study: study whose trials the model learns from; the report is among the trial's attributes.
            number: number of the trial.
            paused: other trials that can continue from a checkpoint.
            remaining: see :meth:`next_action`.
        """
        if len(self._read(study)) < self.startup:
            return RungDecision(False, "paused until the first design has been seen")
        action = self._decide(study, {*paused, number}, remaining, fresh=False)
        self._next = None  # the next proposal considers fresh candidates, not only remembered ones
        if action is None:
            return RungDecision(False, "the rest of the budget does not reach the top rung")
        if action.trial == number:
            return RungDecision(True, action.why)
        other = "a new candidate" if action.trial is None else f"trial {action.trial}"
        return RungDecision(False, f"{other} promises more per epoch: {action.index:.3g} of the front")

    def promises(self, study: optuna.Study, paused: Sequence[int], bound: float) -> list[Promise]:
        """Return predictions for paused trials at the top rung; empty if there is too little data.

        Args:
            study: study whose trials the model learns from.
            paused: numbers of the trials.
            bound: wanted value of the first objective, which is learned.
        """
        observations = self._read(study)
        if 0 not in self._learned() or not self._rungs or self._starting(observations):
            return []
        scorer = self._fit(observations, paused)
        waiting = [observations.open.get(n) or observations.closed[n] for n in paused]
        values, chances = scorer.expected(self._pool_of(observations, waiting), bound)
        rows = zip(paused, values.tolist(), chances.tolist(), strict=True)
        return [Promise(number, middle, abs(high - low) / 2, chance) for number, (low, middle, high), chance in rows]

    def _starting(self, observations: ObservationStore) -> bool:
        """Return whether there is too little data for a model."""
        return len(observations) < self.startup or observations.least_measured(self._learned()) < min(3, self.startup)

    def _learned(self) -> list[int]:
        """Return the indices of the objectives that are not known before training."""
        known = self._known_costs.names()
        return [j for j, objective in enumerate(self._objectives or ()) if objective.name not in known]

    def _read(self, study: optuna.Study) -> ObservationStore:
        if self._observations is None:
            self._source.reference()  # sets the names of the known costs
            if self._objectives is None:
                self._objectives = infer_objectives(study, self._known_costs.names())
            names = tuple(o.name for o in self._objectives)
            hints = hint_names(self._known_costs.names(), self._objectives)
            self._observations = ObservationStore(
                self.space, self._encoder, names, self._known_costs.costs, self._rungs, hints
            )
        ended = self._observations.update(study.get_trials(deepcopy=False) if self._trials is None else self._trials())
        for outcome in sorted(ended, key=lambda one: one.number):
            self._known_costs.learn(outcome.values, outcome.costs)
        return self._observations

    def _begin(self, observations: ObservationStore, salt: int = 0) -> None:
        """Begin a decision, which depends on nothing but the stored trials and the memory."""
        at = (len(observations), len(observations.observations().owners), len(observations.closed))
        self._rng = self._source.rng = np.random.default_rng([self._seed, *at, salt])
        remembered = self.memory.begin(at)
        self._shortlist, self._source.counted = remembered.shortlist, dict.fromkeys(remembered.counted)

    def _remember(self) -> None:
        self.memory.keep(shortlist=self._shortlist, counted=tuple(self._source.counted))

    def _pool_of(self, observations: ObservationStore, outcomes: Sequence[Outcome]) -> CandidateBatch:
        """Convert trials to a batch of candidates."""
        return CandidateBatch.of(
            [dict(o.values) for o in outcomes], [observations.known(o) for o in outcomes], self._encoder
        )

    def _initial_design(self, observations: ObservationStore) -> dict[str, Any]:
        pool = self._source.reference().join(self._source.draws(FIRST_DRAWS)).unseen(observations.keys())
        if not pool.values:
            return self._any_remaining(observations.keys())
        before = sorted([*observations.closed.values(), *observations.running()], key=lambda one: one.number)
        earlier = self._pool_of(observations, before)
        # The design spreads over parameters without a prior; those with one keep each candidate's own draw.
        seen, taken = (
            replace(one, params=np.where(self._prior_weight.drawn, 0.0, one.params)) for one in (pool, earlier)
        )
        row, self.last_explanation = initial_design.choose_design(
            seen, taken, self._known_objectives(), self._encoder.groups, self.startup, self._rng, self._work(pool)
        )
        return pool.values[row]

    def _work(self, pool: CandidateBatch) -> Floats | None:
        """Return the cost of one epoch per candidate; ``None`` if no cost function was given."""
        return None if self._epoch_cost is None else np.array([self._epoch_cost(values) for values in pool.values])

    def _known_objectives(self) -> list[Objective]:
        """Return the objectives that are known costs."""
        known = self._known_costs.names()
        return [o for o in self._objectives or () if o.name in known]

    def _any_remaining(self, seen: AbstractSet[moves.Key]) -> dict[str, Any]:
        """Return any candidate that is left, when draws find none."""
        left = self._source.any_remaining(seen)
        if left is None:
            raise ExhaustedError(
                f"all {len(seen)} candidates that are feasible, or found so in {SEARCHED:.0f} s, were proposed."
            )
        return left

    def _promising(self, scorer: CandidateScorer, observations: ObservationStore) -> tuple[CandidateBatch, Floats]:
        """Return new candidates and their expected gains."""
        front = [observations.closed[n].values for n in front_owners(scorer.model.observed) if n in observations.closed]
        found = self._source.promising(front, observations.keys(), self._gain(scorer, observations))
        pool, gain = self._improved(scorer, observations, *found, FULL)
        best = np.argsort(-gain, kind="stable")[:SHORTLIST].tolist()
        self._shortlist = Shortlist(len(observations), tuple(pool.values[i] for i in best))
        return pool, gain

    def _remembered(self, scorer: CandidateScorer, observations: ObservationStore) -> tuple[CandidateBatch, Floats]:
        """Return the remembered new candidates, scored and locally improved again."""
        assert self._shortlist is not None
        pool = self._source.feasible(moves.unique(map(dict, self._shortlist.candidates), {*observations.keys()}))
        pool, gain = self._improved(scorer, observations, pool, self._gain(scorer, observations)(pool), BRIEF)
        self._shortlist = Shortlist(self._shortlist.trials, tuple(pool.values))
        return pool, gain

    def _improved(
        self,
        scorer: CandidateScorer,
        observations: ObservationStore,
        pool: CandidateBatch,
        gain: Floats,
        effort: LocalSearchEffort,
    ) -> tuple[CandidateBatch, Floats]:
        """Return the candidates, plus better recipes for the most promising of their students, with all gains."""
        if not pool.values:
            return pool, gain
        top = np.argsort(-gain / scorer.work(pool), kind="stable")[: effort.candidates].tolist()
        best = pool.take(top)
        of = self._gain_of(scorer, observations, best)
        moved = search_locally(best, gain[top], self.space, self._encoder, of, self._rng, effort)
        near = self._source.feasible(moves.unique(moved, {*observations.keys(), *pool.keys}))
        return pool.join(near), np.concatenate([gain, self._gain(scorer, observations)(near)])

    def _gain(self, scorer: CandidateScorer, observations: ObservationStore) -> Callable[[CandidateBatch], Floats]:
        """Return a function for the expected gain of new candidates, weighted by the priors of the space."""
        if not self._prior_weight.known:
            return scorer.gain
        return lambda pool: scorer.gain(pool) * self._prior_weight.of(pool.values, len(observations))

    def _gain_of(
        self, scorer: CandidateScorer, observations: ObservationStore, pool: CandidateBatch
    ) -> Callable[[Floats, npt.NDArray[np.int64]], Floats]:
        """Return the same function for the candidates in ``pool`` with other numeric values."""
        gain = scorer.gain_of(pool)
        if not self._prior_weight.known:
            return gain
        return lambda params, rows: (
            gain(params, rows) * self._prior_weight.moved(pool.values, params, rows, len(observations))
        )

    def _fit(self, observations: ObservationStore, paused: Collection[int]) -> CandidateScorer:
        """Fit the model and return its scorer; running candidates count as finished with their predicted losses.

        The next candidate is thus drawn away from running ones.
        """
        assert self._objectives is not None
        seen, names = observations.observations(), self._known_costs.names()
        running = [o for o in observations.running() if o.number not in paused]
        state = (len(seen.owners), len(observations.closed), *(o.number for o in running))
        if self._fitted is not None and self._fitted[0] == state:
            return self._fitted[1]
        bounds = worst_wanted((*self._known_costs.constraints, *self._aims), self._objectives)
        sample = self._source.reference()
        model_input = ModelInput(
            self._objectives,
            names,
            self._encoder,
            seen,
            sample=sample,
            rungs=self._rungs,
            bounds=bounds,
            first=max(1, self.startup - 1),  # without the cheapest student, the last of the initial design
        )
        data = model_input.data(seen)
        optimize = len(data.losses) >= self.memory.fitted_at * 1.08 + 1
        if optimize:
            self.memory.fitted_at = len(data.losses)
        rng = np.random.default_rng([self._seed, len(seen.owners), len(observations.closed)])
        model = Model(data, model_input, thetas=self.memory.thetas, optimize=optimize, rng=rng)
        running = [o for o in running if observations.known(o).keys() >= {p.name for p in self._known_objectives()}]
        scorer = CandidateScorer(model_input, model, self._rungs, self._epoch_cost, self._known_costs.constraints)
        if running:
            pool = self._pool_of(observations, running)
            mean, _ = scorer.final(pool)
            believed = data.with_predicted(
                model_input.features(pool.params, model_input.inputs(pool.costs)), model.expected(mean)
            )
            model = Model(believed, model_input, thetas=self.memory.thetas, optimize=False, rng=rng)
            scorer = replace(scorer, model=model)
        self._fitted = state, scorer
        return scorer
