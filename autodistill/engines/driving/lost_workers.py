"""Lost workers: describes how a process ended, and detects when the set-up rather than a student is the cause."""

from __future__ import annotations

import signal

from autodistill.core.errors import UsageError, WorkerLostError
from autodistill.core.records import Candidate
from autodistill.core.wording import student_words

_LEAST = 5  # different students that lose their worker in a row before the search ends, at least
_PER_SLOT = 3  # the same per worker
_NAMED = 6  # students listed in the message
_NOT_THE_STUDENTS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals sent from outside the process: by a system that is out of memory, or by a person."""


def ending(code: int | None) -> str:
    """Describe how a process ended, from its exit code; a negative code is a signal."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"killed by signal {-code}{name}"


def loss_of(code: int | None) -> WorkerLostError:
    """Return the error for a worker whose process ended with ``code`` while it evaluated a trial."""
    hint = "; out of memory is the usual cause" if code == -signal.SIGKILL else ""
    by_student = code is None or -code not in _NOT_THE_STUDENTS
    return WorkerLostError(f"{ending(code)}{hint}", by_student=by_student)


class LostWorkers:
    """Students whose workers were lost since the last evaluation that ended normally.

    Args:
        slots: Number of workers of the search.
    """

    def __init__(self, slots: int) -> None:
        self._most = max(_LEAST, _PER_SLOT * slots)
        self._students: dict[str, str] = {}

    def add(self, candidate: Candidate, how: str) -> None:
        """Record that the worker of a candidate was lost.

        Args:
            candidate: Candidate it was evaluating.
            how: How the process ended.
        """
        self._students[candidate.architecture_key()] = f"{student_words(candidate.student)} ({how})"

    def survived(self) -> None:
        """Record that an evaluation ended, with or without an error, and its worker still runs."""
        self._students.clear()

    def error(self) -> UsageError | None:
        """Return the error that should end the search; ``None`` while the students may be the cause."""
        if len(self._students) < self._most:
            return None
        named = list(self._students.values())
        more = f", … ({len(named)} in all)" if len(named) > _NAMED else ""
        return UsageError(
            f"{len(named)} different students lost their workers in a row, and no evaluation has ended in between: "
            f"{', '.join(named[:_NAMED])}{more}. The cause is most likely the set-up, not the students: see the output "
            "above and 'autodistill doctor'. Fix the set-up and run the same command again."
        )
