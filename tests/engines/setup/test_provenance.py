from __future__ import annotations

import json

import report_studies

from autodistill.engines.setup import provenance


def test_a_study_remembers_each_machine_once() -> None:
    study = report_studies.make(trials=1)
    (machine,) = study.optuna.user_attrs["machines"]
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["workers"] == 1
    provenance.record_machine(study, 1)
    assert len(study.optuna.user_attrs["machines"]) == 1
    provenance.record_machine(study, 4)
    assert [one["workers"] for one in study.optuna.user_attrs["machines"]] == [1, 4]


def test_facts_of_a_machine_are_json_and_name_no_user_or_host() -> None:
    facts = provenance.machine_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts) <= {"processor", "cores", "memory_gib", "system", "gpus"}
