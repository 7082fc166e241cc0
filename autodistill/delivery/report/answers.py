"""The first answers of a report: the best student within a bound, its gain from distillation, and the uncertainty.

Verified figures are used if there are any. Figures from the search are labelled as such, because they are biased: the
best of many students was selected by the same figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from autodistill.core.records import Objective, Params, State, TrialRecord
from autodistill.core.wording import complete_counted, distillation_words, student_words
from autodistill.delivery.figures.trial_facts import figure_of
from autodistill.delivery.report.bounds import round_bound
from autodistill.delivery.verify.plan import noise_of
from autodistill.search.objectives.objectives import asked_cost, objectives
from autodistill.search.results.gain import BASIS, UndistilledRuns, distils, gain_over_undistilled
from autodistill.search.results.picking import rows_for, standings, unverified

if TYPE_CHECKING:
    from autodistill.search.results.front import Front
    from autodistill.search.results.verified import Difference, Verified, VerifiedRow

ALWAYS_MS = 5.0  # default latency bound in ms, if it excludes some student
ACCURACY = objectives.get("accuracy")
_MOST_BOUNDS = 8
_PLAIN = "without distillation"
_MIXES = {"loss", "embedding"}  # settings that determine whether a student is distilled


@dataclass(frozen=True)
class Answer:
    """A student that may be the best within some bound.

    Attributes:
        trial: number of the trial.
        name: number with the form of the student if it is not fp32, e.g. ``17 (int8)``.
        student: architecture in words.
        distillation: loss mix in words.
        value: value of the first objective; verified if ``verified``.
        cost: value of the bounded metric; ``None`` if no metric is bounded.
        reached: sentence about the values it reaches.
        gain: sentence about its gain from distillation.
        sure: sentences about the uncertainty.
        gain_short: gain for a table cell.
        sure_short: uncertainty for a table cell.
        verified: whether the figures come from the test split.
        rank: value of the first objective by which candidates are compared. It is ``value``, or the figure of the
            search as long as part of the front is not verified, because all candidates have that figure.
    """

    trial: int
    name: str
    student: str
    distillation: str
    value: float
    cost: float | None
    reached: str
    gain: str
    sure: str
    gain_short: str
    sure_short: str
    verified: bool
    rank: float

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """All candidates, and the best of them within each of some bounds.

    Attributes:
        objective: objective to be best in.
        metric: bounded metric; ``None`` if the study has no cost to bound.
        candidates: the candidates.
        bounds: pairs of a bound and the best candidate within it; each candidate occurs once.
        verified: whether all figures come from ``verify``.
        missing: number of members of the front that are not verified, if others are.
    """

    objective: Objective
    metric: Objective | None
    candidates: tuple[Answer, ...]
    bounds: tuple[tuple[float, Answer], ...]
    verified: bool
    missing: int = 0

    def within(self, bound: float) -> Answer | None:
        """Return the best candidate with a cost of at most ``bound``; of equally good ones the cheapest."""
        costs = {a.name: math.inf if a.cost is None else a.cost for a in self.candidates}
        fitting = [a for a in self.candidates if costs[a.name] <= bound]
        return min(fitting, key=lambda a: (self.objective.loss(a.rank), costs[a.name]), default=None)

    def excludes(self, bound: float) -> bool:
        """Return whether some candidates, but not all, cost more than ``bound``."""
        costs = [a.cost for a in self.candidates if a.cost is not None]
        return bool(costs) and min(costs) <= bound < max(costs)

    @property
    def best(self) -> Answer | None:
        """The best of all candidates."""
        return self.within(math.inf)


def answers_of(
    front: Front, trials: Sequence[TrialRecord], verified: Verified | None, images: int | None = None
) -> Answers:
    """Compute the answers for a study.

    If only part of the front is verified, the candidates are those of ``search.results.picking``: all members except
    those that fell off the front, compared by the figures of the search.

    Args:
        front: the front, with its dominated trials.
        trials: all trials.
        verified: result of ``verify``, if there is one.
        images: number of validation images, if known.
    """
    first = front.objectives[0]
    trials = [t for t in trials if t.state is State.COMPLETE]
    runs = UndistilledRuns(trials)
    metric = asked_cost(front.objectives)
    rows = [r for r in verified.students if first.name in r.figures and r.trial is not None] if verified else []
    if not rows or verified is None:
        return _answers(front, [_from_search(t, front, trials, runs, metric, images) for t in front.trials])
    known = rows_for(front, rows)
    missing = len(unverified(front, known))
    if not missing:
        return _answers(front, [_from_row(row, verified, first, metric, trials) for row in rows])
    candidates = []
    verified = replace(verified, of_files=())  # unverified students have no file, so all use the search's latency
    for one in standings(front, known):
        if one.row is not None and not one.fell:
            answer = _from_row(one.row, verified, first, metric, trials)
            candidates.append(replace(answer, rank=one.member.values[first.name]))
        elif not one.fell:
            candidates.append(_from_search(one.member, front, trials, runs, metric, images))
    return _answers(front, candidates, missing)


def _answers(front: Front, candidates: Sequence[Answer], missing: int = 0) -> Answers:
    first, metric = front.objectives[0], asked_cost(front.objectives)
    bounds = () if metric is None else tuple(_bounds(_steps(candidates, first)))
    trusted = bool(candidates) and all(one.verified for one in candidates) and not missing
    return Answers(first, metric, tuple(candidates), bounds, trusted, missing)


def _steps(candidates: Sequence[Answer], objective: Objective) -> list[Answer]:
    """Return the nondominated candidates in cost and objective, cheapest first; each is the answer for some bound."""
    out: list[Answer] = []
    for one in sorted(candidates, key=lambda a: (math.inf if a.cost is None else a.cost, objective.loss(a.rank))):
        if one.cost is not None and (not out or objective.loss(one.rank) < objective.loss(out[-1].rank)):
            out.append(one)
    return out


def _bounds(steps: Sequence[Answer]) -> list[tuple[float, Answer]]:
    """Choose a round bound for each answer, at least its cost and below the cost of the next better answer."""
    costs = [0.0 if a.cost is None else a.cost for a in steps]
    ends = [*costs, math.inf][1:]
    rows = [(round_bound(cost, end), a) for cost, end, a in zip(costs, ends, steps, strict=True)]
    if len(rows) > _MOST_BOUNDS:
        rows = [rows[round(i * (len(rows) - 1) / (_MOST_BOUNDS - 1))] for i in range(_MOST_BOUNDS)]
    return rows


def _from_row(
    row: VerifiedRow, verified: Verified, first: Objective, metric: Objective | None, trials: Sequence[TrialRecord]
) -> Answer:
    """Build the answer of a verified student, with the cost used for its verdict, e.g. that of the exported file."""
    assert row.trial is not None
    figure = row.figures[first.name]
    cost = None if metric is None else verified.cost(row, metric.name)
    if metric is not None and cost is None:
        cost = next((t.latest.get(metric.name) for t in trials if t.number == row.trial), None)
    reached = f"It reaches {first.name} {figure.mean:.4f} on the test split"
    if figure.low is not None and figure.high is not None:
        reached += f" (95 % interval {figure.low:.4f} to {figure.high:.4f})"
    reached += _at_cost(cost, metric)
    if metric is not None and metric.name in verified.of_files:
        reached += " as an exported file"
    return Answer(
        row.trial,
        str(row.trial),
        student_words(row.student),
        _taught(row.distillation),
        figure.mean,
        cost,
        f"{reached}.",
        _verified_gain(row, verified, trials),
        _verified_sure(row, verified, first),
        _gain_short(row),
        _verified_short(row, first),
        verified=True,
        rank=figure.mean,
    )


def _verified_gain(row: VerifiedRow, verified: Verified, trials: Sequence[TrialRecord]) -> str:
    if not distils(row.distillation):
        harmed = [
            r for r in verified.students if r.student == row.student and r.gain and r.gain.certain and r.gain.mean < 0
        ]
        if harmed:
            worst = min(harmed, key=lambda r: r.gain.mean if r.gain else 0.0)
            assert worst.gain is not None
            return (
                "It was trained without distillation: labels alone were better. Verified: with the distillation "
                f"of trial {worst.trial} it loses {-worst.gain.mean:.4f}, more than chance."
            )
        return _undistilled(row.student, row.searched, trials, ACCURACY, verified.validation_images)
    if row.gain is None:
        return "Not known: its undistilled twin was not verified."
    gain = row.gain
    interval = f"95 % interval {gain.low:+.4f} to {gain.high:+.4f}, {_seeds(gain.seeds)}"
    words = f"Distillation gained {gain.mean:+.4f} over the same student without it ({interval})"
    if gain.mean < 0:
        words = f"Distillation lost {-gain.mean:.4f} to the same student without it ({interval})"
    if gain.certain:
        return f"{words}: " + ("more than chance." if gain.mean > 0 else "harm more than chance.")
    if not gain.telling:
        return (
            f"{words}: this may be chance. One seed is not enough; the interval covers the choice of test images only."
        )
    return f"{words}: the interval does not exclude zero, so this may be chance."


def _undistilled(
    student: Params, value: float | None, trials: Sequence[TrialRecord], first: Objective, images: int | None
) -> str:
    """Compare an undistilled student with distilled runs of the same student in the search, within noise or beyond."""
    start = "It was trained without distillation."
    rivals = [
        t
        for t in trials
        if t.state is State.COMPLETE and t.student == student and distils(t.distillation) and first.name in t.values
    ]
    if not rivals or value is None:
        return f"{start} Whether this is best is unknown: the search finished no distilled run of this student."
    best = min(rivals, key=lambda t: first.loss(t.values[first.name]))
    lead = first.loss(best.values[first.name]) - first.loss(value)  # positive: labels alone did better
    against = f"than the best distilled trial of the same student ({best.number}), one run each in the search"
    shown = f"{start} It was {abs(lead):.4f} {'better' if lead >= 0 else 'worse'} {against}"
    if not images or first.unit != "fraction":
        return f"{shown}: a hint, not a proof."
    noise = math.sqrt(2) * noise_of(value, images)  # two figures, each with the noise of these images
    if abs(lead) <= noise:
        return f"{shown}: within the noise of {images:,} validation images (±{noise:.4f}), so this may be chance."
    word = "labels alone were better" if lead > 0 else "distillation was better"
    return f"{shown}, beyond the noise of {images:,} validation images (±{noise:.4f}): {word}."


def _verified_sure(row: VerifiedRow, verified: Verified, first: Objective) -> str:
    figure = row.figures[first.name]
    parts = [f"Verified: trained again from scratch with {_seeds(len(row.seeds))}"]
    spread = f", which differ by a standard deviation of {figure.std:.4f}" if figure.std is not None else ""
    parts[0] += f"{spread}, on {verified.test_images:,} test images that the search never opened."
    if not row.complete:
        parts.append(f"Only {len(row.seeds)} of {row.planned} runs are finished.")
    if row.flattered is not None:
        size = f"{abs(row.flattered):.4f}"
        way = f"overestimated it by {size}" if row.flattered >= 0 else f"underestimated it by {size}"
        parts.append(
            f"The search {way}: its validation accuracy minus the mean of the new seeds "
            "on the same validation images (not on the test images)."
        )
    if row.rivals:
        named = ", ".join(map(str, row.rivals[:6])) + (" …" if len(row.rivals) > 6 else "")
        parts.append(
            f"Within noise of it (95 %, the same test images), at no higher cost: {_trials(len(row.rivals))} ({named})."
        )
    elif row.verdict in ("stays", "joins"):
        others = [one for one in verified.students if one.verdict and one is not row]
        compared = all(len({*one.seeds} & {*row.seeds}) > 1 for one in others)
        alone = "Whether a cheaper verified student is as good is unknown: one seed is not enough."
        parts.append("No cheaper verified student is within noise of it." if compared else alone)
    if row.verdict == "falls":
        parts.append("It fell off the front when verified.")
    return " ".join(parts)


def _verified_short(row: VerifiedRow, first: Objective) -> str:
    words = f"verified, {_seeds(len(row.seeds))}"
    figure = row.figures[first.name]
    if figure.low is not None:
        words += f", {first.name} {figure.low:.4f} to {figure.high:.4f} (95 %)"
    if row.gain is not None:
        words += f"; {gain_verdict(row.gain)}"
    if row.rivals:
        words += f"; {_trials(len(row.rivals))} within noise"
    return words


def gain_verdict(gain: Difference) -> str:
    """Describe whether a gain or harm is more than chance."""
    name = "gain" if gain.mean >= 0 else "harm"
    if not gain.telling:
        return f"{name} may be chance: one seed is not enough"
    return f"{name} more than chance" if gain.certain else f"{name} may be chance"


def _from_search(
    trial: TrialRecord,
    front: Front,
    trials: Sequence[TrialRecord],
    runs: UndistilledRuns,
    metric: Objective | None,
    images: int | None,
) -> Answer:
    """Build the answer of a member of the search's front, with its uncertainty."""
    first = front.objectives[0]
    value = trial.values[first.name]
    cost = None if metric is None else trial.values[metric.name]
    gain = gain_over_undistilled(trial, runs, first)
    return Answer(
        trial.number,
        trial.called,
        student_words(trial.student),
        _taught(trial.distillation),
        value,
        cost,
        f"It reached {first.name} {figure_of(value, first.unit)} in the search{_at_cost(cost, metric)}.",
        _searched_gain(trial, gain, trials, first, metric, images),
        _searched_sure(trial, front, images),
        _searched_short(trial, gain),
        "not verified",
        verified=False,
        rank=value,
    )


def _searched_gain(
    trial: TrialRecord,
    gain: float | None,
    trials: Sequence[TrialRecord],
    first: Objective,
    metric: Objective | None,
    images: int | None,
) -> str:
    if not _MIXES & trial.distillation.keys():
        return "This study does not search distillation losses."
    if not distils(trial.distillation):
        return _undistilled(trial.student, trial.values[first.name], trials, first, images)
    if gain is not None:
        return f"In the search it is {gain:+.4f} {BASIS}: a hint, not a proof."
    unknown = "Not known: this search finished no run of the same student without distillation."
    plain = [
        t
        for t in trials
        if t.state is State.COMPLETE
        and not distils(t.distillation)
        and (metric is None or metric.loss(t.values[metric.name]) <= metric.loss(trial.values[metric.name]))
    ]
    if not plain:
        return unknown
    best = min(plain, key=lambda t: first.loss(t.values[first.name]))
    difference = first.loss(best.values[first.name]) - first.loss(trial.values[first.name])
    against = f"the best undistilled trial that costs no more ({best.number}, another architecture)"
    return f"{unknown} It is {difference:+.4f} against {against}."


def _searched_sure(trial: TrialRecord, front: Front, images: int | None) -> str:
    first = front.objectives[0]
    complete = (*front.trials, *front.others)
    words = f"Not verified. One run, and the best of {complete_counted(complete)} was selected by the same figure, "
    words += "so it is biased upwards."
    if images and first.unit == "fraction":
        value = trial.values[first.name]
        half = noise_of(value, images)
        near = [t.number for t in complete if abs(t.values[first.name] - value) <= half]
        close = set(near) - {trial.number}
        words += (
            f" The choice of {images:,} validation images alone makes it uncertain by ±{half:.4f} (95 %); "
            f"{_trials(len(close))} {'is' if len(close) == 1 else 'are'} within that range."
        )
    return words


def _taught(distillation: Params) -> str:
    """Describe the loss mix in words; "without distillation" for a student trained on labels only."""
    plain = _MIXES & distillation.keys() and not distils(distillation)
    return _PLAIN if plain else distillation_words(distillation)


def _gain_short(row: VerifiedRow) -> str:
    if row.gain is not None:
        return f"{row.gain.mean:+.4f} [{row.gain.low:+.4f}, {row.gain.high:+.4f}]"
    return "not known" if distils(row.distillation) else "not distilled"


def _searched_short(trial: TrialRecord, gain: float | None) -> str:
    if not distils(trial.distillation):
        return "not distilled"
    return "not known" if gain is None else f"{gain:+.4f} (recipes may differ)"


def _at_cost(cost: float | None, metric: Objective | None) -> str:
    if cost is None or metric is None:
        return ""
    unit = metric.name if metric.unit in ("count", "") else metric.unit
    return f", at {figure_of(cost, metric.unit)} {unit}"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _trials(count: int) -> str:
    return f"{count or 'no'} other trial{'' if count == 1 else 's'}"
