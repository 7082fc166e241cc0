"""Students that kill their workers, or make them stand still: trials are tried again, then their students given up.

A death is a fact about the student as soon as it happens twice to the same architecture, whatever the recipe. Counts
are kept with the trials, so that a resume goes on with them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from autodistill.core.errors import WorkerLostError
from autodistill.core.records import Candidate, Params, State, stable_key
from autodistill.core.wording import student_words
from autodistill.search.storage.trial_log import TrialLog

REASON = "CRASH"
"""Reason code of what is given up or refused because its student loses its workers."""

MOST = {"WORKER_LOST": 2, "HUNG": 3}
"""Losses of a kind after which a student is given up."""

_TIMES = {1: "once", 2: "twice", 3: "three times"}
_LOSSES = "losses"
"""Attribute of a trial: how often it lost its worker, by reason."""


@dataclass(frozen=True)
class GivenUp:
    """A student that is not proposed again.

    Attributes:
        student: its architecture.
        how: its last loss, e.g. ``killed by signal 11 (SIGSEGV)``.
        why: the same as a sentence that names the student.
    """

    student: Params
    how: str
    why: str

    @property
    def key(self) -> str:
        """Equal for equal students."""
        return stable_key(self.student)


class Crashes:
    """What a study has lost workers to.

    Args:
        log: its trials.
    """

    def __init__(self, log: TrialLog) -> None:
        self._log = log
        self._counts: dict[str, Counter[str]] = {}
        self._doubtful: list[GivenUp] = []

    def reload(self) -> list[GivenUp]:
        """Read the trials anew; returns the students that the study has given up.

        Where nothing has ever been trained the set-up was at fault as likely as the students: they may be tried again.
        """
        self._counts, self._doubtful = {}, []
        given_up: dict[str, GivenUp] = {}
        trained = False
        for trial in self._log.read():
            key = stable_key(trial.student)
            self._counts.setdefault(key, Counter()).update(self._log.attributes(trial.number).get(_LOSSES, {}))
            trained = trained or any(trial.rungs)
            if trial.reason in (REASON, "HUNG") and any(n >= MOST[kind] for kind, n in self._counts[key].items()):
                given_up.setdefault(key, GivenUp(trial.student, trial.message, trial.message))
        return list(given_up.values()) if trained else []

    def lost(self, candidate: Candidate, error: WorkerLostError) -> tuple[State, str, str] | GivenUp:
        """A trial lost its worker: how it is left to be tried again, or its student where that is given up."""
        counts = self._counts.setdefault(candidate.architecture_key(), Counter())
        counts[error.reason] += 1
        own = self._log.attributes(candidate.number).get(_LOSSES, {})
        self._log.set(candidate.number, _LOSSES, {**own, error.reason: own.get(error.reason, 0) + 1})
        how, times, most = str(error), counts[error.reason], MOST[error.reason]
        if times < most:
            what = "stood still" if error.reason == "HUNG" else "its worker was lost"
            return State.PARTIAL, "INTERRUPTED", f"{what} ({how}); it is tried again from its last checkpoint"
        what = "stood still" if error.reason == "HUNG" else "lost its worker"
        why = (
            f"{student_words(candidate.student)} {what} {_TIMES.get(times, f'{times} times')} ({how}): it cannot be "
            "trained on this machine, and is not proposed again"
        )
        found = GivenUp(candidate.student, how, why)
        if error.reason != "HUNG":  # a disk or a network may stand still as well
            self._doubtful.append(found)
        return found

    def trained(self, student: Params) -> list[GivenUp]:
        """A student was trained to a rung: the machine can train, so that those given up since are to blame."""
        sure = [one for one in self._doubtful if one.key != stable_key(student)]
        self._doubtful = [one for one in self._doubtful if one.key == stable_key(student)]
        return sure
