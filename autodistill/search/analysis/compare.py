"""Comparison of fronts: hypervolume in a common box, shares of the joint front, attainment over seeds.

A group is one way of searching: one study, or several that differ only in their seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.core.errors import UsageError
from autodistill.core.records import LATENCY, LatencyTarget, Objective, State
from autodistill.core.wording import latency_words
from autodistill.search.analysis.trajectory import TrajectoryStep, trajectory
from autodistill.search.objectives.pareto import nondominated_mask
from autodistill.search.objectives.values_as_losses import to_losses
from autodistill.search.results.front import Front, HypervolumeBox, propose_box

if TYPE_CHECKING:
    from autodistill.search.study.study import Study


@dataclass(frozen=True)
class Group:
    """Studies that are runs of the same search.

    Attributes:
        name: name in tables and legends.
        fronts: one front per run.
        seconds: seconds of search per run; empty if unknown.
        complete: number of COMPLETE trials per run; if empty, they are counted on the fronts, which lack trials outside
            the constraints.
        data: fingerprint of the images of each run, empty text if it was not recorded; may be empty.
        latency: how latency was measured in each run, in words; may be empty.
        machines: machines on which latency was measured in each run; empty text if a command or a table reports it.
    """

    name: str
    fronts: tuple[Front, ...]
    seconds: tuple[float, ...] = ()
    complete: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    latency: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()

    @staticmethod
    def of(name: str, studies: Sequence[Study]) -> Group:
        """Build a group from studies: their fronts, spending, images, latency targets and machines."""
        prints = tuple(str(one.optuna.user_attrs.get("sources", {}).get("data", "")) for one in studies)
        complete = tuple(sum(t.state is State.COMPLETE for t in one.trials()) for one in studies)
        seconds = tuple(one.spent.seconds for one in studies)
        targets, machines = tuple(map(_target, studies)), tuple(map(_machines, studies))
        return Group(name, tuple(one.front() for one in studies), seconds, complete, prints, targets, machines)


def _target(study: Study) -> str:
    target: LatencyTarget | None = getattr(study.config, "latency", None)
    if target is None:
        return ""
    source = target.command or target.table
    return f"{latency_words(target)}{', reported by ' + source if source else ''}"


def _machines(study: Study) -> str:
    """Return the processors (and GPUs if latency is measured there) of a study; other properties may differ."""
    target: LatencyTarget | None = getattr(study.config, "latency", None)
    if target is None or target.command or target.table:
        return ""
    found = set()
    for facts in study.optuna.user_attrs.get("machines", []):
        gpus = facts.get("gpus", []) if target.device.startswith("cuda") else []
        found.add(", ".join([str(facts.get("processor")), f"{facts.get('cores')} cores", *gpus]))
    return " and ".join(sorted(found))


@dataclass(frozen=True)
class ComparisonRow:
    """One group in the comparison.

    Attributes:
        name: name of the group.
        runs: number of studies.
        complete: COMPLETE trials, mean over the runs.
        best: best value of the first objective, mean over the runs that have one.
        hypervolume: share of the common box, one per run.
        joint: number of students of this group on the joint front of all groups; two forms of a student count once.
        curves: hypervolume share against spending in the common box, one per run.
        seconds: seconds of search, one per run; 0 if unknown.
    """

    name: str
    runs: int
    complete: float
    best: float | None
    hypervolume: tuple[float, ...]
    joint: int
    curves: tuple[tuple[TrajectoryStep, ...], ...]
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean hypervolume share."""
        return sum(self.hypervolume) / len(self.hypervolume)

    @property
    def std(self) -> float | None:
        """Standard deviation over the runs (n - 1); ``None`` for a single run."""
        if self.runs < 2:
            return None
        return math.sqrt(sum((v - self.mean) ** 2 for v in self.hypervolume) / (self.runs - 1))


@dataclass(frozen=True)
class Comparison:
    """Groups of fronts compared in one box.

    Attributes:
        objectives: axes of all fronts.
        scale: the common box.
        groups: the compared groups.
        rows: one row per group, in the same order.
    """

    objectives: tuple[Objective, ...]
    scale: HypervolumeBox
    groups: tuple[Group, ...]
    rows: tuple[ComparisonRow, ...]

    @property
    def warning(self) -> str:
        """Warning about differences that make values incomparable, between or within groups; empty if there are none.

        It covers images and, if latency is an objective, how and on which machine latency was measured.
        """
        found = []
        if sides := self._sides(lambda group: group.data):
            found.append(f"these studies have different images, so their accuracies cannot be compared ({sides})")
        if any(o.name == LATENCY for o in self.objectives):
            if sides := self._sides(lambda group: group.latency):
                found.append(f"latency was measured in different ways, so it cannot be compared ({sides})")
            if sides := self._sides(lambda group: group.machines):
                found.append(f"latency was measured on different machines, so it cannot be compared ({sides})")
        return "; ".join(found)

    def _sides(self, of: Callable[[Group], Sequence[str]]) -> str:
        """Return the groups by value if there are several values, ignoring unknown ones; empty for one value."""
        seen: dict[str, list[str]] = {}
        for group in self.groups:
            for one in dict.fromkeys(value for value in of(group) if value):
                seen.setdefault(one, []).append(group.name)
        return "; ".join(f"{', '.join(names)}: {one}" for one, names in seen.items()) if len(seen) > 1 else ""

    def to_json(self) -> dict[str, Any]:
        """Return the stable form of ``front A B --json``."""
        return {
            "warning": self.warning,
            "objectives": [o.name for o in self.objectives],
            "ideal_point": list(self.scale.ideal),
            "reference_point": list(self.scale.reference),
            "groups": [
                {
                    "name": row.name,
                    "studies": [front.study for front in group.fronts],
                    "complete": row.complete,
                    "best": row.best,
                    "hypervolume_share": list(row.hypervolume),
                    "mean": row.mean,
                    "std": row.std,
                    "on_joint_front": row.joint,
                }
                for group, row in zip(self.groups, self.rows, strict=True)
            ],
        }


def compare(groups: Sequence[Group]) -> Comparison:
    """Compare groups of fronts in a common box.

    Raises:
        UsageError: the objectives differ, or all fronts are empty.
    """
    fronts = [front for group in groups for front in group.fronts]
    objectives = _common_objectives(fronts)
    scale = common_scale(fronts)
    owners = [
        (index, run, t.number)
        for index, group in enumerate(groups)
        for run, front in enumerate(group.fronts)
        for t in front.trials
    ]
    values = [t.values for front in fronts for t in front.trials]
    best = nondominated_mask(to_losses(objectives, values))
    joint = {owner for owner, good in zip(owners, best, strict=True) if good}
    rows = []
    for index, group in enumerate(groups):
        boxed = [Front(f.study, objectives, f.trials, f.others, scale) for f in group.fronts]
        firsts = [_best_first(f) for f in boxed if f.trials]
        rows.append(
            ComparisonRow(
                group.name,
                len(boxed),
                sum(group.complete or (len({t.number for t in (*f.trials, *f.others)}) for f in boxed)) / len(boxed),
                sum(firsts) / len(firsts) if firsts else None,
                tuple(f.hypervolume_share for f in boxed),
                sum(owner[0] == index for owner in joint),
                tuple(tuple(trajectory(f)) for f in boxed),
                group.seconds or (0.0,) * len(boxed),
            )
        )
    return Comparison(objectives, scale, tuple(groups), tuple(rows))


def common_scale(fronts: Sequence[Front]) -> HypervolumeBox:
    """Return a box that contains the boxes of all fronts; if none is recorded, it is made from their trials.

    Raises:
        UsageError: all fronts are empty.
    """
    if not any(front.trials for front in fronts):
        raise UsageError(
            "the fronts of these studies are all empty: no trial is COMPLETE within the bounds yet; there is nothing "
            "to compare."
        )
    objectives = fronts[0].objectives
    scales = [front.scale for front in fronts if front.scale is not None]
    if not scales:
        made = propose_box(objectives, [t.values for f in fronts for t in (*f.trials, *f.others)])
        assert made is not None  # every COMPLETE trial has every objective
        return made
    # a member outside the recorded box, or of a study that has none, would count for nothing
    members = [t.values for front in fronts for t in front.trials]
    signs = np.array([1.0 if o.direction == "minimize" else -1.0 for o in objectives])
    ideal = signs * (np.array([s.ideal for s in scales]) * signs).min(axis=0)
    reference = signs * (np.array([s.reference for s in scales]) * signs).max(axis=0)
    return HypervolumeBox(tuple(ideal.tolist()), tuple(reference.tolist())).holding(objectives, members)


def attainment(fronts: Sequence[Front], across: Objective, up: Objective) -> dict[str, list[float]]:
    """Return the values of ``up`` that the runs attain, against the allowed amount of ``across``.

    This is the empirical attainment surface (Fonseca and Fleming, PPSN 1996) of two objectives, read along ``across``:
    at each amount, the worst, the median and the best over the runs of what each run reaches there.

    Returns:
        Lists of equal length under ``across``, ``worst``, ``median``, ``best``; NaN if too few runs reach anything.
    """
    widths = sorted({t.values[across.name] for f in fronts for t in f.trials}, key=across.loss)
    table = np.full((len(fronts), len(widths)), np.inf)  # losses of ``up``; inf: no student that cheap
    for row, front in enumerate(fronts):
        for trial in front.trials:
            cheap_enough = [across.loss(w) >= across.loss(trial.values[across.name]) for w in widths]
            table[row, cheap_enough] = np.minimum(table[row, cheap_enough], up.loss(trial.values[up.name]))
    ordered = np.sort(table, axis=0)
    # the median surface is attained by at least half of n runs: the ceil(n/2)-th best
    picks = {"best": 0, "median": (len(fronts) + 1) // 2 - 1, "worst": len(fronts) - 1}
    out = {name: [up.loss(v) if np.isfinite(v) else math.nan for v in ordered[k]] for name, k in picks.items()}
    return {"across": widths, **out}


def growth(group: Group, row: ComparisonRow) -> dict[str, list[float]]:
    """Return the hypervolume share against time over the runs of ``group`` with recorded times, from 0 at 0 s.

    A run without steps counts as 0 if its front is empty. If it has a front, its times were not recorded, and it is
    left out.

    Returns:
        Lists of equal length under ``seconds``, ``lowest``, ``mean``, ``highest``; empty if no run has times.
    """
    runs = zip(group.fronts, row.curves, row.seconds, strict=True)
    known = [(curve, spent) for front, curve, spent in runs if curve or (spent > 0 and not front.trials)]
    if not known:
        return {"seconds": [], "lowest": [], "mean": [], "highest": []}
    # up to the end of the longest run: a search continues after it has found its last student
    ends = [0.0, *(spent for _, spent in known)]
    times = np.unique(np.concatenate([ends, *([step.seconds for step in curve] for curve, _ in known)]))
    shares = np.array([_shares(curve, times) for curve, _ in known])
    picked = {"lowest": shares.min(axis=0), "mean": shares.mean(axis=0), "highest": shares.max(axis=0)}
    return {"seconds": times.tolist(), **{name: values.tolist() for name, values in picked.items()}}


def _shares(curve: Sequence[TrajectoryStep], times: np.ndarray) -> np.ndarray:
    """Return the share that one run had reached at each of ``times``."""
    known = np.array([step.seconds for step in curve])
    values = np.array([0.0, *(step.hypervolume_share for step in curve)])
    picked: np.ndarray = values[np.searchsorted(known, times, side="right")]
    return picked


def _best_first(front: Front) -> float:
    first = front.objectives[0]
    return min((t.values[first.name] for t in front.trials), key=first.loss)


def _common_objectives(fronts: Sequence[Front]) -> tuple[Objective, ...]:
    first = fronts[0]
    for front in fronts[1:]:
        if [(o.name, o.direction) for o in front.objectives] != [(o.name, o.direction) for o in first.objectives]:
            raise UsageError(
                f"studies with different objectives cannot be compared: {first.study} has "
                f"{', '.join(o.name for o in first.objectives)}; {front.study} has "
                f"{', '.join(o.name for o in front.objectives)}."
            )
    return first.objectives
