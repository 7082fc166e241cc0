"""Every engine runs the same closed-form study to the same invariants."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import (
    LEVELS,
    accuracy,
    diverges,
    diverges_at_once,
    evaluate,
    evaluate_badly,
    evaluate_halfway,
    evaluate_or_die,
    evaluate_or_fail,
    evaluate_untimed,
    make_study,
    never_feasible,
    patient,
)

import autodistill as ad
from autodistill.core.errors import UsageError
from autodistill.core.records import Candidate, State
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.stopping import MAX_REJECTED
from autodistill.search.study.study import Study

WORKERS = [
    pytest.param("local", 1, id="local-1"),
    pytest.param("local", 2, id="local-2"),
    pytest.param("ray", 2, id="ray-2", marks=pytest.mark.ray),
]


@pytest.mark.parametrize(("engine", "workers"), WORKERS[1:])
def test_without_early_stopping_every_engine_files_what_one_local_worker_files(engine: str, workers: int) -> None:
    """One worker in this process is the oracle: same candidates under the same numbers, same values at every rung."""

    def filed(study: Study) -> list[object]:
        return [(t.number, t.state, t.student, t.train, t.seed, t.values, t.rungs) for t in study.trials()]

    oracle, study = (make_study(rungs=Rungs(LEVELS, stopping=False)) for _ in range(2))
    ad.search(oracle, evaluate=evaluate, budget="12trials", workers=1)
    ad.search(study, evaluate=evaluate, budget="12trials", workers=workers, engine=engine)
    assert filed(study) == filed(oracle)
    assert study.spent.trials == oracle.spent.trials == 12
    assert study.spent.epochs == oracle.spent.epochs
    assert study.spent.device_seconds == pytest.approx(oracle.spent.device_seconds)
    assert [t.number for t in study.front().trials] == [t.number for t in oracle.front().trials]


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_a_study_goes_on_under_any_engine_after_each_other(engine: str, workers: int, tmp_path: Path) -> None:
    ad.search(make_study(tmp_path), evaluate=evaluate, budget="5trials", workers=1)
    ad.search(make_study(tmp_path), evaluate=evaluate, budget="9trials", workers=workers, engine=engine)
    study = make_study(tmp_path)
    ad.search(study, evaluate=evaluate, budget="12trials", workers=1)
    assert study.spent.trials == 12
    assert [t.number for t in study.trials()] == list(range(len(study.trials())))
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in study.trials())


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_every_trial_ends_once_with_the_values_of_the_formula(engine: str, workers: int, tmp_path: Path) -> None:
    study = make_study(tmp_path)
    front = ad.search(study, evaluate=evaluate, budget="12trials", workers=workers, engine=engine)
    trials = study.trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    assert sum(t.reason not in ("DUPLICATE", "INFEASIBLE") for t in trials) == 12
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in trials)
    for t in trials:
        if t.state is State.COMPLETE:
            candidate = Candidate(t.number, t.student, t.distillation, t.train, t.seed)
            assert t.values["accuracy"] == accuracy(candidate, LEVELS[-1])
    assert len(front) >= 1
    assert {p.name for p in tmp_path.iterdir()} >= {"study.db", "front.json", "front.csv", "front.png"}


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_failures_end_their_trials_and_not_the_search(engine: str, workers: int) -> None:
    study = make_study()
    ad.search(study, evaluate=evaluate_or_fail, budget="25trials", workers=workers, engine=engine)
    by_width = {t.student["width"]: t for t in study.trials()}
    assert by_width[4].reason == "INFEASIBLE_BUILD"
    assert by_width[8].reason == "NON_FINITE"
    assert by_width[16].reason == "OOM"
    assert (by_width[32].reason, by_width[32].message) == ("ERROR", "RuntimeError: a bug in the user's code")
    assert all(t.state is not State.RUNNING for t in study.trials())


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_what_looks_like_a_pipe_or_a_report_fails_its_trial_and_costs_no_worker(engine: str, workers: int) -> None:
    wanted = "yield autodistill.Report(rung, {name: value})."
    generator = f"It must be a generator of reports: {wanted}"
    study = make_study()
    ad.search(study, evaluate=evaluate_badly, budget="25trials", workers=workers, engine=engine)
    failed = {(t.student["width"], t.reason, t.message) for t in study.trials() if t.state is State.FAIL}
    assert failed == {
        (8, "ERROR", "EOFError: Ran out of input"),
        (16, "ERROR", "BrokenPipeError: my subprocess ended"),
        (32, "ERROR", f"TypeError: the evaluation yielded {{'rung': 1, 'accuracy': 0.5}}. {generator}"),
        (64, "ERROR", f"TypeError: values of a report is 0.5; {wanted}"),
    }
    assert all(t.state in (State.COMPLETE, State.PRUNED, State.FAIL) for t in study.trials())


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_an_evaluation_that_ends_by_itself_fails_its_trial_and_counts(engine: str, workers: int) -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    ad.search(study, evaluate=evaluate_halfway, budget="4trials", workers=workers, engine=engine)
    trials = study.trials()
    assert [(t.state, t.reason) for t in trials] == [(State.FAIL, "ENDED_EARLY")] * 4
    for t in trials:
        assert f"ended by itself after rung {t.student['width'] % 3}. " in t.message
        assert "(Report(1, …) after 1 epochs, Report(2, …) after 3 epochs, Report(3, …) after 9 epochs)" in t.message
    assert (study.spent.trials, study.ended) == (4, "budget of 4 trials is spent")


@pytest.mark.parametrize(("engine", "workers"), WORKERS[:2])
def test_a_search_in_which_no_student_can_be_built_ends_with_the_reason(engine: str, workers: int) -> None:
    study = make_study()
    front = ad.search(study, evaluate=never_feasible, budget="5trials", workers=workers, engine=engine)
    trials = study.trials()
    assert (len(front), study.spent.trials) == (0, 0)
    assert MAX_REJECTED <= len(trials) < MAX_REJECTED + 10
    assert {(t.state, t.reason) for t in trials} == {(State.PRUNED, "INFEASIBLE_BUILD")}
    assert study.ended.endswith("trials gave no result (INFEASIBLE_BUILD: no such student)")


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_what_a_trial_did_before_it_failed_is_charged(engine: str, workers: int) -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    ad.search(study, evaluate=diverges, budget=f"{0.5 / 3600:.9f}gpu-hours", workers=workers, engine=engine)
    failed = [t for t in study.trials() if t.reason == "NAN"]
    reported = sum(t.rungs[1]["seconds"] for t in failed)
    assert "budget" in study.ended
    assert 2 <= len(failed) <= 12  # each takes a tenth of the budget
    assert study.spent.device_seconds - reported >= 0.05 * len(failed)


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_work_that_no_report_covers_is_measured(engine: str, workers: int) -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    ad.search(study, evaluate=evaluate_untimed, budget="3trials", workers=workers, engine=engine)
    trials = study.trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 3
    for t in trials:
        first, second, third = (t.rungs[rung]["seconds"] for rung in (1, 2, 3))
        assert t.rungs[0]["seconds"] == 0.0
        assert first >= 0.04  # with what came before the known costs
        assert second - first >= 0.02
        assert third - second >= 0.02
        assert t.seconds == third
    assert study.spent.device_seconds == pytest.approx(sum(t.seconds for t in trials))


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_device_time_that_is_spent_stops_running_trainings(
    engine: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autodistill.api._factory", lambda *args: patient)
    study = make_study()
    ad.search(study, evaluate=evaluate_untimed, budget=f"{1 / 3600:.9f}gpu-hours", workers=workers, engine=engine)
    trials = study.trials()
    assert [(t.state, t.reason) for t in trials] == [(State.PARTIAL, "BUDGET")] * workers
    assert 1.0 <= study.spent.device_seconds < 10.0
    assert study.ended == "budget of 0.000277778 gpu-hours is spent"
    assert study.spent.seconds < 25.0


@pytest.mark.parametrize(("engine", "workers"), WORKERS[:2])
@pytest.mark.parametrize("budget", ["50epochs", "100gpu-hours"])
def test_a_search_in_which_every_student_fails_ends_with_the_reason(engine: str, workers: int, budget: str) -> None:
    study = make_study()
    ad.search(study, evaluate=diverges_at_once, budget=budget, workers=workers, engine=engine)
    assert MAX_REJECTED <= len(study.trials()) < MAX_REJECTED + 10
    assert "trials gave no result (NAN: the loss is not finite" in study.ended


def test_a_student_whose_worker_dies_twice_is_given_up_and_the_worker_replaced() -> None:
    study = make_study()
    ad.search(study, evaluate=evaluate_or_die, budget="12trials", workers=2)
    lost = [t for t in study.trials() if t.student["width"] == 32]
    assert lost
    assert all((t.state, t.reason) == (State.PRUNED, "CRASH") and "exit code 7" in t.message for t in lost)
    assert any(t.state is State.COMPLETE for t in study.trials())


def test_a_function_that_cannot_be_sent_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="top level of a module"):
        ad.search(make_study(), evaluate=lambda candidate: iter(()), budget="2trials", workers=2)
