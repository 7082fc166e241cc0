"""Samplers: who proposes the next candidate. ``front`` is ours; Optuna's stay selectable.

:class:`FrontSampler` uses what a general sampler does not: some objectives (size, latency) are known before training.
It models only the others, with the known costs among the inputs, and takes the expected hypervolume improvement in
closed form. It is an ordinary Optuna sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from autodistill.errors import AutodistillError, UnknownNameError, UsageError
from autodistill.records import Constraint, Objective
from autodistill.search import proposals
from autodistill.search.catalogue import Catalogue, CostFunction, Costs
from autodistill.search.features import Encoder
from autodistill.search.history import Outcome, infer_objectives, outcome
from autodistill.search.model import Axis, Data, Model, encoder_groups
from autodistill.search.space import Space

Floats = npt.NDArray[np.float64]

SAMPLERS = ("front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc")
REFERENCE_SAMPLE = 600
FRESH_DRAWS = 150


class ExhaustedError(AutodistillError):
    """Every candidate of the space that may be proposed has been proposed; the search is complete."""


@dataclass(frozen=True)
class _Pool:
    """Candidates side by side with their costs and features."""

    values: list[dict[str, Any]]
    costs: list[Mapping[str, float]]
    params: Floats

    def take(self, rows: Sequence[int]) -> _Pool:
        return _Pool([self.values[i] for i in rows], [self.costs[i] for i in rows], self.params[list(rows)])

    def join(self, other: _Pool) -> _Pool:
        return _Pool(self.values + other.values, self.costs + other.costs, np.concatenate([self.params, other.params]))


class FrontSampler(BaseSampler):
    """Expected hypervolume improvement with known costs.

    Args:
        space: search space, parsed or as a nested mapping.
        objectives: in the order of the study's values; by default read from the study's directions and metric names
            (without names: the first is trained, the others are the known costs in their order).
        costs: student settings to known costs by name; ``None`` (or ``InfeasibleError``) for one that cannot be built.
            It is called for hundreds of students, so it should be quick or remember its answers; a surveyed pool
            (:meth:`set_pool`) can stand in for it.
        constraints: on known costs; respected exactly.
        seed: of everything random; use another one when a study is resumed.
        startup: trials of the first design.
    """

    def __init__(
        self,
        space: Space | Mapping[str, Any],
        objectives: Sequence[Objective] | None = None,
        *,
        costs: CostFunction | None = None,
        constraints: Sequence[Constraint] = (),
        seed: int = 0,
        startup: int = 10,
    ) -> None:
        self.space = space if isinstance(space, Space) else Space.parse(space)
        self.startup = startup
        self.last_explanation = ""
        self._objectives = tuple(objectives) if objectives is not None else None
        self._catalogue = Catalogue(self.space, costs, constraints)
        self._encoder = Encoder.of(self.space)
        self._rng = np.random.default_rng(seed)
        self._chosen: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._thetas: dict[int, Floats] = {}
        self._fitted_at = 0
        self._sample: _Pool | None = None

    def set_pool(self, pool: Iterable[tuple[Mapping[str, Any], Costs]]) -> None:
        """Propose only surveyed students: pairs of student settings and their known costs."""
        self._catalogue.set_pool(pool)
        self._sample = None

    def reseed_rng(self) -> None:
        """Optuna's hook for workers that copied the sampler."""
        self._rng = np.random.default_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters of the candidate that was chosen for this trial."""
        if trial.system_attrs.get("fixed_params"):
            return {}
        values = self.propose(study)
        self._chosen = {trial.number: values}
        return self.space.active(values)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The chosen candidate."""
        del study
        return self._chosen.pop(trial.number, {}) if search_space else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A uniform draw: for parameters outside the space, or beside enqueued ones."""
        del study, trial, param_name
        return proposals.from_unit(param_distribution, float(self._rng.random()))

    def propose(self, study: optuna.Study) -> dict[str, Any]:
        """Parameter values of the next candidate.

        Raises:
            ExhaustedError: nothing is left to propose.
        """
        outcomes = self._read(study)
        seen = {proposals.key(o.values) for o in outcomes}
        sample = self._reference_sample()
        done = [o for o in outcomes if o.kind == "complete"]
        if len(done) < min(3, self.startup) or len(outcomes) < self.startup:
            return self._first_design(outcomes, sample, seen)
        return self._best_gain(study, outcomes, sample, seen)

    def _read(self, study: optuna.Study) -> list[Outcome]:
        names = [o.name for o in self._axes_objectives(study)]
        for trial in study.get_trials(deepcopy=False):
            if trial.number not in self._outcomes or self._outcomes[trial.number].kind == "running":
                self._outcomes[trial.number] = outcome(trial, names)
        return [o for o in self._outcomes.values() if o.values]

    def _axes_objectives(self, study: optuna.Study) -> tuple[Objective, ...]:
        if self._objectives is None:
            self._reference_sample()
            self._objectives = infer_objectives(study, self._catalogue.names())
        return self._objectives

    def _reference_sample(self) -> _Pool:
        """Random feasible candidates; the same ones after a resume, so that scales do not move."""
        if self._sample is None:
            rng = np.random.default_rng(0)
            drawn = (self._catalogue.draw(rng) for _ in range(REFERENCE_SAMPLE))
            self._sample = self._pool(proposals.unique(drawn, set()))
        return self._sample

    def _pool(self, candidates: Sequence[dict[str, Any]]) -> _Pool:
        """Keep what may be proposed."""
        pairs = [(values, self._catalogue.costs(values)) for values in candidates]
        kept = [(values, costs) for values, costs in pairs if costs is not None]
        values = [v for v, _ in kept]
        return _Pool(values, [c for _, c in kept], self._encoder.encode(values))

    def _first_design(self, outcomes: list[Outcome], sample: _Pool, seen: set[str]) -> dict[str, Any]:
        fresh = self._pool([self._catalogue.draw(self._rng) for _ in range(FRESH_DRAWS)])
        pool = self._unseen(sample.join(fresh), seen)
        if not pool.values:
            return self._anything(seen)
        names = self._catalogue.names()
        costs = np.array([[c[name] for name in names] for c in pool.costs]).reshape(len(pool.values), len(names))
        taken = self._encoder.encode([o.values for o in outcomes])
        row = proposals.spread(pool.params, costs, taken, len(outcomes), self.startup)
        self.last_explanation = f"first design, {len(outcomes) + 1} of {self.startup}: spread over the known costs"
        return pool.values[row]

    def _unseen(self, pool: _Pool, seen: set[str]) -> _Pool:
        return pool.take([i for i, values in enumerate(pool.values) if proposals.key(values) not in seen])

    def _anything(self, seen: set[str]) -> dict[str, Any]:
        """Any candidate that is left, when draws find none."""
        everything = self.space.enumerate() or []
        left = [v for v in everything if proposals.key(v) not in seen and self._catalogue.costs(v) is not None]
        if not left:
            raise ExhaustedError(f"all {len(seen)} candidates of the space that may be proposed have been proposed.")
        return left[int(self._rng.integers(len(left)))]

    def _best_gain(self, study: optuna.Study, outcomes: list[Outcome], sample: _Pool, seen: set[str]) -> dict[str, Any]:
        view = _View(self._axes_objectives(study), self._encoder, outcomes, sample, self._catalogue)
        model = self._model(view, outcomes)
        pool = self._unseen(sample, seen)
        known = {proposals.key(v) for v in pool.values} | seen
        parents = [o.values for o in view.front(outcomes)]
        moved = [c for parent in parents for c in proposals.neighbours(self.space, parent, self._rng)]
        mixed = proposals.crossovers(self.space, parents, FRESH_DRAWS, self._rng)
        drawn = (self._catalogue.draw(self._rng) for _ in range(FRESH_DRAWS))
        pool = pool.join(self._pool(proposals.unique([*moved, *mixed, *drawn], known)))
        if not pool.values:
            return self._anything(seen)
        gain, mean, deviation = self._score(model, view, pool)
        for _ in range(3):
            top = np.argsort(-gain, kind="stable")[:5]
            moves = [c for i in top for c in proposals.neighbours(self.space, pool.values[i], self._rng)]
            near = self._pool(proposals.unique(moves, known))
            if not near.values:
                break
            new = self._score(model, view, near)
            pool = pool.join(near)
            gain, mean, deviation = (np.concatenate(pair) for pair in zip((gain, mean, deviation), new, strict=True))
        best = int(np.argmax(gain))
        self.last_explanation = view.explain(mean[best], deviation[best], float(gain[best]), len(gain))
        return pool.values[best]

    def _score(self, model: Model, view: _View, pool: _Pool) -> tuple[Floats, Floats, Floats]:
        known = view.known(pool.costs)
        mean, deviation = model.believe(view.features(pool.params, known), known)
        return model.gain(mean, deviation), mean, deviation

    def _model(self, view: _View, outcomes: list[Outcome]) -> Model:
        data = view.data(outcomes)
        count = len(data.losses)
        optimize = count >= self._fitted_at * 1.08 + 1
        if optimize:
            self._fitted_at = count
        arguments: dict[str, Any] = {
            "groups": encoder_groups(self._encoder, view.extra),
            "trend_columns": tuple(range(view.params, view.params + view.extra)),
            "thetas": self._thetas,
            "rng": self._rng,
        }
        model = Model(data, view.unknown, optimize=optimize, **arguments)
        running = [o for o in outcomes if o.kind == "running"]
        if not running:
            return model
        # candidates under way count as if they came out as believed: the next one goes elsewhere
        pool = self._pool([dict(o.values) for o in running])
        if not pool.values:
            return model
        _, mean, _ = self._score(model, view, pool)
        more = Data(
            np.concatenate([data.features, view.features(pool.params, view.known(pool.costs))]),
            np.concatenate([data.losses, mean]),
            np.concatenate([data.full, np.ones(len(mean), dtype=bool)]),
            np.concatenate([data.owners, np.full(len(mean), -1)]),
        )
        return Model(more, view.unknown, optimize=False, **arguments)


class _View:
    """Outcomes on scaled axes: what the model is given."""

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        encoder: Encoder,
        outcomes: list[Outcome],
        sample: _Pool,
        catalogue: Catalogue,
    ) -> None:
        names = catalogue.names()
        self.objectives, self._encoder, self._catalogue = objectives, encoder, catalogue
        self.unknown = tuple(j for j, o in enumerate(objectives) if o.name not in names)
        self.extra = len(objectives) - len(self.unknown)
        self.params = encoder.starts[-1]
        self.axes = tuple(self._axis(o, outcomes, sample, o.name in names) for o in objectives)

    @staticmethod
    def _axis(objective: Objective, outcomes: list[Outcome], sample: _Pool, known: bool) -> Axis:
        finals = [o.final[objective.name] for o in outcomes if objective.name in o.final]
        sign = -1.0 if objective.direction == "maximize" else 1.0
        best = sign * min(sign * v for v in finals)
        if known:
            seen = [*finals, *(costs[objective.name] for costs in sample.costs)]
            return Axis(objective, sign * min(sign * v for v in seen), sign * max(sign * v for v in seen))
        reference = sign * float(np.quantile([sign * v for v in finals[:15]], 0.9))
        return Axis(objective, best, reference if reference != best else best + sign * (abs(best) or 1.0) * 1e-3)

    def known(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Scaled losses with NaN where they are to be predicted."""
        out = np.full((len(costs), len(self.objectives)), np.nan)
        for j, axis in enumerate(self.axes):
            if j not in self.unknown:
                out[:, j] = axis.scale([c[axis.objective.name] for c in costs])
        return out

    def features(self, params: Floats, known: Floats) -> Floats:
        """Parameters, then the known costs."""
        columns = [j for j in range(len(self.objectives)) if j not in self.unknown]
        return np.concatenate([params, known[:, columns]], axis=1)

    def data(self, outcomes: list[Outcome]) -> Data:
        """Full trainings, and failures as bad as the reference point."""
        rows = [o for o in outcomes if o.kind == "complete"]
        params = self._encoder.encode([o.values for o in rows])
        losses = np.stack(
            [axis.scale([o.final.get(axis.objective.name, np.nan) for o in rows]) for axis in self.axes], axis=1
        )
        return Data(
            self.features(params, losses),
            losses,
            np.ones(len(rows), dtype=bool),
            np.array([o.number for o in rows]),
        )

    def front(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Complete trials of the two best fronts."""
        from autodistill.search import pareto

        rows = [o for o in outcomes if o.kind == "complete"]
        ranks = pareto.nondominated_ranks(self.data(outcomes).losses)
        return [o for o, rank in zip(rows, ranks, strict=True) if rank == 0]

    def explain(self, mean: Floats, deviation: Floats, gain: float, count: int) -> str:
        """Why a candidate was chosen, in a sentence."""
        return f"gain {gain:.3g}, best of {count}"


def build(
    name: str,
    space: Space,
    *,
    seed: int,
    objectives: Sequence[Objective],
    costs: CostFunction | None = None,
    constraints: Sequence[Constraint] = (),
) -> BaseSampler:
    """The sampler called ``name``.

    Args:
        name: one of :data:`SAMPLERS`.
        space: the search space.
        seed: derived from the study's seed and the number of its stored trials, so that a resumed study does not repeat
            its proposals.
        objectives: in the order of the study's values.
        costs: known costs of a student; only ``front`` uses them.
        constraints: on known costs; only ``front`` uses them here.

    Raises:
        UnknownNameError: ``name`` is not a sampler.
    """
    if name == "front":
        return FrontSampler(space, objectives, costs=costs, constraints=constraints, seed=seed)
    makers: dict[str, Callable[[], BaseSampler]] = {
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
    }
    if name not in makers:
        raise UnknownNameError("sampler", name, SAMPLERS)
    return makers[name]()
