"""Trials read row by row are those that Optuna reads."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from toys import evaluate_or_fail, make_study

import autodistill as ad
from autodistill.core.records import Constraint
from autodistill.search.storage import rows


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    study = make_study(tmp_path, constraints=(Constraint("params", "<=", 10_000),))
    ad.search(study, evaluate=evaluate_or_fail, budget="12trials", workers=1, progress=False)
    study.optuna.enqueue_trial({"student.width": 4, "train.lr": 0.5})
    study.optuna.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE,
            values=[float("inf"), 1.0, 2.0],
            user_attrs={'a "quoted" \\ key': [1, None, "ü"], "b": {"c": 1e-300}},
        )
    )
    return tmp_path


def test_rows_are_the_trials_that_optuna_reads(searched: Path) -> None:
    study = make_study(searched)
    expected = [t for t in study.optuna.get_trials() if t.state is not optuna.trial.TrialState.WAITING]
    database = rows.sqlite_of(study.storage)
    assert database is not None
    found = rows.read_rows(database, study.optuna._study_id)
    params = rows.read_params(database, study.optuna._study_id)
    assert [row.number for row in found] == [t.number for t in expected]
    for row, trial in zip(found, expected, strict=True):
        assert row.state is trial.state
        assert list(row.values) == (trial.values or [])
        assert row.constraints == trial.system_attrs.get("constraints")
        assert params.get(row.identifier, {}) == trial.params
    stored = {entry.number: entry for entry in study.stored()}
    for trial in expected:
        assert dict(stored[trial.number].user_attrs) == trial.user_attrs
        assert dict(stored[trial.number].params) == trial.params


def test_a_storage_in_memory_is_read_through_optuna() -> None:
    study = make_study()
    assert rows.sqlite_of(study.storage) is None
    ad.search(study, evaluate=evaluate_or_fail, budget="3trials", workers=1, progress=False)
    assert [t.params for t in study.stored()] == [t.params for t in study.optuna.get_trials()]
