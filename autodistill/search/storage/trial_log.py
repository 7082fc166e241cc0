"""The trials of a study: written through to Optuna's storage, read from memory.

Only the driver writes, so its memory equals the storage; a database query per reader would cost milliseconds each.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autodistill.core.records import State, TrialRecord, stable_key
from autodistill.search.storage import variants
from autodistill.search.storage.backups import damaged
from autodistill.search.storage.history import StoredTrial
from autodistill.search.storage.settled import is_noisy, with_settled_latency

_STATES = {
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAIL,
    TrialState.RUNNING: State.RUNNING,
}


@dataclass
class _Entry:
    """One trial in the driver's memory."""

    number: int
    identifier: int
    state: TrialState = TrialState.RUNNING
    values: Sequence[float] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    as_stored: TrialRecord | None = None
    record: TrialRecord | None = None


class TrialLog:
    """Trials of a study by number.

    Args:
        study: the Optuna study.
        storage: storage of the study.
        metrics: names of its objectives, in order.
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage, metrics: Sequence[str]) -> None:
        self._study, self._storage, self._metrics = study, storage, tuple(metrics)
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._entries: dict[int, _Entry] = {}
        self._by_key: dict[str, int] = {}
        self._by_architecture: dict[str, list[int]] = {}
        self.reload()

    def reload(self) -> None:
        """Read all trials from the storage, except enqueued ones."""
        self._entries, self._by_key, self._by_architecture = {}, {}, {}
        for trial in self._stored_trials():
            if trial.state is not TrialState.WAITING:
                self._entries[trial.number] = _from_stored(trial)
                try:
                    self._index(trial.number)
                except AttributeError as error:  # the candidate is no mapping
                    raise damaged(f"trial {trial.number}", error) from error

    def _stored_trials(self) -> list[FrozenTrial]:
        """Read all trials.

        Raises:
            StoreError: an attribute of one is no JSON.
        """
        try:
            return self._study.get_trials(deepcopy=False)
        except json.JSONDecodeError as error:
            raise damaged("an attribute of a trial", error) from error

    def create(self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> int:
        """Create a trial with these parameters, in one transaction, and return its number."""
        template = create_trial(state=TrialState.RUNNING, params=dict(params), distributions=dict(distributions))
        identifier = self._storage.create_new_trial(self._study_id, template_trial=template)
        number = self._number_of(identifier)
        self.add(number, identifier)
        self.set_params(number, params)
        return number

    def _number_of(self, identifier: int) -> int:
        """Return the number of a new trial; it is mostly the next one, which is quicker to confirm than to query."""
        expected = max(self._entries, default=-1) + 1
        with contextlib.suppress(KeyError):  # no trial has this number yet
            if self._storage.get_trial_id_from_study_id_trial_number(self._study_id, expected) == identifier:
                return expected
        return self._storage.get_trial_number_from_id(identifier)

    def add(self, number: int, identifier: int) -> None:
        """Add a trial that Optuna has created; ``identifier`` is its id in the storage."""
        self._entries[number] = _Entry(number, identifier)

    def set_params(self, number: int, params: Mapping[str, Any]) -> None:
        """Record the parameters that Optuna has stored for a new trial."""
        self._entries[number].params = dict(params)

    def stored(self) -> Sequence[StoredTrial]:
        """Return the trials for a sampler, in order of creation, without a query to the storage."""
        return list(self._entries.values())

    def without_candidate(self) -> list[int]:
        """Return the numbers of open trials without a candidate: the sampler found none after Optuna created them."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._entries:
                self.add(trial.number, trial._trial_id)
        open_ones = (n for n, entry in self._entries.items() if entry.state is TrialState.RUNNING)
        return [number for number in open_ones if "candidate" not in self._entries[number].user_attrs]

    def set(self, number: int, key: str, value: Any) -> None:
        """Write a user attribute of an open trial."""
        entry = self._entries[number]
        self._storage.set_trial_user_attr(entry.identifier, key, value)
        entry.user_attrs[key] = value
        if key == "candidate":
            self._index(number)
        self._forget_record(number)

    def change(self, number: int, key: str, text: str) -> None:
        """Write a text attribute if it differs from the stored one."""
        if text != self._entries[number].user_attrs.get(key):
            self.set(number, key, text)

    def decide(self, number: int, rung: int, why: str, unbeaten: bool | None = None) -> None:
        """Store the decision at a rung, and whether no earlier report at that rung dominated the trial's."""
        old = self.attributes(number).get(f"decision:{rung}", {"why": [], "unbeaten": False})
        found = bool(old["unbeaten"] if unbeaten is None else unbeaten)
        self.set(number, f"decision:{rung}", {"why": [*old["why"], why], "unbeaten": found})

    def rung(self, number: int) -> int:
        """Return the last rung that a trial has reported; 0 before the first."""
        return max(self.record(number).rungs, default=0)

    def set_constraints(self, number: int, violations: Sequence[float]) -> None:
        """Write constraint violations to the attribute that Optuna's samplers and the dashboard read."""
        self._storage.set_trial_system_attr(self._entries[number].identifier, "constraints", list(violations))

    def end(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Report the end of a trial to Optuna."""
        entry = self._entries[number]
        if type(self._study.sampler).after_trial is BaseSampler.after_trial:  # `tell` would have no further effect
            self._storage.set_trial_state_values(entry.identifier, state, values and [float(v) for v in values])
        else:
            self._study.tell(number, values and list(values), state=state)
        entry.state, entry.values = state, tuple(values or ())
        self._forget_record(number)
        if state is TrialState.FAIL or entry.user_attrs.get("reason") == "TIME":  # may be tried again
            self._by_key = {k: n for k, n in self._by_key.items() if n != number}

    def record(self, number: int) -> TrialRecord:
        """Return the record of one trial, with the settled latency of its architecture if its own is noisy.

        Raises:
            StoreError: one of its attributes is damaged.
        """
        entry = self._entries[number]
        if entry.record is None:
            found = self._as_stored(number)
            if is_noisy(found):
                found = with_settled_latency(found, map(self._as_stored, self._same_architecture(number)))
            entry.record = found
        return entry.record

    def _as_stored(self, number: int) -> TrialRecord:
        """Return the record of one trial with its own measurements only.

        Raises:
            StoreError: one of its attributes is damaged.
        """
        entry = self._entries[number]
        if entry.as_stored is None:
            try:
                entry.as_stored = _to_record(number, entry, self._metrics)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise damaged(f"trial {number}", error) from error
        return entry.as_stored

    def _same_architecture(self, number: int) -> Sequence[int]:
        """Return the trials with the architecture of a trial, itself included; none if it has no student yet."""
        return self._by_architecture.get(_architecture(self._entries[number]), ())

    def _forget_record(self, number: int) -> None:
        """Forget what was read of a trial, and of those with its architecture, whose latency it may settle."""
        self._entries[number].as_stored = None
        for other in {number, *self._same_architecture(number)}:
            self._entries[other].record = None

    def attributes(self, number: int) -> Mapping[str, Any]:
        """Return the user attributes of a trial."""
        return self._entries[number].user_attrs

    def twin(self, key: str) -> int | None:
        """Return the first trial whose candidate has this key, ignoring failed ones; ``None`` if there is none."""
        return self._by_key.get(key)

    def distinct(self) -> int:
        """Return the number of different candidates so far."""
        return len(self._by_key)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self) -> list[TrialRecord]:
        """Return the records of all trials, by number."""
        return [self.record(number) for number in self._entries]

    def _index(self, number: int) -> None:
        entry = self._entries[number]
        key = entry.user_attrs.get("candidate", {}).get("key")
        again = entry.state is TrialState.FAIL or entry.user_attrs.get("reason") == "TIME"
        if key and not again:
            self._by_key.setdefault(key, number)
        if architecture := _architecture(entry):
            same = self._by_architecture.setdefault(architecture, [])
            if number not in same:
                same.append(number)


def _from_stored(trial: FrozenTrial) -> _Entry:
    values = trial.values if trial.state is TrialState.COMPLETE else ()
    return _Entry(trial.number, trial._trial_id, trial.state, tuple(values), trial.params, dict(trial.user_attrs))


def _architecture(entry: _Entry) -> str:
    """Return a key of a trial's student; empty if it has none."""
    student = entry.user_attrs.get("candidate", {}).get("student")
    return stable_key(student) if student else ""


def _to_record(number: int, entry: _Entry, metrics: Sequence[str]) -> TrialRecord:
    attributes = entry.user_attrs
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
        spent=attributes.get("spent", {}),
        why=str(candidate.get("why", "")),
        decisions=dict(sorted(decisions.items())),
        variants=variants.of_attributes(attributes),
        noisy=bool(attributes.get("noisy", False)),
    )
