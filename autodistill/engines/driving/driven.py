"""Protocol of the object that an engine drives: a study, or a queue with the same methods."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autodistill.core.records import Candidate, Decision, Report, State


class Driven(Protocol):
    """All attributes and methods that engines use."""

    @property
    def name(self) -> str:
        """Return the name, for engines that name their runs."""

    @property
    def directory(self) -> Path | None:
        """Return the folder for files of trials; ``None`` if no files are kept."""

    def ask(self) -> Candidate | None:
        """Return the next candidate; ``None`` if there is none at the moment."""

    def report(self, candidate: Candidate, report: Report, *, seconds: float = 0.0) -> Decision:
        """Store the report of a rung, and decide whether the trial continues.

        Args:
            candidate: Candidate returned by :meth:`ask`.
            report: Report of its evaluation.
            seconds: Seconds of work since its last report, used if the report states none.
        """

    def close(
        self, candidate: Candidate, error: BaseException | None = None, *, seconds: float = 0.0, epochs: float = 0.0
    ) -> State:
        """End a trial. Every candidate returned by :meth:`ask` must be closed exactly once.

        Args:
            candidate: Candidate returned by :meth:`ask`.
            error: Exception that ended its evaluation; ``None`` if there was none.
            seconds: Seconds of work since its last report.
            epochs: Epochs trained since the beginning of the trial; 0 if unknown.
        """
