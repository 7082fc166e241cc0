"""Choice of students from a front: the best within a bound, the knee, or all, with verified students first.

Selection biases the figures of a search, so a trial that fell off the verified front is picked only if none that stayed
there will do. A verification applies to a trial only as trained (not to its int8 form), and only while number and
settings equal those of the row.

While a member of the search's front is not verified, the verified front is unknown: a verified student may be on it
only because a better one was not verified. Students are then picked from the search's front, less those that fell off,
by the figures of the search, which all of them have. Comparing verified means with biased figures would be unfair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import Objective, TrialRecord, stable_key
from autodistill.core.wording import counted, students_counted
from autodistill.search.objectives.expression import TEACHER, matches
from autodistill.search.objectives.objectives import asked_cost
from autodistill.search.objectives.values_as_losses import axis_losses, to_losses
from autodistill.search.results.front_member import FrontMember

if TYPE_CHECKING:
    from autodistill.search.results.verified import VerifiedRow

KEPT = ("stays", "joins")
"""Verdicts of students on the verified front."""

FELL, UNVERIFIED = "fell off when verified", "not verified"
"""Reasons for which a member of the search's front is not on the verified one."""


class Pickable(Protocol):
    """Interface of a front, as this module uses it; ``Front.pick`` can thus import this module."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Axes, in the order of the values."""

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Members of the front."""

    @property
    def others(self) -> tuple[TrialRecord, ...]:
        """Dominated COMPLETE trials."""

    @property
    def members(self) -> tuple[FrontMember, ...]:
        """Members as trials that can be loaded and exported."""

    @property
    def directory(self) -> Path | None:
        """Folder of the study; ``None`` for a study in memory."""

    @property
    def teacher(self) -> Mapping[str, float]:
        """Metric values of the teacher, if known."""

    def __len__(self) -> int:
        """Number of members."""

    def counts(self, values: Mapping[str, float]) -> bool:
        """Return whether values are near enough to the teacher's to count as a gain."""

    def trained(self) -> Pickable:
        """Return the front of the trials as trained, without their variants."""


@dataclass(frozen=True)
class PickCandidate:
    """A student that may be picked, with its best known figures.

    Attributes:
        member: the trial.
        row: its row of ``verify``; ``None`` if it was not verified.
        values: values of the objectives; accuracy, loss and agreement are verified means if there are any.
        fell: whether its trial, in this form or another, was verified and is not on the verified front.
    """

    member: FrontMember
    row: VerifiedRow | None
    values: Mapping[str, float]
    fell: bool = False

    @property
    def kept(self) -> bool:
        """Whether it is on the verified front."""
        return self.row is not None and self.row.verdict in KEPT


@dataclass(frozen=True)
class Choice:
    """The students that may be picked, and how far their front is verified.

    Attributes:
        standings: members of the front, then students that joined the verified one.
        verified: number of verified members of the search's front.
        size: number of members, as trained.
        found: whether any trial was verified.
        trouble: error in reading the verification; empty if there is none.
    """

    standings: tuple[PickCandidate, ...]
    verified: int
    size: int
    found: bool
    trouble: str = ""

    @property
    def whole(self) -> bool:
        """Whether every member was verified, so that the verified front is known."""
        return self.verified >= self.size

    def first(self, some: Sequence[PickCandidate]) -> list[PickCandidate]:
        """Return the students that are picked before the others."""
        return [one for one in some if (one.kept if self.whole else not one.fell)]

    def figures(self, one: PickCandidate) -> Mapping[str, float]:
        """Return the values by which a student is compared."""
        return one.values if self.whole else one.member.values


@dataclass(frozen=True)
class Selection:
    """The students that are delivered as the front of a study.

    Attributes:
        members: members of the verified front if it is known, else of the search's, without those that fell off.
        left_out: members of the search's front that are left out, by reason.
        said: sentence on how ``verify`` changed the front; empty if it did not.
        unverified: those of ``members`` that were not verified although others were.
    """

    members: tuple[FrontMember, ...]
    left_out: Mapping[str, tuple[FrontMember, ...]] = field(default_factory=dict)
    said: str = ""
    unverified: tuple[FrontMember, ...] = ()


def verified_rows(front: Pickable) -> dict[int, VerifiedRow]:
    """Return the rows of ``verify`` by number of the trial, except for trials that were trained with other settings.

    Raises:
        StoreError: the verification is damaged.
    """
    from autodistill.search.results.verified import read_verified

    found = read_verified(front.directory) if front.directory is not None else None
    return {} if found is None else rows_for(front, found.students)


def rows_for(front: Pickable, students: Iterable[VerifiedRow]) -> dict[int, VerifiedRow]:
    """Return the rows with a verdict that apply to trials of this front's study, by number."""
    known = {t.number: t for t in (*front.trials, *front.others) if t.variant == "fp32"}
    rows = [row for row in students if row.verdict and row.trial in known and _same(row, known[row.trial])]
    return {row.trial: row for row in settled(front, rows) if row.trial is not None}


def settled(front: Pickable, rows: Iterable[VerifiedRow]) -> list[VerifiedRow]:
    """Return rows of ``verify``, with a corrected verdict for trials dominated by a member that was not verified.

    Verdicts compare verified trials only. A trial off the search's front may be dominated, by the figures of the
    search, by a member that was not verified. As both have only these figures in common, its verdict is ``outside``.
    """
    rows = list(rows)
    search = front.trained()
    ahead = unverified(front, [row.trial for row in rows if row.kind == "student" and row.verdict])
    better = to_losses(front.objectives, [t.values for t in ahead])
    behind = set()
    for trial, own in zip(search.others, to_losses(front.objectives, [t.values for t in search.others]), strict=True):
        if ((better <= own).all(axis=1) & (better < own).any(axis=1)).any():
            behind.add(trial.number)
    return [replace(row, verdict="outside") if row.verdict in KEPT and row.trial in behind else row for row in rows]


def unverified(front: Pickable, verified: Collection[int | None]) -> list[TrialRecord]:
    """Return the members of the search's front, as trained, whose numbers are not in ``verified``."""
    return [t for t in front.trained().trials if t.number not in verified]


def row_of(trial: TrialRecord, rows: Mapping[int, VerifiedRow]) -> VerifiedRow | None:
    """Return the row that applies to a trial; none applies to an int8 form."""
    return rows.get(trial.number) if trial.variant == "fp32" else None


def pick(front: Pickable, expression: str) -> FrontMember:
    """Return the best student (first objective) that satisfies an expression; see :meth:`Front.pick`."""
    choice = _choice(front)
    teacher = {f"{TEACHER}.{name}": value for name, value in front.teacher.items()}
    fitting = [
        one for one in choice.standings if matches(expression, {**teacher, **one.member.columns(), **one.values})
    ]
    if not fitting:
        raise UsageError(
            f"no student on the front satisfies {expression!r}; the front has {students_counted(front.trials)}."
            + _in_the_search(choice.standings, expression, teacher)
        )
    before = choice.first(fitting)
    first = front.objectives[0]
    cost = asked_cost(front.objectives) or first  # the cheaper of equal ones, which are often two forms of one trial

    def losses(one: PickCandidate) -> tuple[float, float]:
        figures = choice.figures(one)
        return first.loss(figures[first.name]), cost.loss(figures[cost.name])

    return _explained(min(before or fitting, key=losses), choice, len(before), repr(expression))


def knee(front: Pickable) -> FrontMember | None:
    """Return the member nearest to the ideal point; see :meth:`Front.knee`."""
    if not front.trials:
        return None
    choice = _choice(front)
    members = [one for one in choice.standings if one.row is None or one.row.verdict != "joins"]
    members = [one for one in members if front.counts(one.member.values)] or members
    before = choice.first(members)
    losses = axis_losses(front.objectives, [choice.figures(one) for one in before or members])
    best, worst = losses.min(axis=0), losses.max(axis=0)
    distances = np.linalg.norm((losses - best) / np.where(worst > best, worst - best, 1.0), axis=1)
    return _explained((before or members)[int(distances.argmin())], choice, len(before))


def whole(front: Pickable) -> Selection:
    """Return all students of the front according to ``verify``, without those that fell off.

    If all members were verified, unverified ones are left out as well: int8 forms of trials off the front. The int8
    form of a trial is treated like its trial: both come from the same training, with the same bias.
    """
    rows, trouble = _rows(front)
    if trouble:
        return Selection(front.members, said=f"the front is that of the search: {trouble}")
    if not rows:
        return Selection(front.members)
    kept = {number for number, row in rows.items() if row.verdict in KEPT}
    missing = len(unverified(front, rows))

    def ships(number: int) -> bool:
        return number in kept or (missing > 0 and number not in rows)

    shown = [one for one in front.members if ships(one.number)]
    more = [FrontMember.of(t, front.directory) for t in front.others if t.variant == "fp32" and t.number in kept]
    if not shown and not more:
        return Selection(front.members, said="no student is on the verified front; this is the front of the search.")
    left: dict[str, tuple[FrontMember, ...]] = {}
    for one in front.members:
        if not ships(one.number):
            reason = FELL if one.number in rows else UNVERIFIED
            left[reason] = (*left.get(reason, ()), one)
    unseen = tuple(one for one in shown if one.number not in rows)
    size = len(front.trained())
    head = f"this is the front of the search, {size - missing} of {counted(size, 'student')} on it verified"
    said = _changed(head if missing else "this is the verified front", more, unseen, left)
    return Selection((*shown, *more), left, said, unseen)


def _changed(
    head: str, more: Sequence[FrontMember], unseen: Sequence[FrontMember], left: Mapping[str, Sequence[FrontMember]]
) -> str:
    parts = [f"trial {_numbers(more)} joined it"] if more else []
    parts += [f"{UNVERIFIED}: trial {_numbers(unseen)}"] if unseen else []
    without = ", ".join(f"trial {_numbers(members)} ({reason})" for reason, members in left.items())
    parts += [f"left out: {without}"] if left else []
    return f"{head}; {'; '.join(parts)}." if parts else ""


def _numbers(members: Sequence[FrontMember]) -> str:
    return ", ".join(f"{m.number}" + f" ({m.variant})" * (m.variant != "fp32") for m in members)


def _rows(front: Pickable) -> tuple[dict[int, VerifiedRow], str]:
    """Return the rows of ``verify``, and the error if its file is damaged."""
    try:
        return verified_rows(front), ""
    except StoreError as error:  # a damaged file must not prevent a pick; the message mentions it
        return {}, str(error)


def _choice(front: Pickable) -> Choice:
    rows, trouble = _rows(front)
    size = len(front.trained())
    return Choice(standings(front, rows), size - len(unverified(front, rows)), size, bool(rows), trouble)


def standings(front: Pickable, rows: Mapping[int, VerifiedRow]) -> tuple[PickCandidate, ...]:
    """Return the members of the front, then the students that joined the verified one."""
    plain = [t for t in front.others if t.variant == "fp32" and t.number in rows]
    joined = [t for t in plain if rows[t.number].verdict == "joins"]
    return tuple(_standing(front, t, rows) for t in (*front.trials, *joined))


def _standing(front: Pickable, trial: TrialRecord, rows: Mapping[int, VerifiedRow]) -> PickCandidate:
    row = row_of(trial, rows)
    names = {o.name for o in front.objectives}
    known = {name: value for name, value in trial.values.items() if name in names}
    means = {} if row is None else {name: mean for name, mean in row.means.items() if name in names}
    fell = trial.number in rows and rows[trial.number].verdict not in KEPT
    return PickCandidate(FrontMember.of(trial, front.directory), row, {**known, **means}, fell)


def _explained(best: PickCandidate, choice: Choice, before: int, bound: str = "") -> FrontMember:
    """Return the member with a sentence on how ``verify`` affected the pick; empty if nothing is verified."""
    number = best.member.called
    state = {"stays": "stayed on the front when verified", "joins": "joined the front when verified"}.get(
        best.row.verdict if best.row else "", FELL if best.row else "was not verified"
    )
    if choice.trouble:
        said = f"trial {number} was picked by the figures of the search: {choice.trouble}"
    elif not choice.found:
        said = ""
    elif not before:
        lacks = f"no student on the verified front satisfies {bound}" if bound else "no member is on the verified front"
        said = f"{lacks}; trial {number} was picked, which {state}."
    elif choice.whole:
        those = f" that satisfy {bound}" if bound and before > 1 else f" that satisfies {bound}" if bound else ""
        among = f"{counted(before, 'student')} on the verified front{those}"
        said = f"trial {number} was picked among {among}, by verified figures."
    else:
        seen = f"{choice.verified} of {counted(choice.size, 'student')} on the front were verified"
        said = f"{seen}, so the figures of the search decided: trial {number} was picked, which {state}."
    return replace(best.member, picked=said)


def _in_the_search(standings: Sequence[PickCandidate], expression: str, teacher: Mapping[str, float]) -> str:
    """Return a hint on the trials that satisfy the expression by the search's figures, but not by verified ones."""
    front_only = [one for one in standings if one.row is None or one.row.verdict != "joins"]
    before = [str(one.member.number) for one in front_only if matches(expression, {**teacher, **one.member.columns()})]
    if not before:
        return ""
    return f" By the figures of the search, trial {', '.join(before)} would; by verified figures, none does."


def _same(row: VerifiedRow, trial: TrialRecord) -> bool:
    parts: list[tuple[Any, Any]] = [
        (row.student, trial.student),
        (row.distillation, trial.distillation),
        (row.train, trial.train),
    ]
    return all(stable_key(dict(one)) == stable_key(dict(other)) for one, other in parts)
