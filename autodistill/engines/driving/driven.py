"""What an engine drives: a study, or a queue that answers as one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autodistill.core.records import Candidate, Decision, Report, State


class Driven(Protocol):
    """Everything that engines call; they know nothing else of what they drive."""

    @property
    def name(self) -> str:
        """For engines that give their work a name."""

    @property
    def directory(self) -> Path | None:
        """Folder of what is trained, for engines that bring files there; ``None`` where nothing is kept."""

    def ask(self) -> Candidate | None:
        """The next candidate; ``None``: there is none now."""

    def report(self, candidate: Candidate, report: Report, *, seconds: float = 0.0) -> Decision:
        """Take what a rung showed, and say whether the trial goes on.

        Args:
            candidate: what :meth:`ask` gave.
            report: of its evaluation.
            seconds: work since its last report, for one that does not tell.
        """

    def close(
        self, candidate: Candidate, error: BaseException | None = None, *, seconds: float = 0.0, epochs: float = 0.0
    ) -> State:
        """End a trial; every candidate that was asked for is closed once.

        Args:
            candidate: what :meth:`ask` gave.
            error: what ended its evaluation.
            seconds: work since its last report.
            epochs: the same of the training, from the trial's beginning; 0 where nothing is known.
        """
