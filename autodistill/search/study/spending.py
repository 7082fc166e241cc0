"""Spending of a study over all its resumes, measured on the monotonic clock."""

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
"""Trial attribute: counted seconds of a trial that was stopped between two reports."""

_KEY, _DEVICES = "spent", "devices"


class Spending:
    """Spending, stored as a user attribute of the study.

    Args:
        study: the Optuna study.

    Attributes:
        devices: devices per trial: 2 for a trial on two GPUs, 0.25 if four workers share a GPU.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.devices = float(study.user_attrs.get(_DEVICES, 1.0))
        self._started: float | None = None
        self._closed = self._stored()

    @property
    def running(self) -> bool:
        """Whether the clock is running."""
        return self._started is not None

    @property
    def spent(self) -> Spent:
        """Spending up to now."""
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        s = self._closed
        return Spent(s.seconds + seconds, s.trials, s.epochs, s.device_seconds)

    def spent_with(self, seconds: float) -> Spent:
        """Return the spending with ``seconds`` of unreported running work, summed over trials."""
        spent = self.spent
        return replace(spent, device_seconds=spent.device_seconds + seconds * self.devices)

    def start(self, counted: int = 0) -> None:
        """Start the clock from the stored spending: another driver may have written since the study was opened.

        Args:
            counted: number of stored trials that count; more than were saved if a driver died between the two.
        """
        stored = self._stored()
        self._closed = replace(stored, trials=max(stored.trials, counted))
        self._started = time.monotonic()

    def stop(self) -> None:
        """Stop the clock and save."""
        self._closed = self.spent
        self._started = None
        self.save()

    def use(self, devices: float) -> None:
        """Set the devices per trial and store them for readers."""
        if devices != self.devices:
            self.devices = devices
            self._study.set_user_attr(_DEVICES, devices)

    def charge_time(self, seconds: float) -> None:
        """Add seconds during which the clock was not running, and save."""
        s = self._closed
        self._closed = Spent(s.seconds + seconds, s.trials, s.epochs, s.device_seconds)
        self.save()

    def count_trial(self) -> None:
        """Count one trial that ended or was paused after costing work."""
        s = self._closed
        self._closed = Spent(s.seconds, s.trials + 1, s.epochs, s.device_seconds)

    def account(self, report: Report, attributes: Mapping[str, Any], observed: float = 0.0) -> None:
        """Add the work of a report beyond what the trial's ``attributes`` already contain; it is saved with the report.

        This runs before the report is checked: the work was done, whatever the result. A trial that resumes after a
        crash or an interruption is charged only for work beyond its stored rungs and booked seconds.

        Args:
            report: as it was reported.
            attributes: stored attributes of the trial.
            observed: seconds of work since the trial's last report as measured by its engine; used if the report's
                seconds are impossible.
        """
        more = (
            _more(report.epochs, reported(attributes, "epochs")),
            _more(report.seconds, reported(attributes, "seconds")) if is_possible_work(report.seconds) else observed,
        )
        if any(more):
            self._add(more[1], more[0])

    def charge(self, attributes: Mapping[str, Any], seconds: float, epochs: float) -> None:
        """Add the work of a failed trial since its last report.

        Args:
            attributes: stored attributes of the trial, including its reports.
            seconds: seconds since the last report.
            epochs: epochs since the beginning of the trial; 0 if unknown.
        """
        self._add(max(0.0, seconds), _more(plain(epochs), reported(attributes, "epochs")))

    def advance(self, attributes: Mapping[str, Any], seconds: float) -> float:
        """Add the work of an unfinished trial since its last report.

        Args:
            attributes: stored attributes of the trial.
            seconds: seconds since the last report.

        Returns:
            All counted seconds of the trial, to be stored as its attribute :data:`BOOKED`, so that its next report,
            which includes them, does not count them twice.
        """
        self._add(seconds, 0.0)
        return reported(attributes, "seconds") + seconds

    def save(self) -> None:
        """Write the spending to the storage."""
        self._study.set_user_attr(*self.to_save())

    def to_save(self) -> tuple[str, dict[str, float]]:
        """Return the attribute of the study that holds the spending, and its value."""
        return _KEY, self.spent.to_json()

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
    """Return the ``epochs`` or ``seconds`` of a trial that are reported or booked, whichever is more."""
    rungs = (value for key, value in attributes.items() if key.startswith("rung:"))
    known = max((float(rung.get(what, 0)) for rung in rungs), default=0.0)
    return max(known, float(attributes.get(BOOKED, 0.0))) if what == "seconds" else known


def _more(now: float, before: float) -> float:
    return max(0.0, now - before) if is_possible_work(now) else 0.0
