"""Which students of a front are picked: the best within a bound, the knee, or all; what ``verify`` found goes before.

Selection flatters, so a trial that fell off the verified front is not picked while one that stayed there will do. A
verification stands for a trial only as it was trained (not for its int8 form), and only while number and settings are
those of the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.errors import StoreError, UsageError
from autodistill.records import TrialRecord, stable_key
from autodistill.search.expression import matches
from autodistill.search.front import axis_losses
from autodistill.search.member import Member
from autodistill.search.objectives import asked_cost
from autodistill.words import counted, students_counted

if TYPE_CHECKING:
    from autodistill.delivery.verified import Row
    from autodistill.search.front import Front

KEPT = ("stays", "joins")
"""Verdicts of students on the verified front."""

FELL, UNVERIFIED = "fell off when verified", "not verified"
"""Why a member of the search's front is not on the verified one."""


@dataclass(frozen=True)
class Standing:
    """A student that may be picked, with what is known best of it.

    Attributes:
        member: the trial.
        row: what ``verify`` found of it; ``None`` where it was not verified.
        values: of the objectives; accuracy, loss and agreement are the verified means where there are any.
    """

    member: Member
    row: Row | None
    values: Mapping[str, float]

    @property
    def kept(self) -> bool:
        """Whether it is on the verified front."""
        return self.row is not None and self.row.verdict in KEPT


@dataclass(frozen=True)
class Selection:
    """The students that ship as the front of a study.

    Attributes:
        members: those of the verified front where there is one, else of the search's.
        left_out: members of the search's front that are not among them, by the reason why.
        said: a sentence on what ``verify`` had to do with it; empty where it changed nothing.
    """

    members: tuple[Member, ...]
    left_out: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    said: str = ""


def verified_rows(front: Front) -> dict[int, Row]:
    """What ``verify`` found of trials of this front's study, by number; of what was trained otherwise, nothing.

    Raises:
        StoreError: the verification is damaged.
    """
    from autodistill.delivery.verified import read_verified

    found = read_verified(front.directory) if front.directory is not None else None
    if found is None:
        return {}
    known = {t.number: t for t in (*front.trials, *front.others) if t.variant == "fp32"}
    rows = {row.trial: row for row in found.students if row.trial is not None and row.verdict}
    return {number: row for number, row in rows.items() if number in known and _same(row, known[number])}


def row_of(trial: TrialRecord, rows: Mapping[int, Row]) -> Row | None:
    """The row that stands for a trial; none stands for its int8 form."""
    return rows.get(trial.number) if trial.variant == "fp32" else None


def pick(front: Front, expression: str) -> Member:
    """The best student (first objective) that satisfies an expression; see :meth:`Front.pick`."""
    standings, trouble = _standings(front)
    fitting = [one for one in standings if matches(expression, {**one.member.columns(), **one.values})]
    if not fitting:
        raise UsageError(
            f"no student on the front satisfies {expression!r}; the front has {students_counted(front.trials)}."
            + _in_the_search(standings, expression)
        )
    kept = [one for one in fitting if one.kept]
    first = front.objectives[0]
    cost = asked_cost(front.objectives) or first  # of equally good ones, often two forms of one trial, the cheaper
    best = min(kept or fitting, key=lambda one: (first.loss(one.values[first.name]), cost.loss(one.values[cost.name])))
    return _explained(best, standings, len(kept), trouble, repr(expression))


def knee(front: Front) -> Member | None:
    """The member nearest to the ideal point; see :meth:`Front.knee`."""
    if not front.trials:
        return None
    standings, trouble = _standings(front)
    members = [one for one in standings if one.row is None or one.row.verdict != "joins"]
    kept = [one for one in members if one.kept]
    losses = axis_losses(front.objectives, [one.values for one in kept or members])
    best, worst = losses.min(axis=0), losses.max(axis=0)
    distances = np.linalg.norm((losses - best) / np.where(worst > best, worst - best, 1.0), axis=1)
    return _explained((kept or members)[int(distances.argmin())], standings, len(kept), trouble)


def whole(front: Front) -> Selection:
    """All students of the front as ``verify`` found it: what fell off or was not verified is left out.

    The int8 form of a trial goes with its trial: it is of the same training, which the same luck had flattered.
    """
    rows, trouble = _rows(front)
    if trouble:
        return Selection(front.members, said=f"the front is that of the search: {trouble}")
    kept = {number for number, row in rows.items() if row.verdict in KEPT}
    if not kept:
        nobody = "no student is on the verified front; this is the front of the search."
        return Selection(front.members, said=nobody if rows else "")
    shown = [one for one in front.members if one.number in kept]
    more = [Member.of(t, front.directory) for t in front.others if t.variant == "fp32" and t.number in kept]
    left: dict[str, tuple[Member, ...]] = {}
    for one in front.members:
        if one.number not in kept:
            reason = FELL if one.number in rows else UNVERIFIED
            left[reason] = (*left.get(reason, ()), one)
    return Selection((*shown, *more), left, _changed(more, left))


def _changed(more: Sequence[Member], left: Mapping[str, Sequence[Member]]) -> str:
    joined = [f"trial {_numbers(more)} joined it"] if more else []
    without = ", ".join(f"trial {_numbers(members)} ({reason})" for reason, members in left.items())
    parts = [*joined, f"left out: {without}"] if left else joined
    return f"this is the verified front; {'; '.join(parts)}." if parts else ""


def _numbers(members: Sequence[Member]) -> str:
    return ", ".join(f"{m.number}" + f" ({m.variant})" * (m.variant != "fp32") for m in members)


def _rows(front: Front) -> tuple[dict[int, Row], str]:
    """What ``verify`` found, and what is wrong with its file."""
    try:
        return verified_rows(front), ""
    except StoreError as error:  # a pick must not fail for it, and whoever picks is told
        return {}, str(error)


def _standings(front: Front) -> tuple[list[Standing], str]:
    """The members of the front, then the students that joined the verified one; and what is wrong with the file."""
    rows, trouble = _rows(front)
    plain = [t for t in front.others if t.variant == "fp32" and t.number in rows]
    joined = [t for t in plain if rows[t.number].verdict == "joins"]
    return [_standing(front, t, row_of(t, rows)) for t in (*front.trials, *joined)], trouble


def _standing(front: Front, trial: TrialRecord, row: Row | None) -> Standing:
    names = {o.name for o in front.objectives}
    known = {name: value for name, value in trial.values.items() if name in names}
    means = {} if row is None else {name: mean for name, mean in row.means.items() if name in names}
    return Standing(Member.of(trial, front.directory), row, {**known, **means})


def _explained(best: Standing, standings: Sequence[Standing], kept: int, trouble: str, bound: str = "") -> Member:
    """The member with a sentence on what ``verify`` had to do with it; none where nothing is verified."""
    number = best.member.called
    if trouble:
        said = f"trial {number} was picked by the figures of the search: {trouble}"
    elif all(one.row is None for one in standings):
        said = ""
    elif kept:
        those = f" that satisfy {bound}" if bound and kept > 1 else f" that satisfies {bound}" if bound else ""
        among = f"{counted(kept, 'student')} on the verified front{those}"
        said = f"trial {number} was picked among {among}, by verified figures."
    else:
        state = "was not verified" if best.row is None else "fell off when verified"
        lacks = f"no student on the verified front satisfies {bound}" if bound else "no member is on the verified front"
        said = f"{lacks}; trial {number} was picked, which {state}."
    return replace(best.member, picked=said)


def _in_the_search(standings: Sequence[Standing], expression: str) -> str:
    """Whom the search's own figures would let pass, where verified ones do not."""
    front_only = [one for one in standings if one.row is None or one.row.verdict != "joins"]
    before = [str(one.member.number) for one in front_only if matches(expression, one.member.columns())]
    if not before:
        return ""
    return f" By the figures of the search trial {', '.join(before)} would; verify measured less."


def _same(row: Row, trial: TrialRecord) -> bool:
    parts: list[tuple[Any, Any]] = [
        (row.student, trial.student),
        (row.distillation, trial.distillation),
        (row.train, trial.train),
    ]
    return all(stable_key(dict(one)) == stable_key(dict(other)) for one, other in parts)
