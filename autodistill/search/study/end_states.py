"""End states of trials: reason codes of errors, and checks of reported values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autodistill.core.errors import (
    AutodistillError,
    DivergedError,
    InfeasibleError,
    InterruptedTrialError,
    error_text,
)
from autodistill.core.records import (
    MOST_WORK,
    WORK,
    Objective,
    Report,
    State,
    described,
    is_finite,
    is_possible_work,
    plain,
)

UNFINISHED = (State.PARTIAL, "INTERRUPTED", "stopped before its next rung; goes on when the study is resumed")
"""End of a trial that was closed without a decision."""


def plain_report(report: Report, levels: Sequence[int], seconds: float = 0.0) -> Report:
    """Convert a report to Python numbers; above rung 0, fill in missing epochs and seconds.

    Args:
        report: report of an evaluation.
        levels: cumulative epochs of the study's rungs; the report's rung gives its epochs.
        seconds: seconds of work on the trial so far, as measured by the engine.
    """
    rung, epochs, worked = plain(report.rung), plain(report.epochs), plain(report.seconds)
    if isinstance(rung, int) and 0 < rung <= len(levels):
        epochs, worked = epochs or float(levels[rung - 1]), worked or seconds
    values = kept({name: plain(value) for name, value in report.values.items()})
    teacher = plain(report.teacher_seconds)
    return replace(report, rung=rung, values=values, epochs=epochs, seconds=worked, teacher_seconds=teacher)


def kept(values: Mapping[str, float]) -> dict[str, float]:
    """Return values under their stored names; names of the work itself are reserved (see :data:`WORK`)."""
    return {f"reported_{name}" if name in WORK else name: value for name, value in values.items()}


def report_error(
    report: Report, known: Mapping[str, float], levels: Sequence[int], objectives: Sequence[Objective]
) -> tuple[str, str] | None:
    """Return reason code and message if a report is invalid, else ``None``.

    Args:
        report: result of :func:`plain_report`.
        known: known costs that the trial has reported.
        levels: cumulative epochs of the study's rungs.
        objectives: objectives of the study.
    """
    rung, top = report.rung, len(levels)
    if not isinstance(rung, int) or not 0 <= rung <= top:
        rungs = f"0 (known costs) and 1 to {top}, after {', '.join(map(str, levels))} epochs"
        return "ERROR", f"rung {rung} was reported, which this study does not have: its rungs are {rungs}"
    amounts = {"epochs": report.epochs, "seconds": report.seconds, "teacher_seconds": report.teacher_seconds or 0.0}
    bad = [f"{k}={described(v)}" for k, v in (*report.values.items(), *amounts.items()) if not is_finite(v)]
    if bad:
        return "NON_FINITE", f"rung {rung} reported {', '.join(bad)}; a finite number is needed"
    impossible = [f"{k}={v:g}" for k, v in amounts.items() if not is_possible_work(v)]
    if impossible:
        return "NON_FINITE", f"rung {rung} reported {', '.join(impossible)}; allowed: 0 to {MOST_WORK:g}"
    beyond = [f"{k}={v:g}" for k, v in report.values.items() if not is_possible(k, v, objectives)]
    if beyond:
        names = " and ".join(text.partition("=")[0] for text in beyond)
        what = "is a fraction" if len(beyond) == 1 else "are fractions"
        hint = "; divide by 100 what is in percent"
        return "NON_FINITE", f"rung {rung} reported {', '.join(beyond)}: {names} {what}, from 0 to 1{hint}"
    missing = [o.name for o in objectives if rung == top and o.name not in report.values and o.name not in known]
    return ("ERROR", f"the top rung was reported without {', '.join(missing)}") if missing else None


def is_possible(name: str, value: float, objectives: Sequence[Objective]) -> bool:
    """Return whether a finite value is between 0 and 1, if its objective is a fraction."""
    fraction = any(o.name == name and o.unit == "fraction" for o in objectives)
    return not fraction or -1e-9 <= value <= 1 + 1e-9


def end_by_error(error: BaseException, budget: str) -> tuple[State, str, str]:
    """Return state, reason code and message of a trial that an error ended."""
    if isinstance(error, InterruptedTrialError):
        if budget:
            return State.PARTIAL, "BUDGET", f"{budget}; goes on when the study is resumed"
        return State.PARTIAL, "INTERRUPTED", "interrupted; goes on when the study is resumed"
    if isinstance(error, InfeasibleError):
        return State.PRUNED, error.reason, error_text(error)
    if isinstance(error, DivergedError):
        return State.FAIL, "NAN", error_text(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return State.FAIL, "OOM", error_text(error) or "out of memory"
    if isinstance(error, AutodistillError) and hasattr(error, "reason"):  # a worker has already classified it
        return State.FAIL, str(error.reason), error_text(error)
    return State.FAIL, "ERROR", f"{type(error).__name__}: {error_text(error)}"


def ended_early(rung: int, levels: Sequence[int]) -> str:
    """Return the message for an evaluation that ended by itself after ``rung``."""
    wanted = ", ".join(f"Report({k}, …) after {epochs} epochs" for k, epochs in enumerate(levels, 1))
    return (
        f"the evaluation ended by itself after rung {rung}. It has to yield a report of every rung up to the top "
        f"({wanted}), unless the study stops it; raise InfeasibleError for a student that cannot be trained."
    )
