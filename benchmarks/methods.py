"""Compared methods of the search benchmark: each spends a budget on a problem and records a trace.

All methods have one worker, one candidate at a time, the same space and the same accounting. An epoch costs the same
for every method. Continuing from a rung costs only the added epochs. Only full trainings are on the front.

Baselines are Optuna's samplers with the settings that their documentation recommends for several objectives, random
search with synchronous successive halving, and Syne Tune's MOASHA: as shipped, and with ranks where its bracket expects
ranks.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from recorded import Recorded
from tables import Problem
from variants import PATCHES, under

from autodistill.search.model.scoring import EpochCost
from autodistill.search.rungs import promotion
from autodistill.search.sampler.front_sampler import ExhaustedError, FrontSampler
from autodistill.search.space.space import Space


class BudgetSpentError(Exception):
    """The budget of the method is spent."""


@dataclass
class Trace:
    """Budget spent and students found by one method."""

    problem: Problem
    budget: float
    spent: float = 0.0
    trials: int = 0
    losses: list[np.ndarray] = field(default_factory=list)
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def train(self, sections: dict[str, Any], rung: int, start: int = 0) -> float:
        """Train a candidate from rung ``start`` to ``rung`` (1-based) and return its accuracy.

        Raises:
            BudgetSpentError: the rest of the budget is too small.
        """
        rungs = (0, *self.problem.rungs)
        cost = (rungs[rung] - rungs[start]) * self.problem.rate(sections)
        if self.spent + cost > self.budget:
            raise BudgetSpentError
        self.spent += cost
        self.trials += start == 0
        accuracy = self.problem.accuracy(sections, rungs[rung])
        if rung == len(self.problem.rungs):
            costs = self.problem.costs(sections["student"])
            assert costs is not None
            worth = self.problem.worth(sections) if isinstance(self.problem, Recorded) else accuracy
            self.losses.append(self.problem.scale.losses(worth, list(costs.values()))[0])
            self.curve.append((self.spent, self.trials, self.problem.scale.regret(np.array(self.losses))))
        return accuracy

    def regret_at(self, spend: float) -> float:
        """Return the regret of the front found with at most ``spend`` epochs."""
        return next((regret for spent, _, regret in reversed(self.curve) if spent <= spend), 1.0)


def optuna_method(make: Callable[[int, int], optuna.samplers.BaseSampler]) -> Callable[[Trace, int], None]:
    """Return a method that runs full trainings proposed by one of Optuna's samplers."""

    def run(trace: Trace, seed: int) -> None:
        problem = trace.problem
        space = Space.parse(problem.space)
        directions = [o.direction for o in problem.objectives]
        study = optuna.create_study(directions=directions, sampler=make(seed, len(directions)))
        rng = np.random.default_rng(seed)
        missed = 0
        while True:
            trial = study.ask()
            sections = space.suggest(trial)
            costs = problem.costs(sections["student"])
            if costs is None:  # no row: not counted as a trial; after 100 of these a listed row is drawn
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                missed += 1
                if missed % 100 == 0:
                    study.enqueue_trial(random_values(problem, space, rng))
                continue
            accuracy = trace.train(sections, len(problem.rungs))
            study.tell(trial, [accuracy, *costs.values()])

    return run


def random_values(problem: Problem, space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Draw a random candidate that the problem has a row for."""
    while True:
        values = space.sample(rng)
        if problem.costs(space.nest(values)["student"]) is not None:
            return values


def random_search(trace: Trace, seed: int) -> None:
    """Run full trainings of uniform draws."""
    rng, space = np.random.default_rng(seed), Space.parse(trace.problem.space)
    while True:
        trace.train(space.nest(random_values(trace.problem, space, rng)), len(trace.problem.rungs))


def random_halving(trace: Trace, seed: int) -> None:
    """Run synchronous successive halving (eta 3) of uniform draws.

    Survivors are selected by non-dominated rank and epsilon-net.
    """
    rng, problem = np.random.default_rng(seed), trace.problem
    space, levels = Space.parse(problem.space), len(problem.rungs)
    while True:
        drawn = [random_values(problem, space, rng) for _ in range(3 ** (levels - 1))]
        alive = [space.nest(values) for values in drawn]
        for rung in range(1, levels + 1):
            accuracy = [trace.train(sections, rung, rung - 1) for sections in alive]
            costs = [list(problem.costs(sections["student"]).values()) for sections in alive]  # type: ignore[union-attr]
            keep = max(1, len(alive) // 3)
            order = promotion.front_order(problem.scale.losses(accuracy, costs))
            alive = [alive[i] for i in order[:keep]]


def random_rungs(trace: Trace, seed: int) -> None:
    """Run uniform draws with our model-free rung rule, which all samplers but the front sampler use."""
    rng, problem = np.random.default_rng(seed), trace.problem
    space, levels = Space.parse(problem.space), len(problem.rungs)
    seen = np.full((levels, 0, 1 + len(problem.costs_names)), np.nan)
    while True:
        sections = space.nest(random_values(problem, space, rng))
        costs = problem.costs(sections["student"])
        assert costs is not None
        seen = np.concatenate([seen, np.full((levels, 1, seen.shape[2]), np.nan)], axis=1)
        for rung in range(levels):
            accuracy = trace.train(sections, rung + 1, rung)
            seen[rung, -1] = problem.scale.losses(accuracy, list(costs.values()))[0]
            here = np.isfinite(seen[rung]).all(axis=1)
            peers = promotion.Peers(seen[rung, here], seen[-1, here])
            if not promotion.decide(peers, int(here.sum()) - 1).go_on:
                break


def moasha(fixed: bool) -> Callable[[Trace, int], None]:
    """Return Syne Tune's MOASHA with uniform draws and a report at every rung.

    Args:
        fixed: give ranks to its bracket. As shipped, the priority returns the *sort order*, which the bracket reads as
            ranks. The decision on a trial then uses the rank of another trial.
    """

    def run(trace: Trace, seed: int) -> None:
        problem = trace.problem
        rng, space = np.random.default_rng(seed), Space.parse(problem.space)
        scheduler = _moasha_scheduler(problem, fixed, seed)
        while True:
            _moasha_trial(trace, scheduler, space.nest(random_values(problem, space, rng)))

    return run


def _moasha_scheduler(problem: Problem, fixed: bool, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from syne_tune.config_space import uniform
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA
        from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    class Ranked(NonDominatedPriority):  # type: ignore[misc]
        def __call__(self, objectives: np.ndarray) -> np.ndarray:
            return np.argsort(super().__call__(objectives))

    np.random.seed(seed)  # noqa: NPY002 - MOASHA draws from the global generator and ignores its own seed
    return MOASHA(
        {"unused": uniform(0, 1)},
        metrics=["loss", *problem.costs_names],
        time_attr="epoch",
        max_t=problem.rungs[-1],
        grace_period=problem.rungs[0],
        reduction_factor=3,
        multiobjective_priority=Ranked() if fixed else None,
    )


def _moasha_trial(trace: Trace, scheduler: Any, sections: dict[str, Any]) -> None:
    from datetime import datetime

    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.scheduler import SchedulerDecision

    problem = trace.problem
    trial = Trial(trial_id=trace.trials, config={}, creation_time=datetime.now())
    scheduler.on_trial_add(trial)
    costs = problem.costs(sections["student"])
    assert costs is not None
    for rung, epochs in enumerate(problem.rungs, start=1):
        accuracy = trace.train(sections, rung, rung - 1)
        loss = problem.scale.losses(accuracy, list(costs.values()))[0]
        result = {"epoch": epochs, **dict(zip(["loss", *costs], loss.tolist(), strict=True))}
        if rung == len(problem.rungs):
            scheduler.on_trial_complete(trial, result)
        elif scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
            return


def _tpe(seed: int, _: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def _gp(seed: int, _: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, deterministic_objective=True)


def _nsga2(seed: int, _: int) -> optuna.samplers.BaseSampler:
    # the default population of 50 would leave four generations in 200 trials; 20 suits these budgets better
    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)


def autodistill(trace: Trace, seed: int) -> None:
    """Run full trainings proposed by the front sampler."""
    _full_trainings(trace, seed, trace.problem.known)


def autodistill_objectives_only(trace: Trace, seed: int) -> None:
    """Run full trainings; the front sampler receives only those known costs that are objectives."""
    _full_trainings(trace, seed, trace.problem.costs)


def autodistill_modelled(trace: Trace, seed: int) -> None:
    """Run full trainings; the front sampler learns the costs like the accuracy. For complete tables only."""
    _full_trainings(trace, seed, None)


def _full_trainings(trace: Trace, seed: int, known: Any) -> None:
    problem = trace.problem
    space = Space.parse(problem.space)
    sampler = FrontSampler(space, problem.objectives, costs=known, constraints=problem.constraints, seed=seed)
    study = optuna.create_study(directions=[o.direction for o in problem.objectives], sampler=sampler)
    while True:
        trial = study.ask()
        sections = space.suggest(trial)
        costs = problem.costs(sections["student"])
        assert costs is not None
        study.tell(trial, [trace.train(sections, len(problem.rungs)), *costs.values()])


def autodistill_rungs(trace: Trace, seed: int) -> None:
    """Run the front sampler with its rung rule: next is the trial or new candidate with the largest gain per work."""
    space = Space.parse(trace.problem.space)
    _rung_by_rung(trace, seed, lambda values: trace.problem.rate(space.nest(values)))


def autodistill_per_epoch(trace: Trace, seed: int) -> None:
    """Run the front sampler with its rung rule, without the cost of an epoch of each candidate."""
    _rung_by_rung(trace, seed, None)


def _rung_by_rung(trace: Trace, seed: int, epoch_cost: EpochCost | None) -> None:
    problem = trace.problem
    space = Space.parse(problem.space)
    sampler = FrontSampler(
        space,
        problem.objectives,
        costs=problem.known,
        constraints=problem.constraints,
        seed=seed,
        rungs=problem.rungs,
        epoch_cost=epoch_cost,
    )
    study = optuna.create_study(directions=[o.direction for o in problem.objectives], sampler=sampler)
    paused: dict[int, tuple[optuna.Trial, dict[str, Any], int]] = {}
    while True:
        action = sampler.next_action(study, paused=paused.keys(), remaining=trace.budget - trace.spent)
        if action is None:
            raise BudgetSpentError
        if action.trial is None:
            trial = study.ask()
            sections, rung = space.suggest(trial), 0
        else:
            trial, sections, rung = paused.pop(action.trial)
        accuracy = trace.train(sections, rung + 1, rung)
        costs = problem.costs(sections["student"])
        assert costs is not None
        report = {"accuracy": accuracy, **costs, "epochs": problem.rungs[rung]}
        trial.set_user_attr(f"rung:{rung + 1}", json.dumps(report))
        if rung + 1 == len(problem.rungs):
            study.tell(trial, [accuracy, *costs.values()])
        else:
            paused[trial.number] = (trial, sections, rung + 1)


def autodistill_halving(trace: Trace, seed: int) -> None:
    """Run the front sampler with the model-free rung rule instead of its own; stopped trials never continue."""
    problem, names = trace.problem, trace.problem.costs_names
    space, levels = Space.parse(problem.space), len(problem.rungs)
    sampler = FrontSampler(
        space, problem.objectives, costs=problem.known, constraints=problem.constraints, seed=seed, rungs=problem.rungs
    )
    study = optuna.create_study(directions=[o.direction for o in problem.objectives], sampler=sampler)
    seen = np.full((levels, 0, 1 + len(names)), np.nan)
    while True:
        trial = study.ask()
        sections = space.suggest(trial)
        costs = problem.costs(sections["student"])
        assert costs is not None
        seen = np.concatenate([seen, np.full((levels, 1, seen.shape[2]), np.nan)], axis=1)
        for rung in range(levels):
            accuracy = trace.train(sections, rung + 1, rung)
            report = {"accuracy": accuracy, **costs, "epochs": problem.rungs[rung]}
            trial.set_user_attr(f"rung:{rung + 1}", json.dumps(report))
            seen[rung, -1] = problem.scale.losses(accuracy, list(costs.values()))[0]
            here = np.isfinite(seen[rung]).all(axis=1)
            if rung + 1 == levels:
                study.tell(trial, [accuracy, *costs.values()])
            elif not promotion.decide(promotion.Peers(seen[rung, here], seen[-1, here]), int(here.sum()) - 1).go_on:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break


METHODS: dict[str, Callable[[Trace, int], None]] = {
    "autodistill": autodistill_rungs,
    "autodistill-norungs": autodistill,
    "optuna-gp": optuna_method(_gp),
    "optuna-tpe": optuna_method(_tpe),
    "optuna-nsga2": optuna_method(_nsga2),
    "random": random_search,
    "random-rungs": random_rungs,
    "random-sh": random_halving,
    "moasha": moasha(fixed=False),
    "moasha-fixed": moasha(fixed=True),
    "without-known-costs": autodistill_modelled,
    "without-other-costs": autodistill_objectives_only,
    "without-cost-awareness": autodistill_per_epoch,
    "without-rung-rule": autodistill_halving,
    **{name: under(patch, autodistill) for name, patch in PATCHES.items()},
}


def run(name: str, problem: Problem, seed: int, budget: float) -> Trace:
    """Let one method spend ``budget`` epochs and return its trace."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trace = Trace(problem, budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(BudgetSpentError, ExhaustedError):
            METHODS[name](trace, seed)
    trace.seconds = time.perf_counter() - trace.started
    return trace
