"""Choice of the students that ``verify`` trains, their seeds and their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autodistill.core.errors import UsageError
from autodistill.core.records import WORK, Candidate, Objective, Params, TrialRecord, derive_seed
from autodistill.core.wording import student_words
from autodistill.search.objectives.pareto import epsilon_net_order
from autodistill.search.objectives.values_as_losses import to_losses
from autodistill.search.results.front import Front
from autodistill.search.results.gain import distils

MAX_NEIGHBOURS = 0.5  # largest number of neighbours, as a share of the front
PLAIN: Mapping[str, Any] = {"loss": "none"}

Kind = Literal["student", "twin", "baseline"]


@dataclass(frozen=True)
class PlannedRow:
    """A planned row of the table: a student, a twin or a baseline, before it is trained.

    Attributes:
        kind: kind of the row.
        name: description of the network.
        student: architecture.
        distillation: loss mix.
        train: training settings.
        trial: number of the trial; for a twin, that of its distilled student; ``None`` for a baseline.
        before: whether it is on the front of the search.
        searched: accuracy on validation in the search.
        costs: known costs in the search.
        seconds: estimated time of one training.
    """

    kind: Kind
    name: str
    student: Params
    distillation: Params
    train: Params
    trial: int | None = None
    before: bool = False
    searched: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def candidate(self, number: int, seed: int) -> Candidate:
        """Return the candidate of one run, for an engine."""
        return Candidate(number, self.student, self.distillation, self.train, seed)


def seeds_of(study_seed: int, count: int) -> tuple[int, ...]:
    """Derive the seeds of the runs. They are equal for all rows, so that rows can be paired, and new to the search.

    Raises:
        UsageError: ``count`` is below 1.
    """
    if count < 1:
        raise UsageError(f"seeds is {count}; allowed: 1 or more. At least 3 are needed to estimate how seeds differ.")
    return tuple(derive_seed(study_seed, index, "verify") for index in range(count))


def noise_of(accuracy: float, images: int) -> float:
    """Return the difference of validation accuracies that the choice of images alone explains: 1.96 standard errors."""
    return 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1 / images) / images)


def near_misses(front: Front, noise: float) -> list[TrialRecord]:
    """Return COMPLETE trials that would be on the front if their accuracy were higher by ``noise``, nearest first."""
    names = [o.name for o in front.objectives]
    if "accuracy" not in names or not front.trials:
        return []
    place = names.index("accuracy")
    members = to_losses(front.objectives, [t.values for t in front.trials])
    found = []
    for trial in front.others:
        own = to_losses(front.objectives, [trial.values])[0]
        ahead = (members <= own).all(axis=1)
        lacking = float((own[place] - members[ahead, place]).max()) if ahead.any() else 0.0
        if lacking <= noise:
            found.append((lacking, trial.number, trial))
    return [trial for _, _, trial in sorted(found, key=lambda one: one[:2])]


def choose_trials(
    front: Front, *, noise: float, top: int | None = None, empty: str = "no trial is COMPLETE yet"
) -> list[TrialRecord]:
    """Choose the front, ordered to cover its whole range early, then its near neighbours; at most ``top`` in total.

    Args:
        front: front of the search.
        noise: accuracy by which a neighbour may be below the front.
        top: largest number of students.
        empty: reason for the error message if the front is empty.

    Raises:
        UsageError: the front is empty, or ``top`` is below 1.
    """
    if top is not None and top < 1:
        raise UsageError(f"top is {top}; allowed: 1 or more students.")
    front = front.trained()  # variants are not separate trainings
    if not front.trials:
        raise UsageError(f"the front is empty: {empty}, so there is nothing to verify. Continue the search first.")
    losses = to_losses(front.objectives, [t.values for t in front.trials])
    members = [front.trials[row] for row in epsilon_net_order(losses)]
    near = near_misses(front, noise)[: max(1, math.ceil(MAX_NEIGHBOURS * len(members)))]
    return [*members, *near][:top]


def by_number(trials: Sequence[TrialRecord], numbers: Sequence[int]) -> list[TrialRecord]:
    """Return the trials with the given numbers, in that order.

    Raises:
        UsageError: a trial does not exist or did not reach the top rung.
    """
    known = {t.number: t for t in trials}
    out = []
    for number in dict.fromkeys(numbers):
        trial = known.get(number)
        if trial is None or not trial.values:
            state = "does not exist" if trial is None else f"is {trial.state.value}"
            complete = [str(t.number) for t in trials if t.values]
            allowed = ", ".join(complete[:20]) or "none yet"
            raise UsageError(f"trial {number} {state}; only COMPLETE trials can be verified: {allowed}.")
        out.append(trial)
    return out


def members_of(
    chosen: Sequence[TrialRecord], front: Front, *, twins: bool = True, baselines: Sequence[str] = ()
) -> list[PlannedRow]:
    """Return all rows by importance: front, twins of the front, neighbours, baselines, twins of the neighbours.

    A twin is the same student with the same recipe and loss ``none``; students that are not distilled have no twin. A
    baseline is a timm network trained without distillation from random weights, with the recipe of the chosen student
    that was best in the search. Membership of the front is decided among fp32 students, as in ``choose_trials``.
    """
    on_front = {t.number for t in front.trained().trials}  # also students that their own int8 form dominates
    first = [_student(t, before=True) for t in chosen if t.number in on_front]
    near = [_student(t, before=False) for t in chosen if t.number not in on_front]
    best = min(chosen, key=lambda t: front.objectives[0].loss(t.values[front.objectives[0].name]))
    recipe = {**best.train, "init": "random"}
    slowest = max(t.seconds for t in chosen)
    others = [
        PlannedRow("baseline", name, {"family": "timm", "model": name}, PLAIN, recipe, seconds=slowest)
        for name in dict.fromkeys(baselines)
    ]
    pairs = [[_twin(one) for one in part if distils(one.distillation)] if twins else [] for part in (first, near)]
    return [*first, *pairs[0], *near, *others, *pairs[1]]


def objective_names(objectives: Sequence[Objective]) -> tuple[tuple[str, str], ...]:
    """Return name and direction of each objective."""
    return tuple((o.name, o.direction) for o in objectives)


def _student(trial: TrialRecord, *, before: bool) -> PlannedRow:
    return PlannedRow(
        "student",
        student_words(trial.student),
        trial.student,
        trial.distillation,
        trial.train,
        trial=trial.number,
        before=before,
        searched=_searched(trial),
        costs=_costs(trial),
        seconds=trial.seconds,
    )


def _costs(trial: TrialRecord) -> dict[str, float]:
    """Return known costs with their latest values, because a noisy latency may have been measured again later."""
    names = [name for name in trial.rungs.get(0, {}) if name not in WORK]
    return {name: trial.latest[name] for name in names}


def _searched(trial: TrialRecord) -> float | None:
    last = trial.rungs[max(trial.rungs)] if trial.rungs else {}
    return trial.values.get("accuracy", last.get("accuracy"))


def _twin(student: PlannedRow) -> PlannedRow:
    kept = {key: value for key, value in student.distillation.items() if key == "label_smoothing"}
    return PlannedRow(
        "twin",
        student.name,
        student.student,
        {**PLAIN, **kept},
        student.train,
        trial=student.trial,
        costs=student.costs,
        seconds=student.seconds,
    )
