"""Exceptions of autodistill, each with the exit code that the command line returns for it.

::

    AutodistillError            1
    ├── UsageError              2   wrong argument, configuration or space
    │   ├── ConfigError         2   one or more problems in a study file, all reported together
    │   ├── UnknownNameError    2   a name that no registry holds
    │   ├── DataError           2   images or labels that cannot be used
    │   └── TeacherError        2   a teacher that cannot be used
    ├── StudyInUseError         3   another driver holds the study
    ├── UserCodeError           4   code of the user fails while the search runs
    ├── ResourceError           5   disk, memory, permissions, devices
    └── StoreError              6   study.db or a checkpoint is damaged

A message says what happened, what was got, what is allowed (nearest first) and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class AutodistillError(Exception):
    """Base of every error that autodistill raises on purpose."""

    exit_code = 1


class UsageError(AutodistillError):
    """The request itself is wrong; nothing was written."""

    exit_code = 2


class ConfigError(UsageError):
    """Problems in a study file or search space, all of them at once.

    Args:
        problems: one sentence each, with ``file:line: key`` where known.
        source: the file or flag they were found in.
    """

    def __init__(self, problems: Sequence[str], source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''} in {source}"
        super().__init__("\n".join([count + ":", *(f"  - {problem}" for problem in self.problems)]))


class UnknownNameError(UsageError):
    """A name that is not registered; the message lists the nearest first."""

    def __init__(self, kind: str, got: object, allowed: Iterable[str], hint: str = "", meant: str = "") -> None:
        self.kind = kind
        self.got = got
        self.allowed = tuple(allowed)
        super().__init__(unknown_name(kind, got, self.allowed, hint, meant))


class StudyInUseError(AutodistillError):
    """Another driver holds the study's lock."""

    exit_code = 3


class DataError(UsageError):
    """Images or labels that cannot be used; found before the first trial."""


class TeacherError(UsageError):
    """A teacher that cannot be loaded or cannot be trusted; found before the first trial."""


class UserCodeError(AutodistillError):
    """Code that the user handed over fails while the search runs."""

    exit_code = 4


class ResourceError(AutodistillError):
    """Disk, memory, permission or device is missing."""

    exit_code = 5


class StoreError(AutodistillError):
    """Stored state is damaged or not a study."""

    exit_code = 6


class InfeasibleError(AutodistillError):
    """A candidate that cannot be built or breaks a constraint: it ends as PRUNED, at no training cost.

    Args:
        reason: short code stored with the trial, e.g. ``INFEASIBLE_BUILD``.
        message: what was wrong, for people.
    """

    def __init__(self, message: str, reason: str = "INFEASIBLE_BUILD") -> None:
        self.reason = reason
        super().__init__(message)


class DivergedError(AutodistillError):
    """Training produced a loss that is not finite; the trial fails with reason ``NAN``."""


class EndedEarlyError(AutodistillError):
    """An evaluation ended by itself, before its trial was decided on and without being asked to stop."""

    reason = "ENDED_EARLY"

    def __init__(self, message: str = "the evaluation ended by itself before it was finished") -> None:
        super().__init__(message)


class WorkerLostError(AutodistillError):
    """The process that worked on a trial died, or was ended because its training stood still.

    Args:
        message: how it ended, e.g. ``killed by signal 11 (SIGSEGV)``.
        reason: ``WORKER_LOST``, or ``HUNG``.
        by_student: whether the student may be the cause; false where something else ended the process, such as a system
            that was out of memory.
    """

    def __init__(self, message: str, reason: str = "WORKER_LOST", *, by_student: bool = True) -> None:
        self.reason, self.by_student = reason, by_student
        super().__init__(message)


class InterruptedTrialError(AutodistillError):
    """A trial was asked to stop in the middle; its checkpoint is on disk and it can go on later.

    Args:
        message: what was stopped.
        done: share of it that was done, where that is known.
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
    """The ``count`` members of ``allowed`` that look most like ``name``, best first; numbers by their distance."""
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
    """One message for every unknown name: what, got, nearest (or what is surely ``meant``), allowed, what to do."""
    close = (meant,) if meant else nearest(got, allowed)
    said = f"unknown {kind} {str(got)!r}"
    if close:
        said += f"; did you mean {' or '.join(repr(name) for name in close)}?"
    else:
        said += "."
    shown = sorted(allowed)
    listed = ", ".join(shown[:20]) + (f", … ({len(shown)} in all)" if len(shown) > 20 else "")
    said += f" Allowed: {listed}." if shown else " None is registered."
    return f"{said} {hint}".rstrip()


def first_lines(error: BaseException) -> str:
    """What a library said, in one line of at most 400 letters: its first four."""
    return "; ".join(line.strip() for line in str(error).splitlines()[:4] if line.strip())[:400]
