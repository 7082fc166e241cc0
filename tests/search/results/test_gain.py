"""Gains over the undistilled runs of a student, against a plain search through all trials."""

from __future__ import annotations

import random

from autodistill.core.records import State, TrialRecord
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.gain import UndistilledRuns, distils, gain_over_undistilled, pairs

ACCURACY = resolve(["accuracy", "params"])[0]


def trials() -> list[TrialRecord]:
    rng = random.Random(0)
    made = []
    for number in range(300):
        student = {"width": rng.choice([4, 8, 8.0, 16]), "blocks": rng.choice([None, "a"])}
        if number % 7 == 0:
            student["kinds"] = [1, 2]  # a setting that cannot be hashed
        loss = rng.choice(["none", "kd"])
        state = rng.choice([State.COMPLETE, State.PRUNED])
        values = {"accuracy": rng.random(), "params": 1.0} if state is State.COMPLETE else {}
        variants = {"int8": {"values": {"accuracy": rng.random()}}} if rng.random() < 0.5 else {}
        made.append(TrialRecord(number, state, values, student, {"loss": loss}, {}, 0, variants=variants))
    return made


def plainly(trial: TrialRecord, every: list[TrialRecord]) -> float | None:
    if not distils(trial.distillation) or not trial.values:
        return None
    rivals = [
        t.values["accuracy"]
        for t in every
        if t.state is State.COMPLETE and t.student == trial.student and not distils(t.distillation)
    ]
    return trial.values["accuracy"] - max(rivals) if rivals else None


def test_gains_are_those_of_a_plain_search_through_all_trials() -> None:
    every = trials()
    runs = UndistilledRuns(every)
    expected = [plainly(t, every) for t in every]
    assert sum(gain is not None for gain in expected) > 20
    for trial, gain in zip(every, expected, strict=True):
        for known in (runs, every):
            found = gain_over_undistilled(trial, known, ACCURACY)
            assert (found is None) == (gain is None)
            assert found is None or abs(found - (gain or 0.0)) < 1e-12
    counted = pairs(every, ACCURACY)
    assert counted.all == sum(gain is not None for gain in expected)
    assert counted.won == sum(gain is not None and gain > 0 for gain in expected)
