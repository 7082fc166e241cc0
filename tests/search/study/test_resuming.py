"""A trial whose driver dies again and again is given up only where it makes no progress."""

from __future__ import annotations

from pathlib import Path

from toys import accuracy, costs, make_study

from autodistill.core.records import Candidate, Report, State
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.study import MAX_ATTEMPTS

LEVELS = (1, 2, 3, 4, 5, 6)


def one_driver(folder: Path, *, rungs: int) -> Candidate | None:
    """Report the next rungs of the only trial, then die: nothing is closed."""
    study = make_study(folder, rungs=Rungs(LEVELS, stopping=False))
    with study.running("1trials"):
        candidate = study.ask()
        if candidate is None:
            return None
        first = candidate.start_rung
        if first == 0:
            study.report(candidate, Report(0, costs(candidate.student)))
        for rung in range(first + 1, first + 1 + rungs):
            values = {"accuracy": accuracy(candidate, LEVELS[rung - 1]), **costs(candidate.student)}
            study.report(candidate, Report(rung, values, LEVELS[rung - 1], 0.01 * rung))
        study._spending.stop()
        return candidate


def test_a_trial_that_stores_a_rung_in_each_attempt_is_finished(tmp_path: Path) -> None:
    starts = [one_driver(tmp_path, rungs=1) for _ in LEVELS]
    assert [one and one.start_rung for one in starts] == [0, 1, 2, 3, 4, 5]
    assert one_driver(tmp_path, rungs=0) is None
    (record,) = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False)).trials()
    assert (record.state, record.reason) == (State.COMPLETE, "")


def test_attempts_without_a_new_rung_are_counted_since_the_last_one(tmp_path: Path) -> None:
    one_driver(tmp_path, rungs=0)
    one_driver(tmp_path, rungs=0)
    one_driver(tmp_path, rungs=1)  # the third attempt gets somewhere
    for _ in range(MAX_ATTEMPTS):
        found = one_driver(tmp_path, rungs=0)
        assert found is not None
        assert (found.number, found.start_rung) == (0, 1)
    one_driver(tmp_path, rungs=0)
    record = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False)).trials()[0]
    assert (record.state, record.reason) == (State.FAIL, "ATTEMPTS")
    assert "3 attempts after rung 1" in record.message
