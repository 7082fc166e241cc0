"""Students that kill or hang their workers: their trials are retried, then the student is given up.

Two worker losses of the same architecture are attributed to the student, whatever the recipe. Counts are stored with
the trials, so that they survive a resume.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from autodistill.core.errors import WorkerLostError
from autodistill.core.records import Candidate, Params, State, stable_key
from autodistill.core.wording import student_words
from autodistill.search.storage.trial_log import TrialLog

REASON = "CRASH"
"""Reason code of trials that are ended or refused because their student loses its workers."""

MOST = {"WORKER_LOST": 2, "HUNG": 3}
"""Losses by reason code after which a student is given up."""

_TIMES = {1: "once", 2: "twice", 3: "three times"}
_LOSSES = "losses"
"""Trial attribute: number of lost workers, by reason code."""


@dataclass(frozen=True)
class GivenUp:
    """A student that is not proposed again.

    Attributes:
        student: its architecture.
        how: its last loss, e.g. ``killed by signal 11 (SIGSEGV)``.
        why: the reason as a sentence that names the student.
    """

    student: Params
    how: str
    why: str

    @property
    def key(self) -> str:
        """Key that is equal for equal students."""
        return stable_key(self.student)


class Crashes:
    """Lost workers of a study, counted by student.

    Args:
        log: trials of the study.
    """

    def __init__(self, log: TrialLog) -> None:
        self._log = log
        self._counts: dict[str, Counter[str]] = {}
        self._doubtful: list[GivenUp] = []

    def reload(self) -> list[GivenUp]:
        """Read the trials again and return the students that the study has given up.

        The list is empty if nothing was ever trained: the set-up is then as likely at fault, and students are retried.
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
        """Count a lost worker; return how the trial ends to be retried, or the student if it is given up."""
        counts = self._counts.setdefault(candidate.architecture_key(), Counter())
        counts[error.reason] += 1
        own = self._log.attributes(candidate.number).get(_LOSSES, {})
        self._log.set(candidate.number, _LOSSES, {**own, error.reason: own.get(error.reason, 0) + 1})
        how, times, most = str(error), counts[error.reason], MOST[error.reason]
        if times < most:
            what = "stood still" if error.reason == "HUNG" else "its worker was lost"
            return State.PARTIAL, "INTERRUPTED", f"{what} ({how}); the trial is retried from its last checkpoint"
        what = "stood still" if error.reason == "HUNG" else "lost its worker"
        why = (
            f"{student_words(candidate.student)} {what} {_TIMES.get(times, f'{times} times')} ({how}): it cannot be "
            "trained on this machine, and is not proposed again"
        )
        found = GivenUp(candidate.student, how, why)
        if error.reason != "HUNG":  # a slow disk or network can also stop progress
            self._doubtful.append(found)
        return found

    def trained(self, student: Params) -> list[GivenUp]:
        """Return students given up earlier that are now certainly at fault, since ``student`` trained to a rung."""
        sure = [one for one in self._doubtful if one.key != stable_key(student)]
        self._doubtful = [one for one in self._doubtful if one.key == stable_key(student)]
        return sure
