import json

import numpy as np
import optuna
import pytest

from autodistill.core.errors import InfeasibleError, UsageError
from autodistill.core.records import Constraint, Objective
from autodistill.search.objectives import pareto
from autodistill.search.sampler.front_sampler import ExhaustedError, FrontSampler
from autodistill.search.space.space import Space

DIRECTIONS = ["maximize", "minimize"]
OBJECTIVES = (
    Objective("accuracy", "maximize", "fraction", "trained"),
    Objective("params", "minimize", "count", "known", log=True),
)
WIDTHS = {"student": {f"width{i}": {"values": [8, 16, 32, 64]} for i in range(4)}}
CONDITIONAL = {
    "student": {
        "family": ["plain", "deep"],
        "plain": {"width": {"low": 4, "high": 64, "log": True}},
        "deep": {"width": {"low": 4, "high": 32}, "depth": [1, 2, 3]},
    },
    "distillation": {"loss": ["none", "kd"], "temperature": {"low": 1.0, "high": 20.0, "when": {"loss": ["kd"]}}},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
}


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def params(student):
    return {"params": float(sum(v for v in student.values() if isinstance(v, int)))}


def accuracy(student):
    widths = [v for v in student.values() if isinstance(v, int)]
    return 1 - 1 / sum(widths) ** 0.5 - 0.02 * widths[0] / 64


def run(space, count, **keywords):
    space = Space.parse(space)
    front = FrontSampler(space, **{"costs": params, **keywords})
    study = optuna.create_study(directions=DIRECTIONS, sampler=front)
    for _ in range(count):
        trial = study.ask()
        student = space.suggest(trial)["student"]
        study.tell(trial, [accuracy(student), *params(student).values()])
    return study


def test_it_is_an_ordinary_optuna_sampler_over_a_plain_dict():
    study = run(WIDTHS, 14)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert set(study.trials[-1].params) == {f"student.width{i}" for i in range(4)}


def test_it_finds_a_larger_volume_than_random_search():
    def volume(study):
        losses = [[-t.values[0], np.log(t.values[1])] for t in study.trials]
        return pareto.hypervolume(losses, [-0.7, np.log(260.0)])

    ours = np.mean([volume(run(WIDTHS, 30, seed=seed)) for seed in range(3)])
    random = []
    for seed in range(3):
        space = Space.parse(WIDTHS)
        study = optuna.create_study(directions=DIRECTIONS, sampler=optuna.samplers.RandomSampler(seed=seed))
        for _ in range(30):
            trial = study.ask()
            student = space.suggest(trial)["student"]
            study.tell(trial, [accuracy(student), *params(student).values()])
        random.append(volume(study))
    assert ours > np.mean(random)


def test_nothing_is_proposed_twice_and_an_exhausted_space_says_so():
    space = {"student": {"width0": [8, 16, 32], "width1": {"low": 1, "high": 4}}}
    study = run(space, 12)
    assert len({tuple(t.params.values()) for t in study.trials}) == 12
    with pytest.raises(ExhaustedError, match="all 12 candidates"):
        Space.parse(space).suggest(study.ask())
    assert study.sampler.exhausted(study)


def test_students_that_cannot_be_built_are_never_proposed():
    def costs(student):
        if student["width0"] == 64:
            raise InfeasibleError("too wide")
        return None if student["width1"] == 8 else params(student)

    study = run(WIDTHS, 25, costs=costs)
    assert all(t.params["student.width0"] != 64 and t.params["student.width1"] != 8 for t in study.trials)


def test_constraints_on_known_costs_are_respected_exactly():
    study = run(WIDTHS, 25, constraints=[Constraint("params", "<=", 100.0)])
    assert max(t.values[1] for t in study.trials) <= 100.0


def test_a_bound_on_the_accuracy_turns_the_search_to_what_satisfies_it():
    def satisfying(*constraints):
        study = run(WIDTHS, 40, objectives=OBJECTIVES, constraints=constraints)
        return sum(t.values[0] >= 0.91 for t in study.trials)

    assert satisfying(Constraint("accuracy", ">=", 0.91)) > 1.5 * satisfying()


def test_parallel_asks_are_distinct():
    space = Space.parse(WIDTHS)
    study = run(WIDTHS, 15)
    asked = [json.dumps(space.suggest(study.ask())) for _ in range(6)]
    assert len(set(asked)) == 6


def test_conditional_parameters_come_only_with_their_choice():
    space = Space.parse(CONDITIONAL)

    def cost(student):
        return {"params": float(student["width"] * student.get("depth", 1))}

    study = optuna.create_study(directions=DIRECTIONS, sampler=FrontSampler(space, costs=cost, seed=1))
    for _ in range(24):
        trial = study.ask()
        sections = space.suggest(trial)
        assert set(trial.params) == set(space.active(trial.params))
        bonus = 0.05 * (sections["distillation"]["loss"] == "kd")
        size = cost(sections["student"])["params"]
        study.tell(trial, [0.5 + bonus + 0.05 * np.log(size), size])
    seen = {(t.params["student.family"], t.params["distillation.loss"]) for t in study.trials[:10]}
    assert len(seen) == 4  # the first design has every family with every loss


def test_the_first_design_covers_the_range_of_the_known_cost():
    costs = sorted(t.values[1] for t in run(WIDTHS, 10).trials)
    assert costs[0] <= 60
    assert costs[-1] >= 180


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_first_design_ends_with_the_best_known_cost_in_the_objective_s_direction(direction):
    value = {"minimize": lambda width: float(width), "maximize": lambda width: 1e6 / width}[direction]
    space = Space.parse({"student": {"width": {"low": 1, "high": 1000}}})
    costs = lambda student: {"cost": value(student["width"])}  # noqa: E731
    front = FrontSampler(space, costs=costs, seed=3, startup=11)
    study = optuna.create_study(directions=["maximize", direction], sampler=front)
    for _ in range(11):
        trial = study.ask()
        width = space.suggest(trial)["student"]["width"]
        study.tell(trial, [1 - 1 / width, value(width)])
    *before, last = [t.params["student.width"] for t in study.trials]
    assert front.last_explanation == "first design, 11 of 11: the cheapest student that is known"
    assert last < min(before)
    assert last < 100


def test_the_first_design_is_of_students_whose_training_takes_less_than_the_median():
    space = Space.parse(WIDTHS)
    width = lambda values: sum(values.values())  # noqa: E731
    half = np.median([width(values) for values in space.enumerate()])

    def tried(epoch_cost):
        front = FrontSampler(space, OBJECTIVES, costs=params, seed=0, epoch_cost=epoch_cost)
        study = optuna.create_study(directions=DIRECTIONS, sampler=front)
        for _ in range(10):
            trial = study.ask()
            student = space.suggest(trial)["student"]
            study.tell(trial, [accuracy(student), params(student)["params"]])
        return [width(t.params) for t in study.trials]

    assert max(tried(width)) <= half + 8
    assert len(set(tried(width))) > 4  # spread over what is affordable
    assert tried(lambda values: 2.0) == tried(None)  # where all take as long, over everything
    assert max(tried(None)) > half + 40


def test_a_surveyed_pool_is_all_that_is_proposed():
    space = Space.parse(CONDITIONAL)
    pool = [({"family": "deep", "width": w, "depth": d}, {"params": 10.0 * w * d}) for w in (4, 8, 16) for d in (1, 3)]
    front = FrontSampler(space, OBJECTIVES)
    front.set_pool(pool)
    study = optuna.create_study(directions=DIRECTIONS, sampler=front)
    for _ in range(16):
        trial = study.ask()
        student = space.suggest(trial)["student"]
        assert (student["width"], student["depth"]) in {(s["width"], s["depth"]) for s, _ in pool}
        study.tell(trial, [0.1 * student["depth"], 10.0 * student["width"] * student["depth"]])


def test_a_pool_without_a_feasible_student_is_refused():
    front = FrontSampler(WIDTHS, OBJECTIVES, constraints=[Constraint("params", "<=", 5.0)])
    student = {f"width{i}": 8 for i in range(4)}
    with pytest.raises(UsageError, match="params <= 5"):
        front.set_pool([(student, {"params": 32.0})])


def test_costs_may_be_unknown_and_are_then_modelled_too():
    study = run(WIDTHS, 20, costs=None)
    assert len(study.best_trials) >= 1


def test_three_objectives_two_of_them_known():
    space = Space.parse(WIDTHS)

    def costs(student):
        return {**params(student), "latency_ms": float(student["width0"] + 1)}

    study = optuna.create_study(directions=[*DIRECTIONS, "minimize"], sampler=FrontSampler(space, costs=costs))
    for _ in range(16):
        trial = study.ask()
        student = space.suggest(trial)["student"]
        study.tell(trial, [accuracy(student), *costs(student).values()])
    assert len({tuple(t.params.values()) for t in study.trials}) == 16


def test_failed_and_pruned_trials_do_not_stop_the_search():
    space = Space.parse(WIDTHS)
    study = run(WIDTHS, 10)
    for state in (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, state=state)
    assert len(space.suggest(study.ask())["student"]) == 4


def test_all_failures_are_survived():
    space = Space.parse(WIDTHS)
    study = optuna.create_study(directions=DIRECTIONS, sampler=FrontSampler(space, costs=params))
    for _ in range(14):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len({tuple(t.params.values()) for t in study.trials}) == 14


def test_a_constant_accuracy_is_survived():
    space = Space.parse(WIDTHS)
    study = optuna.create_study(directions=DIRECTIONS, sampler=FrontSampler(space, costs=params))
    for _ in range(14):
        trial = study.ask()
        study.tell(trial, [0.5, *params(space.suggest(trial)["student"]).values()])
    assert len(study.trials) == 14


def test_enqueued_trials_are_left_alone():
    space = Space.parse(WIDTHS)
    study = run(WIDTHS, 12)
    study.enqueue_trial({f"student.width{i}": 8 for i in range(4)})
    assert space.suggest(study.ask())["student"] == {f"width{i}": 8 for i in range(4)}


def test_the_same_seed_proposes_the_same_and_another_does_not():
    first, again, other = ([tuple(t.params.values()) for t in run(WIDTHS, 14, seed=seed).trials] for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_choice_is_explained_with_numbers():
    study = run(WIDTHS, 12, objectives=OBJECTIVES)
    assert not study.sampler.exhausted(study)
    assert "accuracy" in study.sampler.last_explanation
    assert "params" in study.sampler.last_explanation
    assert "front's volume" in study.sampler.last_explanation


def test_known_objectives_are_found_by_metric_name_in_any_order():
    space = Space.parse(WIDTHS)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=FrontSampler(space, costs=params))
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["params", "accuracy"])
    for _ in range(13):
        trial = study.ask()
        student = space.suggest(trial)["student"]
        study.tell(trial, [*params(student).values(), accuracy(student)])
    assert study.sampler.last_explanation.startswith("params")


def test_an_enqueued_student_without_known_costs_does_no_harm():
    space = Space.parse(WIDTHS)

    def costs(student):
        return None if student["width0"] == 64 else params(student)

    study = run(WIDTHS, 12, costs=costs)
    for _ in range(2):
        study.enqueue_trial({f"student.width{i}": 64 for i in range(4)})
    space.suggest(study.ask())
    trial = study.ask()
    space.suggest(trial)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert space.suggest(study.ask())["student"]["width0"] != 64


def test_candidates_that_train_quickly_are_preferred_for_an_equal_gain():
    def first(epoch_cost):
        study = run(WIDTHS, 12, epoch_cost=epoch_cost)
        return study.trials[-1].params["student.width1"]

    assert first(lambda values: 1e6 if values["student.width1"] != 16 else 1.0) == 16


def test_costs_that_are_no_objectives_help_to_predict_accuracy():
    rng = np.random.default_rng(0)
    work = dict(zip([f"net{i}" for i in range(60)], rng.permutation(60) + 1.0, strict=True))
    size = dict(zip(work, rng.permutation(60) + 1.0, strict=True))
    space = Space.parse({"student": {"name": list(work)}})  # names alone say nothing about each other
    told = {
        "both": lambda s: {"params": size[s["name"]], "macs": work[s["name"]]},
        "one": lambda s: {"params": size[s["name"]]},
    }
    found = {}
    for case, costs in told.items():
        shares = []
        for seed in range(3):  # one search may come upon the best by chance
            study = optuna.create_study(directions=DIRECTIONS, sampler=FrontSampler(space, costs=costs, seed=seed))
            for _ in range(25):
                trial = study.ask()
                name = space.suggest(trial)["student"]["name"]
                study.tell(trial, [1 - 1 / work[name], size[name]])
            names = [t.params["student.name"] for t in study.trials]
            losses = np.array([[1 / work[name], size[name] / 60] for name in names])
            shares.append(pareto.hypervolume(losses, np.ones(2)))
        found[case] = float(np.mean(shares))
    every = np.array([[1 / work[name], size[name] / 60] for name in work])
    best = pareto.hypervolume(every, np.ones(2))
    assert found["both"] == pytest.approx(best, rel=0.005)
    assert found["one"] < found["both"]


def test_the_first_design_spans_the_costs_and_tries_every_choice():
    space = {"student": {f"edge{i}": {"values": list("abcde")} for i in range(4)}}
    worth = dict(zip("abcde", (1, 10, 30, 60, 100), strict=True))
    cost = lambda s: {"params": float(sum(worth[v] for v in s.values()))}  # noqa: E731
    for seed in range(3):
        study = optuna.create_study(directions=DIRECTIONS, sampler=FrontSampler(space, costs=cost, seed=seed))
        seen, costs = [], []
        for _ in range(11):
            trial = study.ask()
            student = Space.parse(space).suggest(trial)["student"]
            seen.append(tuple(student.values()))
            costs.append(cost(student)["params"])
            study.tell(trial, [0.5, costs[-1]])
        assert min(costs) <= 13  # of 4 to 400; a tenth of all lies below 100, a tenth above 300
        assert max(costs) >= 260
        assert min(costs[:-1]) <= 110
        missing = sum(5 - len(set(column)) for column in zip(*seen, strict=True))
        assert missing <= 1  # ten random draws miss two of the twenty
