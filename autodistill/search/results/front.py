"""The Pareto front of a study: the COMPLETE trials that no other trial dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.core.records import Objective, State, TrialRecord
from autodistill.core.teacher_distance import to_teacher
from autodistill.core.wording import students_counted
from autodistill.search.objectives.objectives import spared
from autodistill.search.objectives.pareto import hypervolume, nondominated_mask
from autodistill.search.objectives.values_as_losses import axis_losses, to_losses
from autodistill.search.objectives.within_teacher import Reach
from autodistill.search.results.csv_text import csv_text
from autodistill.search.results.front_member import FrontMember
from autodistill.search.results.gain import UndistilledRuns, gain_over_undistilled
from autodistill.search.storage.study_folder import dump_json, write_atomically
from autodistill.search.storage.variants import expanded

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class HypervolumeBox:
    """Box in which the hypervolume is measured; it is stored so that results stay comparable.

    Attributes:
        ideal: best expected value of each objective, in its own unit.
        reference: worst value of each objective that still counts, in its own unit.
    """

    ideal: tuple[float, ...]
    reference: tuple[float, ...]

    def holding(self, objectives: Sequence[Objective], values: Sequence[Mapping[str, float]]) -> HypervolumeBox:
        """Return the box, widened to the known costs among ``values``; students outside it would count for nothing.

        The box is made from the survey, which may not contain the cheapest and costliest students of the space. Bounds
        of trained objectives stay: one bad training would make all others look alike.
        """
        ideal, reference = list(self.ideal), list(self.reference)
        for j, objective in enumerate(objectives):
            seen = [float(v[objective.name]) for v in values if math.isfinite(v.get(objective.name, math.nan))]
            if objective.stage != "known" or not seen:
                continue
            ideal[j] = min(ideal[j], *seen, key=objective.loss)
            if max(map(objective.loss, seen)) >= objective.loss(reference[j]):
                reference[j] = spared(objective, seen)[1]
        return HypervolumeBox(tuple(ideal), tuple(reference))


@dataclass(frozen=True)
class Front:
    """Non-dominated COMPLETE trials, cheapest first in the first minimised objective.

    Attributes:
        study: name of the study.
        objectives: axes, in the order of the values.
        trials: the members.
        others: the dominated COMPLETE trials.
        scale: box of the hypervolume; ``None`` if too little is known.
        teacher: metric values of the teacher, if known.
        directory: folder of the study, if it has one; its members can then be loaded and exported.
        reach: accuracy from which a student counts, relative to the teacher's; ``None`` if there is no such bound.
    """

    study: str
    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]
    others: tuple[TrialRecord, ...] = ()
    scale: HypervolumeBox | None = None
    teacher: Mapping[str, float] = field(default_factory=dict)
    directory: Path | None = None
    reach: Reach | None = None

    @staticmethod
    def of(
        study: str,
        objectives: Sequence[Objective],
        trials: Sequence[TrialRecord],
        *,
        scale: HypervolumeBox | None = None,
        teacher: Mapping[str, float] | None = None,
        directory: Path | None = None,
        reach: Reach | None = None,
    ) -> Front:
        """Build the front of ``trials`` and their variants; among equal points only the first trial is a member."""
        complete = expanded([t for t in trials if t.state is State.COMPLETE], objectives)
        losses = to_losses(objectives, [t.values for t in complete])
        mask = nondominated_mask(losses) if complete else np.zeros(0, dtype=bool)
        seen: set[tuple[float, ...]] = set()
        members: list[TrialRecord] = []
        others: list[TrialRecord] = []
        for trial, row, best in zip(complete, losses.tolist(), mask, strict=True):
            (members if best and tuple(row) not in seen else others).append(trial)
            if best:
                seen.add(tuple(row))
        axis = next((o for o in objectives if o.direction == "minimize"), objectives[0])
        members.sort(key=lambda t: (axis.loss(t.values[axis.name]), t.number))
        rest = (scale, dict(teacher or {}), directory, reach)
        return Front(study, tuple(objectives), tuple(members), tuple(others), *rest)

    def trained(self) -> Front:
        """Return the front of the trials as trained, without their variants."""
        plain = [replace(t, variants={}) for t in (*self.trials, *self.others) if t.variant == "fp32"]
        plain.sort(key=lambda t: t.number)
        rest: dict[str, Any] = {"scale": self.scale, "teacher": self.teacher, "directory": self.directory}
        rest["reach"] = self.reach
        return Front.of(self.study, self.objectives, plain, **rest)

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        """Return one line: name, number of students, and range of each objective."""
        spans = [f", {o.name} {_span([t.values[o.name] for t in self.trials])}" for o in self.objectives if self.trials]
        return f"<Front {self.study!r}: {students_counted(self.trials)}{''.join(spans)}>"

    @property
    def reference_point(self) -> tuple[float, ...] | None:
        """Worst values that count for the hypervolume, in the objectives' own units."""
        return None if self.scale is None else self.scale.reference

    @property
    def hypervolume(self) -> float:
        """Volume between the front and the reference point, in the product of the objectives' own units."""
        if self.scale is None or not self.trials:
            return 0.0
        reference = to_losses(self.objectives, [self._named(self.scale.reference)])[0]
        return hypervolume(to_losses(self.objectives, [t.values for t in self.trials]), reference)

    @property
    def hypervolume_share(self) -> float:
        """Share of the box from the reference to the ideal point that the front dominates, in [0, 1].

        Counts and times enter on a logarithmic axis, so that halving a small student counts like halving a large one.
        """
        if self.scale is None or not self.trials:
            return 0.0
        return hypervolume(self.unit_losses([t.values for t in self.trials]), [1.0] * len(self.objectives))

    def unit_losses(self, values: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Return losses scaled to 0 at the ideal and 1 at the reference, ``(trials, objectives)``; clipped at 0."""
        assert self.scale is not None
        rows = axis_losses(self.objectives, values)
        ideal, worst = axis_losses(self.objectives, [self._named(self.scale.ideal), self._named(self.scale.reference)])
        span = np.where(worst > ideal, worst - ideal, 1.0)
        scaled: np.ndarray = np.maximum((rows - ideal) / span, 0.0)
        return scaled

    @property
    def members(self) -> tuple[FrontMember, ...]:
        """Members as trials that can be loaded and exported."""
        return tuple(FrontMember.of(trial, self.directory) for trial in self.trials)

    def counts(self, values: Mapping[str, float]) -> bool:
        """Return whether a student with these values is within :attr:`reach` of the teacher."""
        return self.reach is None or self.reach.holds(values)

    def knee(self) -> FrontMember | None:
        """Return the member nearest to the ideal point, which has the best values of all objectives: a fair first pick.

        The axes (logarithmic for costs) span the front itself. In the box of the hypervolume, where accuracies span 0
        to 1, members that differ by a few points would look equally accurate; the cheapest would always be the knee.

        If all members were verified, the knee is chosen among those on the verified front, if any, by verified figures.
        If only some were, it is chosen among those that did not fall off, by the figures of the search. Students too
        far below the teacher (:meth:`counts`) are left out if there are others.
        """
        from autodistill.search.results.picking import knee

        return knee(self)

    def pick(self, expression: str) -> FrontMember:
        """Return the best member (first objective) that satisfies e.g. ``"latency_ms <= 5 and params <= 2e6"``.

        If the whole front was verified, students on the verified front, including those that joined it, come before all
        others, and accuracy, loss and agreement are verified means if there are any. If some members are not verified,
        the figures of the search decide, and only members that fell off come last. ``picked`` of the member says so.

        Raises:
            UsageError: the expression is invalid, or no member satisfies it.
        """
        from autodistill.search.results.picking import pick

        return pick(self, expression)

    def to_json(self) -> dict[str, Any]:
        """Return the stable form for ``front --json``."""
        runs = UndistilledRuns((*self.trials, *self.others))
        return {
            "study": self.study,
            "objectives": [{"name": o.name, "direction": o.direction, "unit": o.unit} for o in self.objectives],
            "reference_point": None if self.reference_point is None else list(self.reference_point),
            "hypervolume": self.hypervolume,
            "hypervolume_share": self.hypervolume_share,
            "teacher": dict(self.teacher),
            "within": self._within(),
            "trials": [
                {
                    "number": t.number,
                    "variant": t.variant,
                    "state": t.state.value,
                    "values": dict(t.values),
                    "to_teacher": to_teacher(t.values, self.teacher),
                    "within": None if self.reach is None else self.counts(t.values),
                    "gain": gain_over_undistilled(t, runs, self.objectives[0]),
                    "student": dict(t.student),
                    "distillation": dict(t.distillation),
                    "train": dict(t.train),
                    "epochs": t.epochs,
                    "seconds": t.seconds,
                }
                for t in self.trials
            ],
        }

    def _within(self) -> dict[str, Any] | None:
        """Return the bound on the distance to the teacher, and the number of members within it."""
        if self.reach is None:
            return None
        return {**self.reach.to_json(), "members": sum(self.counts(t.values) for t in self.trials)}

    def to_pandas(self) -> pd.DataFrame:
        """Return a table, one row per member: number, objectives, ``student.*``, ``distillation.*``, ``train.*``."""
        import pandas as pd

        return pd.DataFrame([t.columns() for t in self.members])

    def plot(self, path: str | Path, *, empty: str = "") -> Path:
        """Draw the front into ``path`` (PNG or SVG by suffix); ``empty`` is the note on a front without members."""
        from autodistill.delivery.figures.front_png import front_png

        front_png(self, path, empty=empty)
        return Path(path)

    def save(self, directory: str | Path, *, empty: str = "") -> dict[str, Path]:
        """Write ``front.json``, ``front.csv`` and ``front.png``; return their paths by suffix."""
        folder = Path(directory)
        write_atomically(folder / "front.json", dump_json(self.to_json()))
        write_atomically(folder / "front.csv", csv_text(self.to_pandas()))
        self.plot(folder / "front.png", empty=empty)
        return {ending: folder / f"front.{ending}" for ending in ("json", "csv", "png")}

    def _named(self, point: Sequence[float]) -> dict[str, float]:
        return {o.name: v for o, v in zip(self.objectives, point, strict=True)}


def last_values(trial: TrialRecord) -> dict[str, float]:
    """Return known costs and metrics of all rungs; values of higher rungs take precedence."""
    out: dict[str, float] = {}
    for rung in sorted(trial.rungs):
        out.update(trial.rungs[rung])
    return {**out, **trial.values}


def propose_box(objectives: Sequence[Objective], values: Sequence[Mapping[str, float]]) -> HypervolumeBox | None:
    """Return a box from values known early (the survey, or the first trials): their extremes with a margin of 10 %.

    A fraction to be maximised spans 0 to 1. ``values`` may lack metrics, and values that are not finite are ignored.
    ``None`` if an objective has no value.
    """
    ideal, reference = [], []
    for objective in objectives:
        if objective.unit == "fraction" and objective.direction == "maximize":
            ideal.append(1.0)
            reference.append(0.0)
            continue
        seen = [float(v[objective.name]) for v in values if math.isfinite(v.get(objective.name, math.nan))]
        if not seen:
            return None
        best, worst = spared(objective, seen)
        ideal.append(best)
        reference.append(worst)
    return HypervolumeBox(tuple(ideal), tuple(reference))


def _span(values: Sequence[float]) -> str:
    """Return the range as ``0.81 to 0.95``; large numbers are whole, with thousands separators."""
    ends = [f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.4g}" for v in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))
