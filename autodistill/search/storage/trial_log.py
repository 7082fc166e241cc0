"""The trials of a study: written through to Optuna's storage, read from memory.

Only the driver writes, so its memory equals the storage; a database query per reader would cost milliseconds each.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autodistill.core.records import State, TrialRecord, stable_key
from autodistill.search.storage import rows, variants
from autodistill.search.storage.backups import damaged
from autodistill.search.storage.history import StoredTrial
from autodistill.search.storage.results_file import ResultsFile
from autodistill.search.storage.settled import is_noisy, with_settled_latency
from autodistill.search.storage.study_folder import FileStorage

_MEMORY = "autodistill:sampler"
_STATES = {
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAIL,
    TrialState.RUNNING: State.RUNNING,
}


@dataclass
class _Entry:
    """One trial in the driver's memory; attributes and parameters are read when they are used."""

    number: int
    identifier: int
    state: TrialState = TrialState.RUNNING
    values: Sequence[float] = ()
    text: str = "{}"
    constraints: Sequence[float] | None = None
    as_stored: TrialRecord | None = None
    record: TrialRecord | None = None
    own_params: Mapping[str, Any] | None = field(default_factory=dict)
    all_params: Callable[[], Mapping[int, Mapping[str, Any]]] = dict
    _attributes: dict[str, Any] | None = None

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameter values by name."""
        if self.own_params is None:
            self.own_params = self.all_params().get(self.identifier, {})
        return self.own_params

    @property
    def user_attrs(self) -> dict[str, Any]:
        """User attributes; changes are kept.

        Raises:
            StoreError: they are no JSON.
        """
        if self._attributes is None:
            try:
                self._attributes = json.loads(self.text)
            except json.JSONDecodeError as error:
                raise damaged(f"an attribute of trial {self.number}", error) from error
            self.text = ""
        return self._attributes


class TrialLog:
    """Trials of a study by number.

    Args:
        study: the Optuna study.
        storage: storage of the study.
        metrics: names of its objectives, in order.
        results: file that ends and pauses of trials are also written to; ``None`` for none.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        metrics: Sequence[str],
        results: ResultsFile | None = None,
    ) -> None:
        self._results = results
        self._study, self._storage, self._metrics = study, storage, tuple(metrics)
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._entries: dict[int, _Entry] = {}
        self._by_key: dict[str, int] | None = None
        self._by_architecture: dict[str, list[int]] | None = None
        self._params: Mapping[int, Mapping[str, Any]] | None = None
        self.reload()

    def reload(self) -> None:
        """Read all trials from the storage, except enqueued ones."""
        self._by_key = self._by_architecture = self._params = None
        entries = self._read_entries()
        self._entries = {entry.number: entry for entry in entries}

    def _read_entries(self) -> list[_Entry]:
        """Read all trials.

        Raises:
            StoreError: an attribute of one is no JSON.
        """
        try:
            database = rows.sqlite_of(self._storage)
            if database is not None:
                return [self._from_row(row) for row in rows.read_rows(database, self._study_id)]
            stored = self._study.get_trials(deepcopy=False)
            return [_from_stored(trial) for trial in stored if trial.state is not TrialState.WAITING]
        except json.JSONDecodeError as error:
            raise damaged("an attribute of a trial", error) from error
        except sqlalchemy.exc.DatabaseError as error:
            if type(error.orig) is sqlite3.DatabaseError:  # e.g. a damaged index; its subclasses have other causes
                raise damaged("a table or an index", sqlite3.DatabaseError(str(error.orig))) from error
            raise

    def _from_row(self, row: rows.TrialRow) -> _Entry:
        values = row.values if row.state is TrialState.COMPLETE else ()
        one = _Entry(row.number, row.identifier, row.state, values, row.attributes, row.constraints)
        one.own_params, one.all_params = None, self._all_params
        return one

    def _all_params(self) -> Mapping[int, Mapping[str, Any]]:
        if self._params is None:
            database = rows.sqlite_of(self._storage)
            self._params = {} if database is None else rows.read_params(database, self._study_id)
        return self._params

    def create(self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> int:
        """Create a trial with these parameters, in one transaction, and return its number."""
        template = create_trial(state=TrialState.RUNNING, params=dict(params), distributions=dict(distributions))
        identifier = self._storage.create_new_trial(self._study_id, template_trial=template)
        number = self._number_of(identifier)
        self.add(number, identifier)
        self.set_params(number, params)
        return number

    def give_params(
        self, number: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
    ) -> None:
        """Store the parameters of a trial that has none."""
        identifier = self._entries[number].identifier
        backend = getattr(self._storage, "_backend", self._storage)
        if isinstance(backend, FileStorage):
            backend.set_trial_params(identifier, params, distributions)
        else:
            for name, value in params.items():
                internal = distributions[name].to_internal_repr(value)
                self._storage.set_trial_param(identifier, name, internal, distributions[name])
        self.set_params(number, params)

    def stored_trial(self, number: int) -> FrozenTrial:
        """Return a trial as it is in the storage."""
        return self._storage.get_trial(self._entries[number].identifier)

    def sampler_memory(self) -> str:
        """Return what the sampler has kept with the study; empty if there is nothing."""
        with contextlib.suppress(json.JSONDecodeError):
            return str(self._storage.get_study_system_attrs(self._study_id).get(_MEMORY, ""))
        return ""

    def keep_sampler_memory(self, text: str) -> None:
        """Replace what the sampler has kept with the study."""
        self._storage.set_study_system_attr(self._study_id, _MEMORY, text)

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
        self._entries[number].own_params = dict(params)

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

    def set(self, number: int, key: str, value: Any, *, with_study: tuple[str, Any] | None = None) -> None:
        """Write a user attribute of an open trial.

        Args:
            number: number of the trial.
            key: name of the attribute.
            value: JSON value.
            with_study: an attribute of the study that is written with it; in an SQLite file, both or none.
        """
        entry = self._entries[number]
        if with_study is None:
            self._storage.set_trial_user_attr(entry.identifier, key, value)
        else:
            self._set_both(entry.identifier, key, value, with_study)
        entry.user_attrs[key] = value
        if key == "candidate":
            self._index(number)
        self._forget_record(number)

    def _set_both(self, identifier: int, key: str, value: Any, with_study: tuple[str, Any]) -> None:
        backend: Any = getattr(self._storage, "_backend", self._storage)
        in_file = isinstance(backend, FileStorage)
        if not (in_file and backend.set_both(identifier, key, value, self._study_id, *with_study)):
            self._storage.set_trial_user_attr(identifier, key, value)
            self._storage.set_study_user_attr(self._study_id, *with_study)

    def change(self, number: int, key: str, text: str) -> None:
        """Write a text attribute if it differs from the stored one."""
        if text != self._entries[number].user_attrs.get(key):
            self.set(number, key, text)

    def decide(self, number: int, rung: int, why: str, *, go_on: bool, unbeaten: bool | None = None) -> None:
        """Store the decision at a rung, and whether no earlier report at that rung dominated the trial's."""
        old = self.attributes(number).get(f"decision:{rung}", {"why": [], "unbeaten": False})
        found = bool(old["unbeaten"] if unbeaten is None else unbeaten)
        self.set(number, f"decision:{rung}", {"why": [*old["why"], why], "unbeaten": found, "go_on": go_on})

    def undecided(self, number: int, rung: int) -> bool:
        """Return whether a trial's report has no decision, or one that stops it and was not carried out."""
        decision = self.attributes(number).get(f"decision:{rung}")
        return decision is None or not decision.get("go_on", True)

    def rung(self, number: int) -> int:
        """Return the last rung that a trial has reported; 0 before the first."""
        return max(self.record(number).rungs, default=0)

    def set_constraints(self, number: int, violations: Sequence[float]) -> None:
        """Write constraint violations to the attribute that Optuna's samplers and the dashboard read."""
        self._storage.set_trial_system_attr(self._entries[number].identifier, "constraints", list(violations))
        self._entries[number].constraints = list(violations)

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
            self._by_key = {k: n for k, n in self._keys().items() if n != number}

    def note(self, number: int) -> None:
        """Write a trial as it is to the results file, if there is one."""
        if self._results is None:
            return
        entry = self._entries[number]
        facts = {"number": number, "state": entry.state.name, "values": list(entry.values), "params": entry.params}
        system = {} if entry.constraints is None else {"constraints": entry.constraints}
        self._results.add({**facts, "user_attrs": entry.user_attrs, "system_attrs": system})

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
        return self._architectures().get(_architecture(self._entries[number]), ())

    def _forget_record(self, number: int) -> None:
        """Forget what was read of a trial, and of those with its architecture, whose latency it may settle."""
        self._entries[number].as_stored = None
        known = self._by_architecture is not None  # else no record has taken the latency of another trial
        for other in {number, *(self._same_architecture(number) if known else ())}:
            self._entries[other].record = None

    def attributes(self, number: int) -> Mapping[str, Any]:
        """Return the user attributes of a trial."""
        return self._entries[number].user_attrs

    def twin(self, key: str) -> int | None:
        """Return the first trial whose candidate has this key, ignoring failed ones; ``None`` if there is none."""
        return self._keys().get(key)

    def distinct(self) -> int:
        """Return the number of different candidates so far."""
        return len(self._keys())

    def __len__(self) -> int:
        return len(self._entries)

    def read(self) -> list[TrialRecord]:
        """Return the records of all trials, by number."""
        return [self.record(number) for number in self._entries]

    def complete(self) -> list[TrialRecord]:
        """Return the records of the COMPLETE trials, by number."""
        return [self.record(number) for number, entry in self._entries.items() if entry.state is TrialState.COMPLETE]

    def _keys(self) -> dict[str, int]:
        """Return the first trial of each candidate's key; built when it is first asked for."""
        if self._by_key is None:
            self._by_key = {}
            for number in self._entries:
                self._index(number)
        return self._by_key

    def _architectures(self) -> dict[str, list[int]]:
        """Return the trials of each architecture; built when it is first asked for."""
        if self._by_architecture is None:
            self._by_architecture = {}
            for number in self._entries:
                self._index(number)
        return self._by_architecture

    def _index(self, number: int) -> None:
        """Add a trial to the indices that have been built."""
        entry = self._entries[number]
        try:
            key = entry.user_attrs.get("candidate", {}).get("key")
        except AttributeError as error:  # the candidate is no mapping
            raise damaged(f"trial {number}", error) from error
        again = entry.state is TrialState.FAIL or entry.user_attrs.get("reason") == "TIME"
        if key and not again and self._by_key is not None:
            self._by_key.setdefault(key, number)
        if self._by_architecture is not None and (architecture := _architecture(entry)):
            same = self._by_architecture.setdefault(architecture, [])
            if number not in same:
                same.append(number)


def _from_stored(trial: FrozenTrial) -> _Entry:
    values = trial.values if trial.state is TrialState.COMPLETE else ()
    constraints = trial.system_attrs.get("constraints")
    one = _Entry(trial.number, trial._trial_id, trial.state, tuple(values), constraints=constraints)
    one.own_params, one._attributes = trial.params, dict(trial.user_attrs)
    return one


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
