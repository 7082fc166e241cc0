from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from toys import LEVELS, accuracy, costs, evaluate, make_study

import autodistill as ad
from autodistill.core.budget import Budget
from autodistill.core.errors import DivergedError, InfeasibleError, InterruptedTrialError, UserCodeError
from autodistill.core.records import Candidate, Constraint, Decision, Params, Report, State
from autodistill.search.analysis.trajectory import trajectory
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.study import Study


def run_one(study: Study, candidate: Candidate | None = None) -> Candidate:
    candidate = candidate or study.ask()
    assert candidate is not None
    for report in evaluate(candidate):
        if study.report(candidate, report) is Decision.STOP:
            break
    study.close(candidate)
    return candidate


def test_a_trial_that_reaches_the_top_is_complete_with_values_in_the_objectives_order() -> None:
    study = make_study()
    with study.running("1trials"):
        candidate = run_one(study)
    (record,) = study.trials()
    assert record.state is State.COMPLETE
    known = costs(candidate.student)
    assert list(record.values) == ["accuracy", "params", "latency_ms"]
    assert record.values == {"accuracy": accuracy(candidate, LEVELS[-1]), **known}
    assert study.optuna.trials[0].values == list(record.values.values())
    assert study.optuna.metric_names == ["accuracy", "params", "latency_ms"]
    assert record.epochs == 9


def test_rung_values_are_user_attributes() -> None:
    study = make_study()
    with study.running("1trials"):
        run_one(study)
    attributes = study.optuna.trials[0].user_attrs
    assert set(attributes["rung:1"]) == {"accuracy", "params", "latency_ms", "epochs", "seconds"}
    assert attributes["rung:3"]["epochs"] == 9
    assert attributes["state"] == "COMPLETE"
    assert attributes["reason"] == ""
    assert "python" in attributes["candidate"]["versions"]


def test_a_known_constraint_prunes_before_training_and_costs_no_budget() -> None:
    study = make_study(constraints=(Constraint("params", "<=", 1000.0),))
    with study.running("10trials"):
        while (candidate := study.ask()) is not None:
            run_one(study, candidate)
    pruned = [t for t in study.trials() if t.reason == "INFEASIBLE"]
    assert pruned
    assert all(max(t.rungs) == 0 and t.epochs == 0 for t in pruned)
    assert study.spent.trials == 10
    assert all(t.values["params"] <= 1000 for t in study.front().trials)
    stored = study.optuna.trials[pruned[0].number].system_attrs["constraints"]
    assert stored[0] > 0


def test_costs_known_beforehand_refuse_a_candidate_before_it_reaches_a_worker() -> None:
    study = make_study(constraints=(Constraint("params", "<=", 1000.0),))
    study.set_known_costs([], costs)
    with study.running("20trials"):
        while (candidate := study.ask()) is not None:
            assert candidate.student["width"] <= 10
            run_one(study, candidate)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (DivergedError("loss is nan at epoch 3"), State.FAIL, "NAN"),
        (InfeasibleError("no such stem"), State.PRUNED, "INFEASIBLE_BUILD"),
        (InterruptedTrialError("stop"), State.PARTIAL, "INTERRUPTED"),
        (MemoryError(), State.FAIL, "OOM"),
        (RuntimeError("boom"), State.FAIL, "ERROR"),
    ],
)
def test_every_error_ends_its_trial_with_a_reason(error: Exception, state: State, reason: str) -> None:
    study = make_study()
    with study.running("5trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, costs(candidate.student)))
        assert study.close(candidate, error) is state
    (record,) = study.trials()
    assert (record.state, record.reason) == (state, reason)
    assert record.message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.5, True])
def test_an_impossible_value_is_never_passed_to_optuna(bad: float) -> None:
    study = make_study()
    with study.running("5trials"):
        candidate = study.ask()
        assert candidate is not None
        assert study.report(candidate, Report(1, {"accuracy": bad})) is Decision.STOP
        assert study.close(candidate) is State.FAIL
    assert study.trials()[0].reason == "NON_FINITE"
    assert study.optuna.trials[0].state is optuna.trial.TrialState.FAIL


def test_numbers_of_numpy_are_taken_and_stored_as_pythons_own() -> None:
    study = make_study(rungs=Rungs((1,), stopping=False))
    study.set_known_costs([], lambda student: {"params": np.int64(400), "latency_ms": np.float32(0.5)})
    with study.running("2trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, {"params": np.int64(400), "latency_ms": np.float32(0.5)}))
        report = Report(np.int64(1), {"accuracy": np.float32(0.25)}, np.int64(1), np.float32(2.0))
        assert study.report(candidate, report) is Decision.STOP
        assert study.close(candidate) is State.COMPLETE
    (record,) = study.trials()
    assert record.values == {"accuracy": 0.25, "params": 400.0, "latency_ms": 0.5}
    numbers = [value for values in record.rungs.values() for value in values.values()]
    assert {type(value) for value in numbers} <= {int, float}
    assert (study.spent.epochs, study.spent.device_seconds) == (1, 2.0)


@pytest.mark.parametrize(
    ("report", "reason", "said"),
    [
        (Report(4, {"accuracy": 0.5}), "ERROR", "rung 4 was reported.*its rungs are 0 .* 1 to 3, after 1, 3, 9 epochs"),
        (Report(-1, {}), "ERROR", "rung -1 was reported"),
        (Report(3, {"latency_ms": 1.0}, 9), "ERROR", "the top rung was reported without accuracy, params"),
        (Report(1, {"accuracy": 0.5}, float("inf")), "NON_FINITE", "rung 1 reported epochs=inf"),
    ],
)
def test_a_report_that_cannot_be_taken_fails_its_trial_and_says_why(report: Report, reason: str, said: str) -> None:
    study = make_study()
    with study.running("5trials"):
        candidate = study.ask()
        assert candidate is not None
        assert study.report(candidate, report) is Decision.STOP
        assert study.close(candidate) is State.FAIL
    (record,) = study.trials()
    assert record.reason == reason
    assert re.search(said, record.message)
    assert record.rungs == {}


def test_work_that_showed_no_number_is_charged() -> None:
    study = make_study()
    with study.running("5trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, costs(candidate.student)))
        study.report(candidate, Report(1, {"accuracy": 0.5}, 1, 10.0))
        study.report(candidate, Report(2, {"accuracy": float("nan")}, 3, 30.0))
        study.close(candidate)
    assert (study.spent.epochs, study.spent.device_seconds) == (3, 30.0)


def test_epochs_that_a_report_leaves_out_are_those_of_its_rung() -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    with study.running("20epochs"):
        while (candidate := study.ask()) is not None:
            study.report(candidate, Report(0, costs(candidate.student)))
            for rung in (1, 2, 3):
                study.report(candidate, Report(rung, {"accuracy": 0.5}))
            study.close(candidate)
    assert [[t.rungs[rung]["epochs"] for rung in (1, 2, 3)] for t in study.trials()] == [[1, 3, 9]] * 2
    assert study.spent.epochs == 18


def test_seconds_that_a_report_leaves_out_are_those_that_its_engine_saw() -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    with study.running("1trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, costs(candidate.student)), seconds=1.0)
        study.report(candidate, Report(1, {"accuracy": 0.5}), seconds=10.0)
        study.report(candidate, Report(2, {"accuracy": 0.5}), seconds=20.0)
        study.report(candidate, Report(3, {"accuracy": 0.5}, seconds=35.0), seconds=99.0)  # its own word counts
        assert study.close(candidate, seconds=7.0) is State.COMPLETE
    assert [study.trials()[0].rungs[rung]["seconds"] for rung in range(4)] == [0.0, 10.0, 30.0, 35.0]
    assert study.spent.device_seconds == 35.0


@pytest.mark.parametrize("told", [True, False])
def test_work_that_was_interrupted_is_booked_at_once_and_never_twice(told: bool, tmp_path: Path) -> None:
    study = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False))
    with study.running(Budget(device_seconds=100.0)):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, costs(candidate.student)))
        study.report(candidate, Report(1, {"accuracy": 0.5}, 1, 30.0))
        study.under_way = lambda: 69.0
        assert not study.time_is_up
        study.under_way = lambda: 70.0
        assert study.time_is_up
        study.under_way = lambda: 0.0
        study.close(candidate, InterruptedTrialError("time"), seconds=70.0)
    assert (study.spent.device_seconds, study.trials()[0].reason) == (100.0, "BUDGET")
    again = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False))
    with again.running(Budget(device_seconds=1000.0)):
        candidate = again.ask()
        assert candidate is not None
        assert (candidate.number, candidate.start_rung) == (0, 1)
        seconds = 130.0 if told else 0.0  # since its beginning: 30 and 70 before, 30 now
        again.report(candidate, Report(2, {"accuracy": 0.5}, 3, seconds), seconds=30.0)
        assert again.spent.device_seconds == 130.0
        again.report(candidate, Report(3, {"accuracy": 0.5}, 9, seconds and 190.0), seconds=60.0)
        again.close(candidate)
    assert (again.spent.device_seconds, again.trials()[0].seconds) == (190.0, 190.0)


def test_epochs_that_are_spent_do_not_stop_a_running_training() -> None:
    study = make_study(rungs=Rungs((2,), stopping=False))
    with study.running("4epochs, 100gpu-hours"):
        first, second = study.ask(), study.ask()
        assert first is not None
        assert second is not None
        study.report(first, Report(1, {"accuracy": 0.5}, 4, 1.0))
        assert (study.over, study.time_is_up) == ("budget of 4 epochs is spent", False)


def test_a_metric_with_the_name_of_the_work_is_kept_under_another() -> None:
    study = make_study(rungs=Rungs((1,), stopping=False), constraints=(Constraint("params", "<=", 1000),))
    study.set_known_costs([], lambda student: {**costs(student), "seconds": 0.5})
    with study.running("1trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, {**costs(candidate.student), "epochs": 7}))
        study.report(candidate, Report(1, {"accuracy": 0.5, "seconds": np.float32(0.25)}, 1, 30.0))
        study.close(candidate)
        study.ask()
    *refused, record = study.trials()
    assert record.rungs[0].items() >= {"reported_epochs": 7, "epochs": 0.0, "seconds": 0.0}.items()
    assert record.rungs[1] == {"accuracy": 0.5, "reported_seconds": 0.25, "epochs": 1, "seconds": 30.0}
    assert record.latest["reported_seconds"] == 0.25
    assert (record.seconds, study.spent.device_seconds) == (30.0, 30.0)
    assert [t.reason for t in refused] == ["INFEASIBLE"] * len(refused)
    assert refused
    assert [(t.rungs[0]["reported_seconds"], t.seconds) for t in refused] == [(0.5, 0.0)] * len(refused)


def test_duplicates_are_answered_from_the_store() -> None:
    study = make_study(space={"student": {"width": [4, 8, 16]}, "train": {"lr": [0.5]}})
    with study.running("50trials"):
        while (candidate := study.ask()) is not None:
            run_one(study, candidate)
    evaluated = [t for t in study.trials() if t.reason != "DUPLICATE"]
    assert sorted(t.student["width"] for t in evaluated) == [4, 8, 16]
    assert "space exhausted: all 3 candidates" in study.ended
    duplicates = [t for t in study.trials() if t.reason == "DUPLICATE"]
    assert all("same as trial" in t.message for t in duplicates)


def test_five_equal_failures_in_a_row_stop_the_search() -> None:
    study = make_study()
    with study.running("50trials"):
        for _ in range(5):
            candidate = study.ask()
            assert candidate is not None
            study.close(candidate, FileNotFoundError("no such file: labels.txt"))
        with pytest.raises(UserCodeError, match=r"all failed in the same way.*no such file"):
            study.ask()
    assert len(study.trials()) == 5


def test_a_search_that_its_failures_stopped_goes_on_when_the_set_up_is_mended(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with pytest.raises(UserCodeError, match="no such file"):
        ad.search(study, evaluate=_always_fails, budget="20trials", workers=1)
    for again in (make_study(tmp_path), study):
        with again.running("20trials"):
            run_one(again)  # what ended before says nothing about the set-up as it is now
    with make_study(tmp_path).running("20trials") as third:
        for _ in range(5):
            candidate = third.ask()
            assert candidate is not None
            third.close(candidate, FileNotFoundError("no such file: labels.txt"))
        with pytest.raises(UserCodeError):
            third.ask()


def _always_fails(candidate: Candidate) -> Iterator[Report]:
    raise FileNotFoundError("no such file: labels.txt")


def test_the_budget_counts_trials_epochs_and_busy_seconds_over_resumes(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with study.running("3trials"):
        while (candidate := study.ask()) is not None:
            run_one(study, candidate)
    assert "3 trials" in study.ended
    spent = study.spent
    assert spent.trials == 3
    assert spent.epochs == sum(t.epochs for t in study.trials())
    assert spent.device_seconds == pytest.approx(sum(t.seconds for t in study.trials()))
    again = make_study(tmp_path)
    assert again.spent == spent
    with again.running("5trials"):
        while (candidate := again.ask()) is not None:
            run_one(again, candidate)
    assert again.spent.trials == 5
    assert [t.number for t in again.trials()] == list(range(len(again.trials())))


def test_a_study_that_is_open_twice_sees_what_the_other_has_done(tmp_path: Path) -> None:
    first, second = make_study(tmp_path), make_study(tmp_path)
    ad.search(first, evaluate=evaluate, budget="5trials", workers=1)
    first.enqueue({"student": {"width": 64}, "train": {"lr": 0.25}})
    ad.search(second, evaluate=evaluate, budget="8trials", workers=1)
    trials = make_study(tmp_path).trials()
    assert [t.number for t in trials] == list(range(8))
    assert (trials[5].student, trials[5].train) == ({"width": 64}, {"lr": 0.25})
    assert second.trials() == trials
    spent = make_study(tmp_path).spent
    assert (spent.trials, spent.epochs) == (8, sum(t.epochs for t in trials))


def test_an_epoch_budget_leaves_the_running_trial_resumable(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with study.running("20epochs"):
        candidate = study.ask()
        assert candidate is not None
        reports = list(evaluate(candidate))
        assert study.report(candidate, reports[0]) is Decision.CONTINUE
        study.budget = type(study.budget)(epochs=1)
        assert study.report(candidate, reports[1]) is Decision.STOP
        assert study.close(candidate) is State.PARTIAL
    assert study.trials()[0].reason == "BUDGET"
    again = make_study(tmp_path)
    with again.running("1trials"):
        resumed = again.ask()
        assert resumed is not None
        assert (resumed.number, resumed.start_rung, resumed.seed) == (candidate.number, 1, candidate.seed)
        run_one(again, resumed)
    assert again.trials()[0].state is State.COMPLETE


def test_trials_left_open_by_a_crash_keep_their_numbers_and_are_given_up_after_three_attempts(tmp_path: Path) -> None:
    first = make_study(tmp_path)
    with first.running("9trials"):
        crashed = first.ask()
        assert crashed is not None  # the driver dies here: the trial is never closed
    for _ in range(2):
        study = make_study(tmp_path)
        with study.running("9trials"):
            again = study.ask()
            assert again is not None
            assert again.number == crashed.number
    last = make_study(tmp_path)
    with last.running("9trials"):
        other = last.ask()
        assert other is not None
        assert other.number == crashed.number + 1
    assert last.trials()[0].reason == "ATTEMPTS"


def test_the_spending_of_a_killed_driver_is_kept(tmp_path: Path) -> None:
    first = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False))
    with first.running("200epochs"):
        candidate = first.ask()
        assert candidate is not None
        reports = list(evaluate(candidate))
        for report in reports[:3]:
            first.report(candidate, report)
        again = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False))  # as if the first were killed here
    assert (again.spent.epochs, again.spent.device_seconds) == (3, 0.02)
    with again.running("200epochs"):
        resumed = again.ask()
        assert resumed is not None
        assert (resumed.number, resumed.start_rung) == (candidate.number, 2)
        again.report(resumed, reports[3])
        again.close(resumed)
    assert (again.spent.epochs, again.spent.device_seconds) == (9, 0.03)


def test_a_driver_killed_after_the_last_report_loses_no_finished_trial(tmp_path: Path) -> None:
    first = make_study(tmp_path)
    with first.running("3trials"):
        candidate = first.ask()
        assert candidate is not None
        assert [first.report(candidate, report) for report in evaluate(candidate)][-1] is Decision.STOP
    again = make_study(tmp_path)  # the driver was killed: the trial is not closed
    assert again.trials()[0].state is State.RUNNING
    with again.running("3trials"):
        other = again.ask()
        assert other is not None
        assert other.number == 1
    record = make_study(tmp_path).trials()[0]
    assert (record.state, record.reason, record.message) == (State.COMPLETE, "", "reached the top rung (9 epochs)")
    assert record.values["accuracy"] == accuracy(candidate, LEVELS[-1])
    assert again.spent.trials == 1


def test_a_resumed_study_does_not_replay_its_proposals(tmp_path: Path) -> None:
    def propose(count: int) -> list[float]:
        study = make_study(tmp_path)
        out = []
        with study.running(f"{len(study.trials()) + count}trials"):
            while (candidate := study.ask()) is not None:
                out.append(candidate.train["lr"])
                run_one(study, candidate)
        return out

    first, second = propose(3), propose(3)
    assert len(set(first + second)) == 6


def test_the_same_seed_proposes_the_same_candidates() -> None:
    def keys(seed: int) -> list[str]:
        study = make_study(seed=seed)
        with study.running("4trials"):
            return [run_one(study).key() for _ in range(4)]

    assert keys(1) == keys(1)
    assert keys(1) != keys(2)


def test_an_enqueued_candidate_comes_first() -> None:
    study = make_study()
    study.enqueue({"student": {"width": 64}, "train": {"lr": 0.25}})
    with study.running("2trials"):
        candidate = study.ask()
    assert candidate is not None
    assert candidate.student == {"width": 64}
    assert candidate.train == {"lr": 0.25}


@pytest.mark.parametrize("sampler", ["front", "random", "tpe"])
def test_what_is_queued_from_outside_and_not_in_the_space_ends_alone(sampler: str, tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler=sampler, rungs=Rungs(LEVELS, stopping=False))
    for queued in ({"student.width": 7, "train.lr": 0.5}, {"train.lr": 2.0}, {"student.width": 8}):
        study.optuna.enqueue_trial(queued)
    with study.running("4trials"):
        numbers = [run_one(study).number for _ in range(4)]
    first, second, *others = study.trials()
    assert (first.state, first.reason, first.student) == (State.PRUNED, "OUTSIDE", {})
    assert first.message == "student.width: 7 is not in 4, 8, 16, 32, 64, 128"
    assert (second.state, second.reason) == (State.PRUNED, "OUTSIDE")
    assert second.message == "train.lr: 2.0 is not in 0.1 to 1"
    assert numbers == [t.number for t in others] == [2, 3, 4, 5]
    assert others[0].student == {"width": 8}
    assert study.spent.trials == 4
    again = make_study(tmp_path, sampler=sampler, rungs=Rungs(LEVELS, stopping=False))
    with again.running("5trials"):
        assert run_one(again).number == 6


def test_a_trained_constraint_keeps_a_complete_trial_off_the_front() -> None:
    study = make_study(constraints=(Constraint("accuracy", ">=", 0.99),))
    with study.running("1trials"):
        run_one(study)
    assert study.trials()[0].state is State.COMPLETE
    assert len(study.front()) == 0
    assert study.optuna.trials[0].system_attrs["constraints"][0] > 0
    assert study.optuna.best_trials == []


def test_the_recorded_scale_moves_only_to_hold_what_was_trained(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with study.running("8trials"):
        while (candidate := study.ask()) is not None:
            run_one(study, candidate)
            study.scale()
    before = study.scale()
    again = make_study(tmp_path)
    with again.running("16trials"):
        while (candidate := again.ask()) is not None:
            run_one(again, candidate)
    assert before is not None
    values = [t.values for t in again.trials() if t.state is State.COMPLETE]
    assert again.scale() == before.holding(again.objectives, values)
    assert before.holding(again.objectives, [values[0]]) == before


def test_a_cost_that_is_not_finite_does_not_move_the_recorded_scale() -> None:
    def boundless(student: Params) -> dict[str, float]:
        return {**costs(student), **({"latency_ms": math.inf} if student["width"] == 128 else {})}

    study = make_study(sampler="front", rungs=Rungs.off(9))
    study.optuna.set_user_attr("scale", {"ideal": [1.0, 400.0, 0.4], "reference": [0.0, 12800.0, math.inf]})
    study.set_known_costs([({"width": w}, boundless({"width": w})) for w in (4, 8, 16, 32, 64, 128)])
    with study.running("1trials"):
        scale = study.scale()
    assert scale is not None
    assert scale.reference == (0.0, pytest.approx(14080.0), pytest.approx(7.04))
    assert study.optuna.user_attrs["scale"]["reference"] == list(scale.reference)


def test_the_front_sampler_ends_an_exhausted_space_cleanly() -> None:
    study = make_study(
        space={"student": {"width": [4, 8, 16, 128]}, "train": {"lr": [0.5]}},
        sampler="front",
        constraints=(Constraint("params", "<=", 2000.0),),
    )
    study.set_known_costs([], costs)
    with study.running("50trials"):
        while (candidate := study.ask()) is not None:
            run_one(study, candidate)
    assert sorted(t.student["width"] for t in study.trials() if t.epochs) == [4, 8, 16]
    assert "space exhausted" in study.ended
    assert all(t.state is not State.RUNNING for t in study.trials())


def test_the_default_sampler_finishes_the_costliest_student_where_it_is_the_most_accurate() -> None:
    study = make_study(sampler="front", seed=1)
    ad.search(study, evaluate=evaluate, costs=costs, budget="25trials")
    assert {4, 128} <= {trial.student["width"] for trial in study.front().trials}


def test_the_steps_of_a_search_count_a_trial_once_though_it_had_been_paused_before() -> None:
    study = make_study(sampler="front", seed=1)
    counted: list[float] = []
    study.after = lambda _, state: counted.append(study.spent.trials) if state is State.COMPLETE else None
    ad.search(study, evaluate=evaluate, costs=costs, budget="25trials")
    assert [step.trials for step in trajectory(study.front())] == counted
