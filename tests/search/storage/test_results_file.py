"""The results file: every end of a trial as a line that shows damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import evaluate_or_fail, make_study

import autodistill as ad
from autodistill.core.errors import StoreError
from autodistill.core.records import State
from autodistill.search.storage.results_file import RESULTS, ResultsFile, last_results, read_results


def test_each_end_of_a_trial_is_a_line(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    ad.search(study, evaluate=evaluate_or_fail, budget="10trials", workers=1, progress=False)
    found, damaged = read_results(tmp_path)
    assert damaged == 0
    assert sorted(found) == [t.number for t in study.trials()]
    for trial in study.trials():
        facts = found[trial.number]
        assert facts["user_attrs"]["reason"] == trial.reason
        assert facts["params"] == dict(study.optuna.get_trials()[trial.number].params)
        if trial.state is State.COMPLETE:
            assert facts["values"] == list(trial.values.values())
    assert (tmp_path / RESULTS).stat().st_mode & 0o077 == 0


def test_a_torn_line_costs_itself_alone_and_later_lines_count(tmp_path: Path) -> None:
    ResultsFile(tmp_path).add({"number": 0, "state": "RUNNING"})
    ResultsFile(tmp_path).add({"number": 1, "state": "COMPLETE"})
    path = tmp_path / RESULTS
    whole = path.read_bytes()
    for cut in range(len(whole) // 2 + 1, len(whole)):
        path.write_bytes(whole[:cut])
        ResultsFile(tmp_path).add({"number": 0, "state": "FAIL"})
        found, damaged = read_results(tmp_path)
        assert found[0] == {"number": 0, "state": "FAIL"}
        assert len(found) + damaged == 2
        assert next(last_results(tmp_path)) == {"number": 0, "state": "FAIL"}


def test_a_changed_letter_is_seen(tmp_path: Path) -> None:
    ResultsFile(tmp_path).add({"number": 0, "state": "COMPLETE", "values": [0.5]})
    path = tmp_path / RESULTS
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    assert read_results(tmp_path) == ({}, 1)
    assert list(last_results(tmp_path)) == []


def test_a_database_without_the_last_results_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    ad.search(study, evaluate=evaluate_or_fail, budget="4trials", workers=1, progress=False)
    number = len(study.trials())
    ResultsFile(tmp_path).add({"number": number, "state": "COMPLETE"})
    with pytest.raises(StoreError, match=f"lacks results .* such as that of trial {number}: .*autodistill repair"):
        make_study(tmp_path)
