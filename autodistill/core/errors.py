"""Exceptions of autodistill, each with the exit code of the command line.

::

    AutodistillError            1
    ├── UsageError              2   wrong argument, configuration or space
    │   ├── ConfigError         2   one or more problems in a study file, all reported together
    │   ├── UnknownNameError    2   a name that is not registered
    │   ├── DataError           2   images or labels that cannot be used
    │   │   └── UnlikeImagesError   images of a worker that are not those of the search
    │   └── TeacherError        2   a teacher that cannot be used
    │       └── WeightsError    2   weights to start from that cannot be used
    ├── StudyInUseError         3   another process is running the study
    ├── UserCodeError           4   the user's code failed while the search ran
    ├── ResourceError           5   disk, memory, permissions, devices
    └── StoreError              6   study.db or a checkpoint is damaged

A message states what happened, the value given, the allowed values (nearest first), and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class AutodistillError(Exception):
    """Base of every error that autodistill raises on purpose."""

    exit_code = 1


class UsageError(AutodistillError):
    """A wrong argument, configuration or search space; nothing was written."""

    exit_code = 2


class ConfigError(UsageError):
    """Problems in a study file or search space, reported together.

    Args:
        problems: One sentence each, with ``file:line: key`` if known.
        source: File or flag that has the problems.
    """

    def __init__(self, problems: Sequence[str], source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''} in {source}"
        super().__init__("\n".join([count + ":", *(f"  - {problem}" for problem in self.problems)]))


class UnknownNameError(UsageError):
    """A name that is not registered; the message lists the nearest names first."""

    def __init__(self, kind: str, got: object, allowed: Iterable[str], hint: str = "", meant: str = "") -> None:
        self.kind = kind
        self.got = got
        self.allowed = tuple(allowed)
        super().__init__(unknown_name(kind, got, self.allowed, hint, meant))


class StudyInUseError(AutodistillError):
    """Another process holds the lock of the study."""

    exit_code = 3


class DataError(UsageError):
    """Images or labels that cannot be used; found before the first trial."""


class UnlikeImagesError(DataError):
    """Images that a worker read and that are not those the search began with; it ends the search."""

    reason = "IMAGES"


class TeacherError(UsageError):
    """A teacher that cannot be loaded or fails its checks; found before the first trial."""


class WeightsError(TeacherError):
    """Weights, of a student or a teacher, that are not there or do not fit; found before the first trial."""


class UserCodeError(AutodistillError):
    """The user's code failed while the search ran."""

    exit_code = 4


class ResourceError(AutodistillError):
    """Missing disk space, memory, permission or device."""

    exit_code = 5


class StoreError(AutodistillError):
    """Stored data that is damaged or not a study."""

    exit_code = 6


class InfeasibleError(AutodistillError):
    """A candidate that cannot be built or violates a constraint; it ends as PRUNED without any training.

    Args:
        message: Cause in words.
        reason: Short code stored with the trial, e.g. ``INFEASIBLE_BUILD``.
    """

    def __init__(self, message: str, reason: str = "INFEASIBLE_BUILD") -> None:
        self.reason = reason
        super().__init__(message)


class DivergedError(AutodistillError):
    """A training whose loss is not finite; the trial fails with reason ``NAN``."""


class EndedEarlyError(AutodistillError):
    """An evaluation that ended by itself before its top rung, without a decision or a request to stop."""

    reason = "ENDED_EARLY"

    def __init__(self, message: str = "the evaluation ended by itself before it was finished") -> None:
        super().__init__(message)


class WorkerLostError(AutodistillError):
    """The worker process of a trial died, or was killed because its training hung.

    Args:
        message: How it ended, e.g. ``killed by signal 11 (SIGSEGV)``.
        reason: ``WORKER_LOST`` or ``HUNG``.
        by_student: Whether the student may be the cause; false if the process was ended from outside, e.g. by a system
            that was out of memory.
    """

    def __init__(self, message: str, reason: str = "WORKER_LOST", *, by_student: bool = True) -> None:
        self.reason, self.by_student = reason, by_student
        super().__init__(message)


class InterruptedTrialError(AutodistillError):
    """A training that was stopped on request; its checkpoint is stored, and it can continue later.

    Args:
        message: What was stopped.
        done: Share of it that was done, in [0, 1]; ``None`` if unknown.
    """

    def __init__(self, message: str, done: float | None = None) -> None:
        super().__init__(message)
        self.done = done


def error_text(error: BaseException) -> str:
    """Return the text of an exception; one that cannot be printed must not hide or end anything."""
    try:
        return str(error)
    except BaseException as cause:  # a __str__ of the user's may raise anything
        return f"its text cannot be printed: {type(cause).__name__}"


def nearest(name: object, allowed: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the ``count`` members of ``allowed`` most similar to ``name``, best first; numbers by their distance."""
    names = list(allowed)
    wanted, numbers = _number(name), {one: _number(one) for one in names}
    if wanted is not None and None not in numbers.values():
        return tuple(sorted(names, key=lambda one: abs((numbers[one] or 0.0) - wanted))[:count])
    return tuple(difflib.get_close_matches(str(name), names, n=count, cutoff=0.4))


def _number(name: object) -> float | None:
    try:
        return float(str(name))
    except ValueError:
        return None


def unknown_name(kind: str, got: object, allowed: Sequence[str], hint: str = "", meant: str = "") -> str:
    """Return the error message for an unknown name.

    Args:
        kind: Kind of the name, e.g. ``distillation loss``.
        got: The unknown name.
        allowed: Names that are allowed.
        hint: Sentence with what to do.
        meant: Name to suggest, if it is certain; else the nearest names are suggested.
    """
    close = (meant,) if meant else nearest(got, allowed)
    message = f"unknown {kind} {str(got)!r}"
    if close:
        message += f"; did you mean {' or '.join(repr(name) for name in close)}?"
    else:
        message += "."
    shown = sorted(allowed)
    listed = ", ".join(shown[:20]) + (f", … ({len(shown)} in all)" if len(shown) > 20 else "")
    message += f" Allowed: {listed}." if shown else " None is registered."
    return f"{message} {hint}".rstrip()


def first_line(error: BaseException, *, limit: int | None = 200) -> str:
    """Return the first line of an error message, of at most ``limit`` characters; the error's type if it is empty."""
    return (str(error).strip().splitlines() or [""])[0][:limit] or type(error).__name__


def first_lines(error: BaseException) -> str:
    """Return the first four lines of an error message of a library as one line of at most 400 characters."""
    return "; ".join(line.strip() for line in str(error).splitlines()[:4] if line.strip())[:400]
