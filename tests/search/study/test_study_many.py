"""Ten thousand stored trials, paused ones among them."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from toys import LEVELS, accuracy, costs, evaluate, make_study

from autodistill.core.records import Candidate, Decision, State
from autodistill.search.study.scheduler import MAX_PAUSED, SLACK
from autodistill.search.study.study import Study

SPACE = {
    "student": {"width": {"low": 4, "high": 4096, "log": True}},
    "train": {"lr": {"low": 0.1, "high": 1.0}, "decay": {"low": 0.0, "high": 1.0}},
}
STORED = 10_000
PAUSED = 20


def stored_trial(study: Study, number: int, rng: np.random.Generator) -> FrozenTrial:
    values = study.space.sample(rng)
    sections = study.space.nest(values)
    candidate = Candidate(number, sections["student"], {}, sections["train"], number)
    known = costs(candidate.student)
    paused, top = number >= STORED - PAUSED, number % 3 == 0
    reached = 1 if paused or not top else 3
    attributes = {"candidate": {**sections, "seed": number, "key": candidate.key(), "why": ""}, "rung:0": known}
    for rung in range(1, reached + 1):
        epochs = LEVELS[rung - 1]
        attributes[f"rung:{rung}"] = {"accuracy": accuracy(candidate, epochs), **known, "epochs": epochs, "seconds": 1}
    if paused:
        attributes |= {"state": "PARTIAL", "reason": "PAUSED", "counted": True}
    complete = top and not paused
    return optuna.trial.create_trial(
        state=TrialState.RUNNING if paused else TrialState.COMPLETE if complete else TrialState.PRUNED,
        values=[accuracy(candidate, 9), *known.values()] if complete else None,
        params=values,
        distributions=study.space.active(values),
        user_attrs=attributes,
    )


@pytest.fixture(scope="module", params=["front", pytest.param("random", marks=pytest.mark.slow)])
def big(request: pytest.FixtureRequest) -> Study:
    study = make_study(space=SPACE, sampler=request.param)
    rng = np.random.default_rng(0)
    study.optuna.add_trials([stored_trial(study, n, rng) for n in range(STORED)])
    study._log.reload()
    study.set_known_costs([], costs)
    return study


def test_ten_thousand_stored_trials_stay_usable(big: Study) -> None:
    with big.running(f"{big.spent.epochs + 500}epochs"):
        assert len(big._scheduler.paused) == PAUSED
        numbers = []
        for _ in range(6):
            candidate = big.ask()
            assert candidate is not None
            for report in evaluate(candidate):
                if big.report(candidate, report) is Decision.STOP:
                    break
            big.close(candidate)
            numbers.append(candidate.number)
    assert any(number >= STORED for number in numbers)
    waiting = sum(t.reason == "PAUSED" and t.state is State.PARTIAL for t in big.trials())
    assert waiting <= MAX_PAUSED + SLACK
    assert big.waste().trials >= STORED
