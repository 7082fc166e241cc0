"""The books of a study: what it has spent, over all its resumes, on the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna

from autodistill.core.budget import Spent
from autodistill.core.records import Report, is_possible_work, plain
from autodistill.search.storage.backups import damaged

BOOKED = "booked"
"""Attribute of a trial that was stopped between two reports: its seconds that are in the books."""

_KEY, _DEVICES = "spent", "devices"


class Spending:
    """Spending, kept as a user attribute of the study.

    Args:
        study: the Optuna study it belongs to.

    Attributes:
        devices: that a trial takes while it is worked on: 2 for one on two GPUs, 0.25 where four workers share a GPU.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.devices = float(study.user_attrs.get(_DEVICES, 1.0))
        self._started: float | None = None
        self._closed = self._stored()

    @property
    def running(self) -> bool:
        """Whether the clock runs."""
        return self._started is not None

    @property
    def spent(self) -> Spent:
        """Spent up to now."""
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        s = self._closed
        return Spent(s.seconds + seconds, s.trials, s.epochs, s.device_seconds)

    def spent_with(self, seconds: float) -> Spent:
        """The same with work that goes on and has not been reported: ``seconds`` of it, summed over trials."""
        spent = self.spent
        return replace(spent, device_seconds=spent.device_seconds + seconds * self.devices)

    def start(self) -> None:
        """Start the clock, on what is stored: another driver may have written since the study was opened."""
        self._closed = self._stored()
        self._started = time.monotonic()

    def stop(self) -> None:
        """Stop the clock and save."""
        self._closed = self.spent
        self._started = None
        self.save()

    def use(self, devices: float) -> None:
        """From now on a trial takes so many devices; kept for those who read the books."""
        if devices != self.devices:
            self.devices = devices
            self._study.set_user_attr(_DEVICES, devices)

    def charge_time(self, seconds: float) -> None:
        """Add time in which the clock did not run, and save."""
        s = self._closed
        self._closed = Spent(s.seconds + seconds, s.trials, s.epochs, s.device_seconds)
        self.save()

    def count_trial(self) -> None:
        """One more trial ended or was paused that cost something."""
        s = self._closed
        self._closed = Spent(s.seconds, s.trials + 1, s.epochs, s.device_seconds)

    def account(self, report: Report, attributes: Mapping[str, Any], observed: float = 0.0) -> None:
        """Add what a report spent beyond the earlier rungs of its trial (``attributes``), and save where it did.

        It comes before the report is judged or stored: the work was done, whatever it showed, and a trial that goes on
        after a crash or an interruption is charged only for what lies above its stored rungs and what is booked.

        Args:
            report: as it came.
            attributes: the trial's.
            observed: seconds of work since the trial's last report as its engine saw them, for a report of seconds that
                cannot be true.
        """
        more = (
            _more(report.epochs, reported(attributes, "epochs")),
            _more(report.seconds, reported(attributes, "seconds")) if is_possible_work(report.seconds) else observed,
        )
        if any(more):
            self._add(more[1], more[0])
            self.save()

    def charge(self, attributes: Mapping[str, Any], seconds: float, epochs: float) -> None:
        """Add what a trial that failed has spent since its last report; the reports are among its ``attributes``.

        Args:
            attributes: the trial's.
            seconds: since its last report.
            epochs: in all, where it has told.
        """
        self._add(max(0.0, seconds), _more(plain(epochs), reported(attributes, "epochs")))

    def advance(self, attributes: Mapping[str, Any], seconds: float) -> float:
        """Add what an unfinished trial has done since its last report.

        Args:
            attributes: the trial's.
            seconds: since its last report.

        Returns:
            All its seconds that are in the books now, for its attribute :data:`BOOKED`: its next report, which tells
            of them too, is not to add them again.
        """
        self._add(seconds, 0.0)
        return reported(attributes, "seconds") + seconds

    def save(self) -> None:
        """Write the books into the storage."""
        self._study.set_user_attr(_KEY, self.spent.to_json())

    def _add(self, seconds: float, epochs: float) -> None:
        s = self._closed
        self._closed = Spent(s.seconds, s.trials, s.epochs + epochs, s.device_seconds + seconds * self.devices)

    def _stored(self) -> Spent:
        stored = self._study.user_attrs.get(_KEY)
        try:
            return Spent() if stored is None else Spent.from_json(stored)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise damaged("what the study has spent", error) from error


def reported(attributes: Mapping[str, Any], what: str) -> float:
    """The most that a trial has told of, or that is in the books: ``epochs`` or ``seconds``."""
    rungs = (value for key, value in attributes.items() if key.startswith("rung:"))
    known = max((float(rung.get(what, 0)) for rung in rungs), default=0.0)
    return max(known, float(attributes.get(BOOKED, 0.0))) if what == "seconds" else known


def _more(now: float, before: float) -> float:
    return max(0.0, now - before) if is_possible_work(now) else 0.0
