from __future__ import annotations

import pytest
from toys import LEVELS, make_study

from autodistill.core.records import Report, State
from autodistill.search.results.waste import FIRST, Waste
from autodistill.search.study.study import Study

ONE = {"student": {"width": {"low": 1, "high": 100000}}}


def train(study: Study, accuracy: float, rungs: int, params: float = 100.0) -> int:
    candidate = study.ask()
    assert candidate is not None
    known = {"params": params, "latency_ms": 1.0}
    study.report(candidate, Report(0, known))
    for rung in range(1, rungs + 1):
        epochs = LEVELS[rung - 1]
        study.report(candidate, Report(rung, {"accuracy": accuracy, **known}, epochs, 2.0 * epochs))
    study.close(candidate, None if rungs else RuntimeError("no"))
    return candidate.number


def test_worse_trials_after_the_first_design_are_waste() -> None:
    study = make_study(space=ONE)
    with study.running():
        for n in range(FIRST):
            train(study, 0.1 + 0.01 * n, 1)
        better = train(study, 0.5, 1)
        worse = [train(study, 0.2, 1), train(study, 0.3, 1)]
        smaller = train(study, 0.05, 1, params=10.0)
        top = train(study, 0.6, 3)
        failed = train(study, 0.0, 0)
    found = study.waste()
    assert study.trials()[top].state is State.COMPLETE
    assert found.wasted_epochs == len(worse)
    assert found.wasted_seconds == 2.0 * len(worse)
    assert found.epochs == FIRST + 1 + 2 + 1 + 9
    assert found.share == pytest.approx(2 / 23)
    assert found.trials == FIRST + 5  # the failure trained nothing
    assert found.untrained == 1
    assert found.trials + found.untrained == len(study.trials())
    unbeaten = {n: study._log.attributes(n)["decision:1"]["unbeaten"] for n in (better, *worse, smaller)}
    assert unbeaten == {better: True, worse[0]: False, worse[1]: False, smaller: True}
    assert failed == top + 1


def test_being_overtaken_later_is_no_waste() -> None:
    study = make_study(space=ONE)
    with study.running():
        for n in range(FIRST + 5):  # each better than all before
            train(study, 0.1 + 0.01 * n, 1)
    assert study.waste().wasted_trials == 0


def test_the_sentence_and_the_json_have_the_figures() -> None:
    waste = Waste(epochs=40, seconds=0.0, trials=4, wasted_epochs=10, wasted_seconds=0.0, wasted_trials=1)
    assert waste.share == 0.25
    assert "25% of the epochs (10 of 40)" in waste.line()
    assert waste.line().endswith(": 1 of the 4 that were trained")
    assert waste.to_json()["share"] == 0.25
    assert Waste().share == 0.0


def test_the_share_stands_beside_the_figures_that_it_is_of() -> None:
    waste = Waste(906.0, 490.0, 52, wasted_epochs=506.0, wasted_seconds=309.0, wasted_trials=29, untrained=2)
    assert "63% of the training time (5m 9s of 8m 10s) went" in waste.line()  # and 56 % of the epochs
    assert "epochs" not in waste.line()
    assert waste.line().endswith(": 29 of the 52 that were trained; 2 more were not trained")
    assert waste.to_json()["untrained"] == 2
