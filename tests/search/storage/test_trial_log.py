"""What the driver remembers of its trials is what the storage holds."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from toys import LEVELS, evaluate, make_study

from autodistill.core.errors import StoreError
from autodistill.core.records import Decision
from autodistill.search.model.observations import ObservationStore
from autodistill.search.space.encoding import Encoder
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import Study


def drive(study: Study, budget: str) -> None:
    with study.running(budget):
        while (candidate := study.ask()) is not None:
            for report in evaluate(candidate):
                if study.report(candidate, report) is Decision.STOP:
                    break
            study.close(candidate)


@pytest.mark.parametrize("sampler", ["front", "random"])
def test_a_sampler_sees_in_memory_what_the_storage_holds(sampler: str, tmp_path: Path) -> None:
    study = make_study(storage=store.open_storage(tmp_path), sampler=sampler)
    study.enqueue({"student": {"width": 8}, "train": {"lr": 0.5}})
    drive(study, "25trials")
    names = tuple(o.name for o in study.objectives)
    both = []
    for trials in (study._log.stored(), study.optuna.get_trials(deepcopy=False)):
        observations = ObservationStore(study.space, Encoder.of(study.space), names, lambda values: {}, LEVELS)
        observations.update(trials)
        both.append(observations)
    memory, stored = both
    assert memory.closed == stored.closed
    assert memory.open == stored.open
    assert memory.keys() == stored.keys()
    for ours, theirs in zip(vars(memory.observations()).values(), vars(stored.observations()).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_trials_are_stored_as_optuna_would_store_them(tmp_path: Path) -> None:
    study = make_study(storage=store.open_storage(tmp_path))
    drive(study, "12trials")
    trials = study.optuna.get_trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    for trial in trials:
        assert list(trial.distributions) == list(trial.params)
        assert trial.distributions == study.space.active(trial.params)
        assert study.space.nest(trial.params)["student"] == trial.user_attrs["candidate"]["student"]
        assert trial.datetime_start is not None
        assert (trial.datetime_complete is not None) == trial.state.is_finished()
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING}
    assert all(len(t.values) == len(study.objectives) for t in trials if t.state is TrialState.COMPLETE)


def test_the_ends_of_trials_are_passed_to_a_sampler_that_takes_them() -> None:
    class Listens(optuna.samplers.RandomSampler):
        def __init__(self) -> None:
            super().__init__(seed=0)
            self.heard: list[tuple[int, TrialState]] = []

        def after_trial(self, study, trial, state, values):
            self.heard.append((trial.number, state))

    sampler = Listens()
    study = make_study(sampler=sampler)
    drive(study, "6trials")
    ended = [(t.number, t.state) for t in study.optuna.trials if t.state.is_finished()]
    assert sorted(sampler.heard) == ended
    assert ended


def test_only_what_changes_is_written_again() -> None:
    study = make_study()
    written = []
    with study.running("1trials"):
        candidate = study.ask()
        assert candidate is not None
        keep = study._log.set
        study._log.set = lambda number, key, value: (written.append(key), keep(number, key, value))[1]  # type: ignore[method-assign]
        study._log.change(candidate.number, "reason", "")
        study._log.change(candidate.number, "reason", "")
        study._log.change(candidate.number, "reason", "TIME")
        study.close(candidate)
    assert written[:2] == ["reason", "reason"]


def test_attributes_are_stored_as_optuna_stores_them(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = store.open_storage(tmp_path)
    assert isinstance(storage, store.FileStorage)
    study = optuna.create_study(storage=storage, directions=["maximize"])
    trial = study.ask()
    for value in ({"accuracy": 0.5}, 'ß "quoted"', [1, None, True], {"accuracy": 0.75}):
        storage.set_trial_user_attr(trial._trial_id, "rung:1", value)
        assert study.trials[0].user_attrs == {"rung:1": value}
    study.tell(trial, 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, "rung:1", {})
    with pytest.raises(KeyError):
        storage.set_trial_user_attr(trial._trial_id + 1, "rung:1", {})
    with pytest.raises(TypeError):
        storage.set_trial_user_attr(study.ask()._trial_id, "rung:1", object())
    assert study.trials[0].user_attrs == {"rung:1": {"accuracy": 0.75}}


@pytest.mark.parametrize("schema", ["this", "another"])
def test_parameters_are_stored_as_optuna_stores_them(
    schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if schema == "another":
        monkeypatch.setattr(
            store, "_PARAMETERS", store.sqlalchemy.text("INSERT INTO parameters_of_tomorrow VALUES (1)")
        )
    kinds: dict[str, BaseDistribution] = {
        "a": CategoricalDistribution(["x", None, True, 3]),
        "b": FloatDistribution(1e-4, 1.0, log=True),
        "c": IntDistribution(0, 8, step=2),
    }
    template = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING, params={"a": None, "b": 0.25, "c": 4}, distributions=kinds
    )
    stored = []
    for name, storage in (
        ("ours", store.open_storage(tmp_path)),
        ("optuna's", RDBStorage(f"sqlite:///{tmp_path / 'other.db'}")),
    ):
        study = optuna.create_study(storage=storage, study_name=name, directions=["maximize"])
        study.set_user_attr("books", {"seconds": 1.5})
        study.set_user_attr("books", {"seconds": 2.5})
        for _ in range(2):
            storage.create_new_trial(study._study_id, template)
        last = optuna.load_study(storage=storage, study_name=name)
        stored.append((last.user_attrs, [(t.number, t.state, t.params, t.distributions) for t in last.trials]))
        with pytest.raises(KeyError):
            storage.set_study_user_attr(study._study_id + 1, "books", {})
    assert stored[0] == stored[1]


def test_another_schema_is_left_to_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = store.open_storage(tmp_path)
    study = optuna.create_study(storage=storage, directions=["maximize"])
    monkeypatch.setattr(
        store, "_UPSERT", store.sqlalchemy.text("INSERT INTO attributes_of_tomorrow VALUES (:trial, :key, :value)")
    )
    trial = study.ask()
    storage.set_trial_user_attr(trial._trial_id, "state", "PARTIAL")
    assert study.trials[0].user_attrs == {"state": "PARTIAL"}


@pytest.mark.parametrize("schema", ["this", "another", "no file"])
def test_what_waits_in_the_queue_is_counted(schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if schema == "another":
        monkeypatch.setattr(store, "_WAITING", store.sqlalchemy.text("SELECT COUNT(*) FROM tomorrow WHERE 1 = :study"))
    storage = store.open_storage(None if schema == "no file" else tmp_path)
    study, other = (optuna.create_study(storage=storage, study_name=name) for name in "ab")
    other.enqueue_trial({"x": 0})
    assert store.waiting(study) == 0
    for x in (1, 2, 3):
        study.enqueue_trial({"x": x})
    study.ask()
    assert store.waiting(study) == 2


@pytest.mark.parametrize("sampler", ["front", "random"])
def test_a_candidate_that_another_process_adds_to_a_running_search_is_next(sampler: str, tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler=sampler)
    with study.running("9trials"):
        first = study.ask()
        assert first is not None
        other = optuna.load_study(study_name=study.name, storage=store.open_storage(tmp_path))  # as the dashboard does
        wanted = {"student.width": 64, "train.lr": 0.123}
        other.enqueue_trial(wanted)
        second = study.ask()
        assert second is not None
        assert (second.student["width"], second.train["lr"]) == (64, 0.123)
        third = study.ask()
        assert third is not None
        assert third.train["lr"] != 0.123


@pytest.mark.parametrize("key", ["rung:1", "candidate", "rung:0", "decision:1"])
@pytest.mark.parametrize("text", ["{cut", '"abc"', "[1, 2]"])
def test_a_damaged_attribute_of_a_trial_is_named_and_is_no_internal_error(tmp_path: Path, key: str, text: str) -> None:
    drive(make_study(tmp_path), "3trials")
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection, connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = ?", (text, key))
    with pytest.raises(StoreError, match=r"in the database is damaged .*autodistill repair DIR"):
        make_study(tmp_path).trials()


@pytest.mark.parametrize("text", ["{cut", '"abc"', "{}"])
def test_a_damaged_attribute_of_a_study_is_no_internal_error(tmp_path: Path, text: str) -> None:
    drive(make_study(tmp_path), "3trials")
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection, connection:
        connection.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = 'spent'", (text,))
    with pytest.raises(StoreError, match="in the database is damaged"):
        make_study(tmp_path)
