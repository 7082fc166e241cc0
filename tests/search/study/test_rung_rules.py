from __future__ import annotations

import numpy as np
import pytest

from autodistill.core.records import Constraint, Objective
from autodistill.search.objectives.objectives import resolve
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.losses_by_rung import LossesByRung
from autodistill.search.study.rung_rules import PeerRule

TWO = resolve(["accuracy", "params"])


def filled(reports: dict[int, dict[int, float]], params: float = 100.0, objectives=TWO) -> LossesByRung:
    """Trial to rung to accuracy; all of one size."""
    losses_by_rung = LossesByRung(objectives, 3)
    for number, rungs in reports.items():
        for rung, accuracy in rungs.items():
            losses_by_rung.add(number, rung, {"accuracy": accuracy, "params": params, "loss": 1 - accuracy})
    return losses_by_rung


def rule(losses_by_rung: LossesByRung, objectives=TWO) -> PeerRule:
    return PeerRule(Rungs((1, 3, 9)), objectives, losses_by_rung)


def test_dominated_and_undominated_reports_at_a_rung_are_distinguished():
    losses_by_rung = LossesByRung(TWO, 3)
    reports = [(0.5, 100.0), (0.4, 50.0), (0.3, 60.0)]
    for number, (accuracy, params) in enumerate(reports):
        losses_by_rung.add(number, 1, {"accuracy": accuracy, "params": params})
    losses_by_rung.add(3, 1, {"accuracy": 0.9})  # without its size it is not compared
    assert [losses_by_rung.unbeaten(n, 1) for n in range(4)] == [True, True, False, False]
    assert losses_by_rung.at(1)[0] == [0, 1, 2]
    assert np.isnan(losses_by_rung.final([0, 1])).all()


def test_losses_by_rung_return_the_newest_and_grow():
    losses_by_rung = filled({n: {1: 0.1 + 0.001 * n} for n in range(100)})
    numbers, losses = losses_by_rung.at(1, newest=10)
    assert numbers == list(range(90, 100))
    assert losses[:, 0] == pytest.approx([-0.1 - 0.001 * n for n in range(90, 100)])
    assert losses_by_rung.row(1, 42) == pytest.approx([-0.142, np.log(100.0)])
    assert losses_by_rung.row(2, 42) is None


def test_too_few_to_compare_waits():
    one = rule(filled({0: {1: 0.5}, 1: {1: 0.6}}))
    assert one.verdict(1, 1) is None
    assert one.next({0: 1, 1: 1}, 9.0).trial is None
    assert one.finalists({0: 1, 1: 1}, few=True) == [1, 0]
    assert one.lost({0: 1, 1: 1}) == {}


def test_what_is_good_enough_goes_before_what_is_small():
    losses_by_rung = LossesByRung(TWO, 3)
    for number, (accuracy, params) in enumerate([(0.62, 1e5), (0.39, 1e3), (0.51, 1e4)]):
        losses_by_rung.add(number, 1, {"accuracy": accuracy, "params": params})
    paused = {0: 1, 1: 1, 2: 1}

    def order(*bounds: Constraint) -> list[int]:
        return PeerRule(Rungs((1, 3, 9)), TWO, losses_by_rung, bounds).finalists(paused, few=False)

    free = order()
    assert order(Constraint("accuracy", ">=", 0.9)) == free
    for bound, enough in ((0.5, {0, 2}), (0.6, {0})):
        found = order(Constraint("accuracy", ">=", bound))
        assert set(found[: len(enough)]) == enough
        assert [n for n in found if n not in enough] == [n for n in free if n not in enough]


def test_with_enough_the_best_goes_on_and_the_others_are_lost():
    one = rule(filled({0: {1: 0.5}, 1: {1: 0.6}, 2: {1: 0.4}}))
    assert one.verdict(2, 1).final
    assert one.next({0: 1, 1: 1}, 9.0).trial == 1
    assert list(one.lost({0: 1, 1: 1})) == [0]
    assert "place 2 of 3" in one.lost({0: 1})[0]
    assert one.finalists({0: 1, 1: 1}, few=True) == [1]
    assert one.finalists({0: 1, 1: 1}, few=False) == [1, 0]


def test_the_highest_rung_goes_on_first():
    one = rule(filled({0: {1: 0.5, 2: 0.55}, 1: {1: 0.6}, 2: {1: 0.4}, 3: {1: 0.7}}))
    assert one.finalists({3: 1, 0: 2}, few=True) == [0, 3]


def test_several_trained_objectives_are_compared_as_they_are():
    axes = (*TWO, Objective("loss", "minimize", "nats", "trained"))
    one = rule(filled({0: {1: 0.5}, 1: {1: 0.6}, 2: {1: 0.4}}, objectives=axes), axes)
    assert one.verdict(1, 1).go_on
    assert one.verdict(0, 1).final


def test_only_the_newest_are_compared():
    losses_by_rung = filled({n: {1: 0.9 - 1e-4 * n} for n in range(3000)})
    verdict = rule(losses_by_rung).verdict(2999, 1)
    assert verdict.final
    assert "of 400" in verdict.why
