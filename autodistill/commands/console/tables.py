"""Tables of the front, of the trials, and of one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autodistill.commands.console.output import number, parse_values, print_table, say
from autodistill.core.errors import StoreError
from autodistill.core.records import LATENCY, TrialRecord
from autodistill.core.teacher_distance import points_words, to_teacher
from autodistill.core.wording import distillation_words, setting_words, student_words
from autodistill.search.results.gain import BASIS, UndistilledRuns, gain_over_undistilled, pairs

if TYPE_CHECKING:
    from autodistill.core.records import Objective
    from autodistill.search.results.front import Front
    from autodistill.search.results.verified import VerifiedRow
    from autodistill.search.study.study import Study

KNEE = "knee"
"""Mark of the member nearest to the ideal point."""

FAR = "no gain"
"""Mark of a student that is so far below its teacher that it counts as no gain, although no constraint excludes it."""

TO_TEACHER = "to teacher"
"""Column with the difference to the teacher's accuracy in percentage points."""

_WORDS = ("student", "distillation")


VERDICTS = {"stays": "on the front", "joins": "joins the front", "falls": "FELL OFF", "outside": "not on the front"}
"""Verdict of ``verify`` on a student, mapped to the words shown."""


def print_front(
    front: Front, trials: Sequence[TrialRecord], rows_of_verify: Mapping[int, VerifiedRow] | None = None
) -> None:
    """Print the front, one student per line; the knee is the member nearest to the ideal point.

    Args:
        front: Front to print.
        trials: All trials of the study, to find undistilled twins.
        rows_of_verify: Trial number to its row of ``verify``; if not empty, the table has a column for it.
    """
    knee = front.knee()
    runs = UndistilledRuns(trials)
    gains = [gain_over_undistilled(t, runs, front.objectives[0]) for t in front.trials]
    variants = any(t.variant != "fp32" for t in front.trials)
    names = [o.name for o in front.objectives]
    rows = [
        [
            str(t.number),
            *([t.variant] if variants else []),
            student_words(t.student),
            distillation_words(t.distillation) or "-",
            *parse_values(t.values, front.objectives),
            points_words(to_teacher(t.values, front.teacher)),
            "-" if gain is None else f"{gain:+.4f}",
            _marks(front, t, knee),
        ]
        for t, gain in zip(front.trials, gains, strict=True)
    ]
    columns = ["trial", *(["variant"] if variants else []), "student", "distillation", *names, TO_TEACHER, "gain", ""]
    if all(gain is None for gain in gains):
        rows = [[*row[:-2], row[-1]] for row in rows]
        columns.remove("gain")
    if rows_of_verify:
        cells = [verdict_cell(t, rows_of_verify) for t in front.trials]
        rows = [[*row[:-1], cell, row[-1]] for row, cell in zip(rows, cells, strict=True)]
        columns.insert(-1, "verified")
    columns, rows = _with_teacher(columns, rows, front.teacher, front.objectives)
    hidden = print_table(
        columns,
        rows,
        right=("trial", *names, TO_TEACHER, "gain"),
        wrap=(*_WORDS, "verified"),
        spare=[name for name in ("gain", "distillation") if name in columns],
        last=_costs(names),
    )
    if front.reach is not None and not all(front.counts(t.values) for t in front.trials):
        say(f"{FAR}: not {front.reach.words()}; search with --within off to count such students")
    if "gain" in columns and "gain" not in hidden:
        say(f"gain: {BASIS}")
    if summary := pairs(trials, front.objectives[0]).line():
        say(summary)


def _marks(front: Front, trial: TrialRecord, knee: TrialRecord | None) -> str:
    """Return the marks of a member: the knee, and too far below the teacher."""
    is_knee = knee is not None and trial.form == knee.form
    return ", ".join([KNEE] * is_knee + [FAR] * (not front.counts(trial.values)))


def _with_teacher(
    columns: list[str], rows: list[list[str]], teacher: Mapping[str, float], objectives: Sequence[Objective]
) -> tuple[list[str], list[list[str]]]:
    """Add a last row for the teacher; if its accuracy is unknown, drop the column of the distance to it instead."""
    if "accuracy" not in teacher or all(row[columns.index(TO_TEACHER)] == "-" for row in rows):
        at = columns.index(TO_TEACHER)
        return columns[:at] + columns[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    own = dict(zip((o.name for o in objectives), parse_values(teacher, objectives), strict=True))
    return columns, [*rows, ["teacher", *(own.get(name, "") for name in columns[1:])]]


def say_nearest(study: Study) -> None:
    """If no finished student is near enough to the teacher, print the nearest one and what would help."""
    from autodistill.search.objectives.within_teacher import nearest_lines

    found, reach = study.nearest(), study.reach()
    if found is not None and reach is not None:
        for line in nearest_lines(found, reach):
            say(line)


def nearest_json(study: Study) -> dict[str, Any]:
    """Return :func:`say_nearest` as JSON: ``null`` if a student is near enough, or none has finished."""
    found = study.nearest()
    return {"nearest": None if found is None else found.to_json()}


def found_by_verify(front: Front) -> tuple[dict[int, VerifiedRow], str]:
    """Return the rows of ``verify`` by trial number, and an error message if its file is damaged."""
    from autodistill.search.results.picking import verified_rows

    try:
        return verified_rows(front), ""
    except StoreError as error:
        return {}, str(error)


def verdict_cell(trial: TrialRecord, rows: Mapping[int, VerifiedRow]) -> str:
    """Return verdict and accuracy of a member by ``verify``, e.g. ``on the front, 0.9833``."""
    from autodistill.search.results.picking import row_of

    row = row_of(trial, rows)
    if row is None:
        return "not verified"
    accuracy = "" if row.accuracy is None else f", {row.accuracy.mean:.4f}"
    return f"{VERDICTS[row.verdict]}{accuracy}"


def print_trials(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], teacher: Mapping[str, float] | None = None
) -> None:
    """Print all trials, one per line, with the latest value of each objective and the reason of their state.

    Args:
        trials: Trials of the study.
        objectives: Objectives of the study.
        teacher: Metrics of the teacher, if known.
    """
    teacher = teacher or {}
    names = [o.name for o in objectives]
    rows = [
        [
            str(t.number),
            t.state.value,
            t.reason,
            student_words(t.student),
            distillation_words(t.distillation) or "-",
            *parse_values(t.latest, objectives),
            points_words(to_teacher(t.latest, teacher)),
            f"{t.epochs:g}",
            f"{t.seconds:.1f}",
        ]
        for t in trials
    ]
    columns = ["trial", "state", "reason", "student", "distillation", *names, TO_TEACHER, "epochs", "seconds"]
    columns, rows = _with_teacher(columns, rows, teacher, objectives)
    print_table(
        columns,
        rows,
        right=("trial", *names, TO_TEACHER, "epochs", "seconds"),
        wrap=_WORDS,
        spare=("seconds", "epochs", "reason", "distillation"),
        last=_costs(names),
    )


def _costs(names: Sequence[str]) -> list[str]:
    """Return the objectives that a narrow table may leave out, in that order; the first one always stays."""
    return list(names[:0:-1])


def print_trial(
    trial: TrialRecord,
    objectives: Sequence[Objective],
    gain: float | None,
    teacher: Mapping[str, float] | None = None,
) -> None:
    """Print one trial in full: how it ended and why, its settings, and its metrics at each rung.

    Args:
        trial: Trial to print.
        objectives: Objectives of the study, for the units.
        gain: Gain in the first objective over the best undistilled run; ``None`` if unknown.
        teacher: Metrics of the teacher, if known.
    """
    units = {o.name: o.unit for o in objectives}
    rows = [["trial", trial.called], ["state", f"{trial.state.value} {trial.reason}".strip()]]
    rows += [["why", trial.message]] if trial.message else []
    rows += [["proposed because", trial.why]] if trial.why else []
    rows += [
        [name, number(value, units.get(name, "")) + (" (noisy)" if trial.noisy and name == LATENCY else "")]
        for name, value in trial.latest.items()
    ]
    if (points := to_teacher(trial.latest, teacher or {})) is not None:
        rows.append([TO_TEACHER, f"{points_words(points)} (the teacher has {(teacher or {})['accuracy']:.4f})"])
    rows += [["gain", f"{gain:+.4f} {BASIS}"]] if gain is not None else []
    for section in ("student", "distillation", "train"):
        rows += [[f"{section}.{key}", setting_words(value)] for key, value in getattr(trial, section).items()]
    rows += [["seed", str(trial.seed)], ["epochs", f"{trial.epochs:g}"], ["seconds", f"{trial.seconds:.1f}"]]
    for rung in sorted(trial.rungs):
        shown = ", ".join(f"{k} {number(v, units.get(k, ''))}" for k, v in trial.rungs[rung].items())
        rows.append([f"rung {rung}", shown])
        rows += [["", words] for words in trial.decisions.get(rung, ())]
    for name, facts in trial.variants.items():
        known = ", ".join(f"{k} {number(v, units.get(k, ''))}" for k, v in facts.get("values", {}).items())
        rows.append([f"variant {name}", known or f"none: {facts.get('reason', '')}"])
    print_table(["", ""], rows)
