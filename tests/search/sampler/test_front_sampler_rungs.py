import json

import optuna
import pytest

from autodistill.core.records import Objective
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.space.space import Space

SPACE = {
    "student": {"width": {"low": 4, "high": 256, "log": True}},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
}
OBJECTIVES = (
    Objective("accuracy", "maximize", "fraction", "trained"),
    Objective("params", "minimize", "count", "known", log=True),
)
RUNGS = (1, 3, 9)


def costs(student):
    return {"params": float(student["width"])}


def accuracy(sections, epochs):
    good_lr = abs(sections["train"]["lr"] - 0.01) < 0.009
    return (0.9 if good_lr else 0.5) - 1 / sections["student"]["width"] ** 0.5 - 0.2 / epochs


class Driver:
    """Spends epochs as the sampler says, one worker."""

    def __init__(self, seed=0):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = Space.parse(SPACE)
        self.sampler = FrontSampler(self.space, OBJECTIVES, costs=costs, rungs=RUNGS, seed=seed)
        self.study = optuna.create_study(directions=["maximize", "minimize"], sampler=self.sampler)
        self.paused = {}

    def start(self):
        trial = self.study.ask()
        return trial, self.space.suggest(trial), 0

    def train(self, trial, sections, rung):
        report = {"accuracy": accuracy(sections, RUNGS[rung]), "epochs": RUNGS[rung]}
        trial.set_user_attr(f"rung:{rung + 1}", json.dumps(report))
        if rung + 1 == len(RUNGS):
            self.study.tell(trial, [report["accuracy"], *costs(sections["student"]).values()])
        else:
            self.paused[trial.number] = (trial, sections, rung + 1)

    def step(self):
        action = self.sampler.next_action(self.study, paused=self.paused)
        self.train(*(self.start() if action.trial is None else self.paused.pop(action.trial)))
        return action


@pytest.fixture(scope="module")
def searched():
    driver = Driver()
    actions = [driver.step() for _ in range(40)]
    return driver, actions


def test_the_first_design_is_started_before_anything_goes_on(searched):
    _, actions = searched
    assert [action.trial for action in actions[:8]] == [None] * 8
    assert any(action.trial is not None for action in actions[8:10])  # and no later


def test_trials_are_both_finished_and_left_behind(searched):
    driver, _ = searched
    assert len(driver.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) >= 2
    assert len(driver.paused) >= 2


def test_what_is_finished_is_mostly_what_was_trained_well(searched):
    driver, _ = searched
    done = driver.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    good = [abs(trial.params["train.lr"] - 0.01) < 0.009 for trial in done]
    assert sum(good) >= len(good) / 2


def test_every_choice_has_a_reason(searched):
    _, actions = searched
    assert all(action.why for action in actions)
    assert any("most that any trial" in action.why for action in actions if action.trial is not None)


def test_nothing_is_started_that_the_budget_cannot_finish(searched):
    driver, _ = searched
    assert driver.sampler.next_action(driver.study, paused=driver.paused, remaining=1.0) is None
    late = driver.sampler.next_action(driver.study, paused=driver.paused, remaining=8.5)
    assert late is None or late.trial is not None


def test_the_reason_of_a_pause_names_a_candidate_with_more_expected_gain(searched):
    driver, _ = searched
    number = next(iter(driver.paused))
    verdict = driver.sampler.verdict(driver.study, number, paused=[n for n in driver.paused if n != number])
    assert verdict.go_on or "promises more per epoch" in verdict.why


def test_a_stopped_trial_can_be_picked_up_again(searched):
    driver, _ = searched
    number, (trial, *_) = next(iter(driver.paused.items()))
    driver.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    action = driver.sampler.next_action(driver.study, paused=[number], remaining=8.5)
    assert action is None or action.trial == number
