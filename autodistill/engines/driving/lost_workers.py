"""Lost workers: how a process ended, in words, and when so many students lost theirs that the set-up is at fault."""

from __future__ import annotations

import signal

from autodistill.core.errors import UsageError, WorkerLostError
from autodistill.core.records import Candidate
from autodistill.core.wording import student_words

_LEAST = 5  # different students, of a search with one worker
_PER_SLOT = 3
_NAMED = 6  # students in the message
_NOT_THE_STUDENTS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that a process gets from outside: from the system that is out of memory, or from people."""


def ending(code: int | None) -> str:
    """How a process ended, by its exit code; negative ones are signals."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"killed by signal {-code}{name}"


def loss_of(code: int | None) -> WorkerLostError:
    """The loss of a worker whose process ended with ``code`` while it evaluated a trial."""
    hint = "; out of memory is the usual cause" if code == -signal.SIGKILL else ""
    by_student = code is None or -code not in _NOT_THE_STUDENTS
    return WorkerLostError(f"{ending(code)}{hint}", by_student=by_student)


class Casualties:
    """Students that lost their workers in a row, since the last evaluation that its worker survived.

    Args:
        slots: workers of the search.
    """

    def __init__(self, slots: int) -> None:
        self._most = max(_LEAST, _PER_SLOT * slots)
        self._students: dict[str, str] = {}

    def add(self, candidate: Candidate, how: str) -> None:
        """The worker of a candidate was lost."""
        self._students[candidate.architecture_key()] = f"{student_words(candidate.student)} ({how})"

    def survived(self) -> None:
        """An evaluation ended, well or not, and its worker lives."""
        self._students.clear()

    def error(self) -> UsageError | None:
        """Why the search should end; ``None`` while the students may be at fault."""
        if len(self._students) < self._most:
            return None
        named = list(self._students.values())
        more = f", … ({len(named)} in all)" if len(named) > _NAMED else ""
        return UsageError(
            f"{len(named)} different students lost their workers in a row, and no evaluation has ended in between: "
            f"{', '.join(named[:_NAMED])}{more}. This is most likely the set-up, not the students: what was printed "
            "above, and 'autodistill doctor', may say why. Mend it and run the same command again."
        )
