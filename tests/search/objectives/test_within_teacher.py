"""How far below its teacher a student may be: grammar, numbers, effort, fronts, tables and messages."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.config.study_file import StudyConfig, differences
from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.records import Candidate, Constraint, Report, State, TrialRecord
from autodistill.delivery.report.write import write_report
from autodistill.engines.setup.study_setup import open_to_read
from autodistill.search.objectives.expression import matches
from autodistill.search.objectives.objectives import parse_constraint, resolve
from autodistill.search.objectives.within_teacher import (
    Promise,
    Reach,
    aims_of,
    bounded,
    nearest,
    nearest_lines,
    reach_of,
)
from autodistill.search.rungs.levels import RungDecision, Rungs
from autodistill.search.rungs.losses_by_rung import LossesByRung
from autodistill.search.rungs.promotion import Peers, decide
from autodistill.search.study.rung_rules import PeerRule
from autodistill.search.study.study import Study

run = CliRunner()
AXES = resolve(["accuracy", "params"])

# -- students whose accuracy is a formula --------------------------------------------------------------------------

SPACE: dict[str, Any] = {
    "student": {"width": [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128], "depth": [1, 2, 3]},
    "train": {"lr": {"low": 0.001, "high": 0.1, "log": True}},
}
LEVELS = (1, 3, 9)
TEACHER = 0.87
"""A good fifth of the architectures end more than 20 points below it, and they are the cheapest."""


def end(candidate: Candidate | TrialRecord) -> float:
    """Accuracy after a full training: rises with the size, and is best at a learning rate of 0.01."""
    size = candidate.student["width"] * candidate.student["depth"]
    return 0.9 - 0.85 * size**-0.5 - 0.05 * abs(math.log10(candidate.train["lr"]) + 2)


def costs(student: Any) -> dict[str, float]:
    return {
        "params": student["width"] ** 2 * student["depth"] * 100.0,
        "latency_ms": 0.1 * student["depth"] + student["width"] * 0.02,
    }


def evaluate(candidate: Candidate) -> Iterator[Report]:
    """A slow start: after one epoch every student has a quarter of what it will have, after three 54 %."""
    known = costs(candidate.student)
    yield Report(0, known)
    for rung, epochs in enumerate(LEVELS, 1):
        if rung > candidate.start_rung:
            shown = end(candidate) * (1 - 0.75 * math.exp(-(epochs - 1) / 2) * (epochs < 9))
            yield Report(rung, {"accuracy": shown, **known}, float(epochs), float(epochs))


def searched(within: Any, *, teacher: float | None = TEACHER, budget: int, seed: int = 0, **keys: Any) -> Study:
    study = ad.Study.create(
        space=SPACE,
        objectives=["accuracy", "params", "latency_ms"],
        rungs={"levels": list(LEVELS)},
        within=within,
        seed=seed,
        **keys,
    )
    if teacher is not None:
        study.set_teacher_values({"accuracy": teacher})
    ad.search(study, evaluate=evaluate, costs=costs, budget=f"{budget}epochs", workers=1, progress=False)
    return study


def share_below(study: Study, bound: float) -> float:
    """Share of the epochs that went into students that end below ``bound``."""
    trials = [t for t in study.trials() if t.student]
    return sum(t.epochs for t in trials if end(t) < bound) / sum(t.epochs for t in trials)


@pytest.fixture(scope="module")
def three() -> dict[Any, Study]:
    """The same search without the default, with it, and within 10 points."""
    return {within: searched(within, budget=9 * 9, seed=1) for within in ("off", "auto", 10)}


# -- grammar -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "below", "said"),
    [
        ("accuracy >= teacher - 0.05", 0.05, "accuracy >= teacher - 0.05"),
        (" accuracy>=teacher-0.05 ", 0.05, "accuracy >= teacher - 0.05"),
        ("accuracy >= teacher", 0.0, "accuracy >= teacher"),
        ("accuracy >= teacher + 0.01", -0.01, "accuracy >= teacher + 0.01"),
    ],
)
def test_a_bound_may_be_the_teacher_s_accuracy_less_a_fraction(text: str, below: float, said: str) -> None:
    constraint = parse_constraint(text)
    assert (constraint.metric, constraint.operator, constraint.below) == ("accuracy", ">=", below)
    assert str(constraint) == said
    assert constraint.violation({"accuracy": 0.1}) == 0.0  # until the teacher's is known, nothing breaks it
    (known,) = bounded([constraint], {"accuracy": 0.871})
    assert known.bound == pytest.approx(0.871 - below)
    assert known.violation({"accuracy": 0.871 - below - 0.01}) == pytest.approx(0.01)
    assert str(known) == f"{said} ({0.871 - below:.4g})"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy >= teacher - 5", "accuracy is a fraction, from 0 to 1; write - 0.05 for 5 points"),
        ("accuracy >= teacher - 5%", "'5%' is not a number; write e.g. 'teacher - 0.05'"),
        ("accuracy >= teacher * 0.9", "not of the form 'teacher - 0.05'"),
        ("accuracy >= 0.9 * teacher", "not of the form 'teacher - 0.05'"),
        ("accuracy <= teacher - 0.05", "use >=: it says how far below its teacher"),
        ("params <= teacher - 0.05", "only accuracy can be bounded by the teacher's"),
        ("acuracy >= teacher - 0.05", "did you mean 'accuracy'"),
    ],
)
def test_another_bound_on_the_teacher_says_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("*", r"\*")):
        parse_constraint(text)
    with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
        StudyConfig.load({"data": "digits", "constraints": [text]})


@pytest.mark.parametrize(("teacher", "student"), [(0.9, 0.85), (0.87, 0.82), (52 / 60, 49 / 60), (2 / 3, 37 / 60)])
def test_a_student_of_exactly_so_many_points_less_keeps_to_the_bound(teacher: float, student: float) -> None:
    (constraint,) = bounded([parse_constraint("accuracy >= teacher - 0.05")], {"accuracy": teacher})
    assert constraint.violation({"accuracy": student}) <= 0
    assert constraint.violation({"accuracy": student - 1e-6}) > 0
    row = {"accuracy": student, "teacher.accuracy": teacher}
    assert matches("accuracy >= teacher - 0.05", row)
    assert not matches("accuracy >= teacher - 0.05", {**row, "accuracy": student - 1e-6})


@pytest.mark.parametrize(("points", "text"), [(5, "0.05"), (2.5, "0.025"), (0, "0"), (20, "0.2")])
def test_points_are_another_way_to_write_the_constraint(points: float, text: str) -> None:
    config = StudyConfig.load({"data": "digits", "within": points, "constraints": ["params <= 1e6"]})
    assert config.constraints == ("params <= 1e6", f"accuracy >= teacher - {text}")
    assert config.within == "auto"
    again = StudyConfig.load(config.resolved(), {"within": points})
    assert differences(config, again) == []
    assert again.constraints == config.constraints


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.05, "write 5 for 5 points"),
        (150, "allowed: auto, off, or the percentage points"),
        (-5, "such as 5"),
        (True, "got True"),
        ("of", "got 'of'"),
    ],
)
def test_other_points_are_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        StudyConfig.load({"data": "digits", "within": value})


def test_off_and_a_bound_on_the_teacher_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="within is off; use one"):
        StudyConfig.load({"data": "digits", "within": "off", "constraints": ["accuracy >= teacher - 0.05"]})
    assert StudyConfig.load({"data": "digits", "within": "off", "constraints": ["accuracy >= 0.5"]}).within == "off"


def test_the_default_may_be_taken_away_when_a_study_goes_on_but_a_bound_may_not() -> None:
    keys = {"data": "digits"}
    assert differences(StudyConfig.load(keys), StudyConfig.load({**keys, "within": "off"})) == []
    (line,) = differences(StudyConfig.load({**keys, "within": 5}), StudyConfig.load(keys))
    assert line == "constraints: the study has ['accuracy >= teacher - 0.05'], this run has []"


def test_the_teacher_s_value_of_any_column_may_be_picked_by() -> None:
    row = {"accuracy": 0.84, "params": 1e5, "student.family": "resnet"}
    known = {**row, "teacher.accuracy": 0.87, "teacher.params": 3e6}
    assert matches("accuracy >= teacher - 0.05 and params <= teacher * 0.1", known)
    assert not matches("accuracy >= teacher - 0.02", known)
    assert matches("teacher - 0.05 <= accuracy < teacher", known)
    assert not matches("params >= teacher", known)
    for text, columns in (("accuracy >= teacher - 0.05", row), ("teacher >= 0.5", known), ("teacher == 'x'", known)):
        with pytest.raises(UsageError, match=r"'accuracy >= teacher - 0.05'"):
            matches(text, columns)
    with pytest.raises(UsageError, match="calculates with text"):
        matches("params <= student.family * 2", known)


# -- numbers -------------------------------------------------------------------------------------------------------


def test_the_default_bound_is_20_points_below_a_known_teacher() -> None:
    def found(
        *constraints: Constraint, teacher: Any = TEACHER, names: Any = ("accuracy",), default: bool = True
    ) -> Any:
        values = {} if teacher is None else {"accuracy": teacher}
        return reach_of(resolve(names), constraints, values, default=default)

    assert found() == Reach(TEACHER, pytest.approx(0.67), soft=True)
    assert found().points == 20
    assert aims_of(found()) == (Constraint("accuracy", ">=", pytest.approx(0.67)),)
    assert found(default=False) is None
    assert found(teacher=None) is None
    assert found(teacher=87.0) is None  # in percent: an evaluation of the user's own
    assert found(teacher=0.15) is None  # there is nothing 20 points below
    assert found(names=["loss", "params"]) is None
    assert found(names=["accuracy:minimize"]) is None
    asked = found(Constraint("accuracy", ">=", 0.5), default=False)
    assert asked == Reach(TEACHER, 0.5, soft=False)
    assert aims_of(asked) == ()  # the constraint itself is heeded


def test_a_bound_stays_once_students_were_trained() -> None:
    study = searched(5, budget=9, sampler="random")
    assert study.constraints[0].bound == pytest.approx(0.82)
    study.set_teacher_values({"accuracy": 0.8695, "params": 7.0})  # another machine rounds otherwise
    assert study.teacher_values() == {"accuracy": 0.87, "params": 7.0}
    assert study.constraints[0].bound == pytest.approx(0.82)


def test_a_bound_follows_a_teacher_that_is_taught_anew_before_any_training() -> None:
    study = ad.Study.create(space=SPACE, objectives=["accuracy", "params"], within=5)
    for accuracy in (0.7, 0.9):
        study.set_teacher_values({"accuracy": accuracy})
        assert study.constraints[0].bound == pytest.approx(accuracy - 0.05)


def test_without_a_teacher_a_bound_on_its_accuracy_is_an_error_before_any_work() -> None:
    with pytest.raises(
        UsageError, match=r"'accuracy >= teacher - 0.05' needs the accuracy of a teacher.*'accuracy >= 0.9'"
    ):
        searched(5, teacher=None, budget=30)


def test_a_teacher_in_percent_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"the teacher's accuracy is 87.*divide percent by 100"):
        searched(5, teacher=87.0, budget=30)


# -- effort --------------------------------------------------------------------------------------------------------


def test_without_a_teacher_every_proposal_is_as_with_the_default_taken_away() -> None:
    one, other = (searched(within, teacher=None, budget=40) for within in ("auto", "off"))
    seen = [[(t.student, t.train, t.rungs, t.message) for t in study.trials()] for study in (one, other)]
    assert len(seen[0]) >= 8
    assert seen[0] == seen[1]
    assert one.front().reach is None


def test_students_far_below_the_teacher_take_less_of_the_effort_by_default(three: dict[Any, Study]) -> None:
    off, auto = three["off"], three["auto"]
    assert share_below(auto, 0.67) < 0.7 * share_below(off, 0.67)
    of_use = [sum(t.values["accuracy"] >= 0.67 for t in study.front().trials) for study in (off, auto)]
    assert of_use[1] > of_use[0]


@pytest.mark.slow
def test_most_of_the_budget_goes_to_useful_students_over_seeds() -> None:
    shares: dict[Any, list[float]] = {}
    close: dict[Any, list[int]] = {}
    for within in ("off", "auto", 5):
        for seed in range(3):
            study = searched(within, budget=9 * 15, seed=seed)
            shares.setdefault(within, []).append(share_below(study, 0.67))
            close.setdefault(within, []).append(sum(t.values["accuracy"] >= 0.82 for t in study.front().trials))
    assert np.mean(shares["auto"]) < 0.7 * np.mean(shares["off"])
    assert np.mean(shares[5]) < 0.7 * np.mean(shares["off"])
    assert np.mean(close[5]) > np.mean(close["off"])


def test_a_slow_start_is_no_reason_to_stop_a_student_that_will_come_within_the_bound(three: dict[Any, Study]) -> None:
    """Every student is at a quarter of its accuracy after one epoch, far below the bound, and some are finished."""
    study = three[10]
    first = [t.rungs[1]["accuracy"] for t in study.trials() if 1 in t.rungs]
    assert max(first) < 0.3 < study.constraints[0].bound
    assert len(study.front()) >= 1
    assert all(t.values["accuracy"] >= 0.77 for t in study.front().trials)
    why = [t.why for t in study.trials() if "expected" in t.why]
    assert any("likely within the bounds" in one for one in why)  # what the model knows of the bound is said


def test_a_default_that_nothing_reaches_leaves_the_front_as_it_is() -> None:
    study = searched("auto", teacher=1.0, budget=9 * 5, constraints=["params <= 1e4"])
    front = study.front()
    assert front.reach == Reach(1.0, pytest.approx(0.8), soft=True)
    assert len(front) >= 1
    assert all(t.values["accuracy"] < 0.8 for t in front.trials)
    assert front.knee() is not None
    found = study.nearest()
    assert found is not None
    assert found.accuracy == max(t.values["accuracy"] for t in front.trials)


# -- the rule of all other samplers --------------------------------------------------------------------------------


def peers(losses: list[float], final: list[float], wanted: float = math.inf, cost: float = 0.5) -> Peers:
    """Trials of one size, but the first one's; NaN for those that are not at the top."""
    rows = np.array([[loss, 0.5 if row else cost] for row, loss in enumerate(losses)])
    ends = np.array([[loss, 0.5 if np.isfinite(loss) else np.nan] for loss in final])
    return Peers(rows, ends, wanted)


FINISHED = [0.30, 0.31, 0.32, 0.33, 0.34, 0.35]
EARLY = [loss + 0.5 for loss in FINISHED]  # half of the axis is gained from this rung to the top


def test_what_is_expected_short_of_the_bound_is_stopped_and_what_is_short_of_it_now_is_not() -> None:
    """Both are the cheapest of all, and are expected half of the axis lower at the top rung: at 0.45 and at 0.32."""

    def of(loss: float, wanted: float = math.inf) -> RungDecision:
        return decide(peers([loss, *EARLY], [math.nan, *FINISHED], wanted, cost=0.1), 0, eta=1)

    assert of(0.95).go_on
    assert not of(0.95, 0.34).go_on
    assert "short of what is wanted" in of(0.95, 0.34).why
    assert of(0.82, 0.34).go_on


def test_while_nothing_is_within_the_bound_the_best_go_on() -> None:
    losses, final = [0.75, *EARLY], [math.nan, *FINISHED]
    assert decide(peers(losses, final, 0.05), 0).go_on
    assert decide(peers(losses, final), 0) == decide(peers(losses, final, 0.05), 0)


def test_finalists_are_ordered_by_where_they_will_end() -> None:
    """Large students start slowly: the one at 0.3 will be at 0.9, the small one at 0.5 stays at 0.55."""
    losses_by_rung = LossesByRung(AXES, 2)
    for number in range(6):
        small = number % 2 == 0
        params = 1e3 if small else 1e6
        losses_by_rung.add(number, 1, {"accuracy": 0.5 if small else 0.3, "params": params})
        losses_by_rung.add(number, 2, {"accuracy": 0.55 if small else 0.9, "params": params})
    losses_by_rung.add(6, 1, {"accuracy": 0.5, "params": 1.1e3})
    losses_by_rung.add(7, 1, {"accuracy": 0.3, "params": 1.1e6})
    bound = (Constraint("accuracy", ">=", 0.45),)
    rule = PeerRule(Rungs((1, 9)), AXES, losses_by_rung, bound)
    assert set(rule.finalists({6: 1, 7: 1}, few=False)) == {6, 7}
    rule = PeerRule(Rungs((1, 9)), AXES, losses_by_rung, (Constraint("accuracy", ">=", 0.6),))
    assert rule.finalists({6: 1, 7: 1}, few=False) == [7, 6]


# -- what came nearest ---------------------------------------------------------------------------------------------


def trial(number: int, *accuracies: float, params: float = 1.0, state: State = State.COMPLETE) -> TrialRecord:
    rungs = {rung: {"accuracy": value} for rung, value in enumerate(accuracies, 1)}
    values = {"accuracy": accuracies[-1], "params": params}
    return TrialRecord(number, state, values if state is State.COMPLETE else {}, {}, {}, {}, 0, rungs=rungs)


def test_the_most_accurate_finished_student_within_all_other_bounds_came_nearest() -> None:
    reach = Reach(0.9, 0.85, soft=False)
    trials = [trial(0, 0.5), trial(1, 0.7), trial(2, 0.8, params=9.0), trial(3, 0.84, state=State.PARTIAL)]
    bounds = [Constraint("accuracy", ">=", 0.85), Constraint("params", "<=", 5.0)]
    found = nearest(trials, reach, bounds)
    assert found is not None
    assert (found.trial, found.to_teacher, found.points) == (1, -20.0, 20)
    assert nearest([*trials, trial(4, 0.85)], reach, bounds) is None
    assert nearest(trials[3:], reach, bounds) is None
    assert nearest(trials, None) is None


def test_more_epochs_are_advised_where_the_curve_still_rises() -> None:
    """From 9 to 27 epochs the student gained 4 points; 4 more take three times as long again, 81 epochs."""
    reach = Reach(0.9, 0.84, soft=False)
    assert nearest([trial(0, 0.76, 0.80)], reach, levels=(9, 27)).epochs == 81  # type: ignore[union-attr]
    assert nearest([trial(0, 0.80, 0.80)], reach, levels=(9, 27)).epochs is None  # type: ignore[union-attr]
    assert nearest([trial(0, 0.79, 0.80)], reach, levels=(9, 27)).epochs is None  # type: ignore[union-attr]


def test_what_it_would_take_is_said_in_sentences() -> None:
    reach = Reach(0.871, 0.821, soft=False)
    promises = [Promise(7, 0.80, 0.01, 0.05, 18.0), Promise(8, 0.83, 0.02, 0.69, 18.0)]
    found = nearest([trial(0, 0.757, 0.789)], reach, levels=(9, 27), promises=promises)
    assert found is not None
    assert nearest_lines(found, reach) == [
        "No finished student is within 5 points of the teacher (0.8710). Trial 0 came nearest: 0.7890, -8.2 pts, "
        "3.2 short of the bound.",
        "More budget: trial 8, which is paused, is expected at 0.8300 ± 0.02 after 18 more epochs, 69% likely within "
        "the bound.",
        "More epochs, in a new study: if trial 0 went on to gain as at its last rung, it would be within the bound "
        "after about 81 epochs.",
        "A larger bound, in a new study: --within 9 takes trial 0 in.",
    ]


def test_paused_trials_that_may_come_within_the_bound_are_recorded_for_readers() -> None:
    """The expectation comes from the search's own model, and every reader has the same."""
    study = searched(1, budget=9 * 6)
    found = study.nearest()
    assert found is not None
    stored = study.optuna.user_attrs["promises"]
    paused = {t.number for t in study.trials() if t.reason == "PAUSED"}
    assert stored
    assert {one["trial"] for one in stored} <= paused
    assert all(0 <= one["accuracy"] <= 1 and 0 <= one["chance"] <= 1 and one["deviation"] >= 0 for one in stored)
    assert all(promise.epochs in (6.0, 8.0) for promise in found.promises)


# -- tables, JSON, report ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """The same six full trainings under the default (with and without a student of use), and under two bounds."""
    root = tmp_path_factory.mktemp("runs")
    made = {}
    for key, teacher, within in (("mixed", 0.95, "auto"), ("far", 1.0, "auto"), ("in", 0.95, 15), ("none", 0.95, 2)):
        made[key] = root / key
        study = ad.Study.create(
            directory=made[key],
            name=key,
            space=toys.SPACE if key != "far" else {**toys.SPACE, "student": {"width": [4, 8]}},
            objectives=["accuracy", "params", "latency_ms"],
            sampler="random",
            epochs=9,
            rungs="off",
            within=within,
        )
        study.set_teacher_values({"accuracy": teacher, "params": 5e5})
        ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="12trials", progress=False)
    return made


def output(*arguments: str) -> str:
    found = run.invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return found.output


def test_every_reader_agrees_on_the_distance_and_the_bound(folders: dict[Any, Path]) -> None:
    folder = str(folders["mixed"])
    front = json.loads(output("front", folder, "--json"))
    assert front["within"] == {
        "teacher": 0.95, "points": 20.0, "bound": 0.75, "by": "default",
        "members": sum(t["within"] for t in front["trials"]),
    }  # fmt: skip
    assert 0 < front["within"]["members"] < len(front["trials"])
    for one in front["trials"]:
        assert one["to_teacher"] == pytest.approx(100 * (one["values"]["accuracy"] - 0.95))
        assert one["within"] == (one["values"]["accuracy"] >= 0.75)
    assert front["nearest"] is None
    assert json.loads((folders["mixed"] / "front.json").read_text())["within"] == front["within"]
    distances = {t["number"]: t["to_teacher"] for t in front["trials"]}
    assert {t["number"]: t["to_teacher"] for t in json.loads(output("trials", folder, "--json"))}.items() >= (
        distances.items()
    )
    number = front["trials"][0]["number"]
    assert json.loads(output("show", str(number), folder, "--json"))["to_teacher"] == distances[number]
    facts = write_report(open_to_read(folders["mixed"]), folders["mixed"] / "r.html").facts
    assert facts["to_teacher"] == {str(n): points for n, points in distances.items()}
    assert facts["reach"] == {k: v for k, v in front["within"].items() if k != "members"}
    knee = json.loads(output("front", folder, "--knee", "--json"))
    assert knee["values"]["accuracy"] >= 0.75  # a student that is of use
    picked = json.loads(output("front", folder, "--pick", "accuracy >= teacher - 0.2 and params <= teacher", "--json"))
    assert picked["values"]["accuracy"] >= 0.75


def test_tables_show_the_distance_the_teacher_and_what_is_no_gain(folders: dict[Any, Path]) -> None:
    shown = output("front", str(folders["mixed"]))
    study = open_to_read(folders["mixed"])
    worst = min(study.front().trials, key=lambda t: t.values["accuracy"])
    assert "to teacher" in shown.splitlines()[0]
    (row,) = [line for line in shown.splitlines() if line.split()[:1] == [str(worst.number)]]
    assert f"{100 * (worst.values['accuracy'] - 0.95):+.1f} pts" in row
    assert row.rstrip().endswith("no gain")
    assert any(line.split() == ["teacher", "0.9500", "500,000", "-"] for line in shown.splitlines())
    assert "no gain: not within 20 points of the teacher (0.9500); search with --within off" in shown
    trials = output("trials", str(folders["mixed"]))
    assert "to teacher" in trials.splitlines()[0]
    assert trials.splitlines()[-1].split()[0] == "teacher"
    assert "pts (the teacher has 0.9500)" in output("show", str(worst.number), str(folders["mixed"]))


def test_a_bound_keeps_students_off_the_front(folders: dict[Any, Path]) -> None:
    front = json.loads(output("front", str(folders["in"]), "--json"))
    assert front["within"]["by"] == "constraint"
    assert front["within"]["bound"] == pytest.approx(0.80)
    assert front["trials"]
    assert all(t["values"]["accuracy"] >= 0.80 for t in front["trials"])
    assert "no gain" not in output("front", str(folders["in"]))


def test_a_search_that_found_nothing_within_a_bound_says_what_came_nearest(folders: dict[Any, Path]) -> None:
    shown = output("front", str(folders["none"]))
    best = max(open_to_read(folders["none"]).trials(), key=lambda t: t.values["accuracy"])
    points = 100 * (0.95 - best.values["accuracy"])
    assert f"none satisfies accuracy >= teacher - 0.02 (0.93): trial {best.number} came nearest, {points:.1f}" in shown
    assert f"--within {math.ceil(points)} takes trial {best.number} in" in shown
    found = json.loads(output("front", str(folders["none"]), "--json"))
    assert found["trials"] == []
    assert found["nearest"]["trial"] == best.number
    assert found["nearest"]["points"] == math.ceil(points)
    write_report(open_to_read(folders["none"]), folders["none"] / "r.html")
    assert f"takes trial {best.number} in" in (folders["none"] / "r.html").read_text()


def test_the_front_is_shown_although_no_student_is_within_the_default_bound(folders: dict[Any, Path]) -> None:
    shown = output("front", str(folders["far"]))
    assert "No finished student is within 20 points of the teacher (1.0000)" in shown
    assert shown.count("no gain") >= 2  # its row, and what it means
    found = json.loads(output("front", str(folders["far"]), "--json"))
    assert found["trials"]
    assert found["within"]["members"] == 0
    assert found["nearest"]["accuracy"] == max(t["values"]["accuracy"] for t in found["trials"])


def test_a_study_that_goes_on_keeps_its_bound(folders: dict[Any, Path], tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folders["in"], again)
    study = ad.Study.open(again)
    assert study.constraints[0].bound == pytest.approx(0.80)
    study.set_teacher_values({"accuracy": 0.9499})
    ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="14trials", progress=False)
    assert study.front().reach == Reach(0.95, pytest.approx(0.80), soft=False)
    with pytest.raises(UsageError, match="constraints: the study has"):
        ad.Study.open(again, within=5)


def test_variants_are_measured_by_the_same_bound() -> None:
    study = ad.Study.create(space=toys.SPACE, objectives=["accuracy", "params"], within=5, epochs=1)
    study.set_teacher_values({"accuracy": 0.9})

    def with_int8(candidate: Candidate) -> Iterator[Report]:
        yield Report(0, {"params": 10.0})
        forms = {"int8": {"values": {"accuracy": 0.80 + 0.1 * (candidate.number % 2), "params": 5.0}}}
        yield Report(1, {"accuracy": 0.88, "params": 10.0}, 1.0, variants=forms)

    front = ad.search(study, evaluate=with_int8, budget="2trials", progress=False)
    assert [t.called for t in front.trials] == ["1 (int8)"]
