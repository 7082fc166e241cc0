"""The trials of a study: written through to Optuna's storage, read from memory.

Only the driver writes, so what it wrote is what is stored; a database query per reader would cost milliseconds each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from autodistill.records import State, TrialRecord

_STATES = {
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAIL,
    TrialState.RUNNING: State.RUNNING,
}


@dataclass
class _Entry:
    """One trial as the driver knows it."""

    identifier: int
    state: TrialState = TrialState.RUNNING
    values: Sequence[float] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    record: TrialRecord | None = None


class TrialLog:
    """Trials by number.

    Args:
        study: the Optuna study.
        storage: the storage it lives in.
        metrics: names of its objectives, in order.
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage, metrics: Sequence[str]) -> None:
        self._study, self._storage, self._metrics = study, storage, tuple(metrics)
        self._entries: dict[int, _Entry] = {}
        self._by_key: dict[str, int] = {}
        self.reload()

    def reload(self) -> None:
        """Read everything from the storage; proposals that wait to be asked for are left out."""
        self._entries, self._by_key = {}, {}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is not TrialState.WAITING:
                self._entries[trial.number] = _from_stored(trial)
                self._index(trial.number)

    def add(self, number: int, identifier: int) -> None:
        """A new trial was asked for; ``identifier`` is its id in the storage."""
        self._entries[number] = _Entry(identifier)

    def without_candidate(self) -> list[int]:
        """Numbers of open trials that no candidate was written for: the sampler gave up while it was asked."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._entries:
                self.add(trial.number, trial._trial_id)
        open_ones = (n for n, entry in self._entries.items() if entry.state is TrialState.RUNNING)
        return [number for number in open_ones if "candidate" not in self._entries[number].attributes]

    def set(self, number: int, key: str, value: Any) -> None:
        """Write a user attribute of an open trial."""
        entry = self._entries[number]
        self._storage.set_trial_user_attr(entry.identifier, key, value)
        entry.attributes[key] = value
        entry.record = None
        if key == "candidate":
            self._index(number)

    def decide(self, number: int, rung: int, why: str, unbeaten: bool | None = None) -> None:
        """Keep what was decided at a rung, and whether nothing reported there before was better."""
        old = self.attributes(number).get(f"decision:{rung}", {"why": [], "unbeaten": False})
        found = bool(old["unbeaten"] if unbeaten is None else unbeaten)
        self.set(number, f"decision:{rung}", {"why": [*old["why"], why], "unbeaten": found})

    def rung(self, number: int) -> int:
        """The last rung that a trial has reported; 0 before the first."""
        return max(self.record(number).rungs, default=0)

    def set_constraints(self, number: int, violations: Sequence[float]) -> None:
        """Write constraint violations where Optuna's samplers and the dashboard look for them."""
        self._storage.set_trial_system_attr(self._entries[number].identifier, "constraints", list(violations))

    def end(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Tell Optuna that a trial ended."""
        self._study.tell(number, None if values is None else list(values), state=state)
        entry = self._entries[number]
        entry.state, entry.values, entry.record = state, tuple(values or ()), None
        if state is TrialState.FAIL or entry.attributes.get("reason") == "TIME":  # may be tried again
            self._by_key = {k: n for k, n in self._by_key.items() if n != number}

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        entry = self._entries[number]
        if entry.record is None:
            entry.record = _to_record(number, entry, self._metrics)
        return entry.record

    def attributes(self, number: int) -> Mapping[str, Any]:
        """User attributes of a trial."""
        return self._entries[number].attributes

    def twin(self, key: str) -> int | None:
        """The first trial that had the candidate called ``key``; failed ones do not count."""
        return self._by_key.get(key)

    def distinct(self) -> int:
        """Number of different candidates so far."""
        return len(self._by_key)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self) -> list[TrialRecord]:
        """All trials, by number."""
        return [self.record(number) for number in self._entries]

    def _index(self, number: int) -> None:
        entry = self._entries[number]
        key = entry.attributes.get("candidate", {}).get("key")
        again = entry.state is TrialState.FAIL or entry.attributes.get("reason") == "TIME"
        if key and not again:
            self._by_key.setdefault(key, number)


def _from_stored(trial: FrozenTrial) -> _Entry:
    values = trial.values if trial.state is TrialState.COMPLETE else ()
    return _Entry(trial._trial_id, trial.state, tuple(values), dict(trial.user_attrs))


def _to_record(number: int, entry: _Entry, metrics: Sequence[str]) -> TrialRecord:
    attributes = entry.attributes
    candidate: Mapping[str, Any] = attributes.get("candidate", {})
    state = _STATES[entry.state]
    if state is State.RUNNING and attributes.get("state") == State.PARTIAL.value:
        state = State.PARTIAL
    rungs = {int(key[5:]): dict(value) for key, value in attributes.items() if key.startswith("rung:")}
    last: Mapping[str, Any] = rungs[max(rungs)] if rungs else {}
    decisions = {int(key[9:]): tuple(value["why"]) for key, value in attributes.items() if key.startswith("decision:")}
    return TrialRecord(
        number=number,
        state=state,
        values=dict(zip(metrics, entry.values, strict=True)) if state is State.COMPLETE else {},
        student=candidate.get("student", {}),
        distillation=candidate.get("distillation", {}),
        train=candidate.get("train", {}),
        seed=int(candidate.get("seed", 0)),
        epochs=float(last.get("epochs", 0.0)),
        seconds=float(last.get("seconds", 0.0)),
        rungs=dict(sorted(rungs.items())),
        reason=str(attributes.get("reason", "")),
        message=str(attributes.get("message", "")),
        why=str(candidate.get("why", "")),
        decisions=dict(sorted(decisions.items())),
    )
