from __future__ import annotations

from collections.abc import Iterator

import pytest
from toys import LEVELS, accuracy, costs, make_study

import autodistill as ad
from autodistill.core.errors import UserCodeError
from autodistill.core.records import Candidate, Report, State
from autodistill.search.study.stopping import ALIKE, MAX_EQUAL_FAILURES, SET_UP, Streak


def in_percent(candidate: Candidate) -> Iterator[Report]:
    yield Report(0, costs(candidate.student))
    for rung, epochs in enumerate(LEVELS, 1):
        yield Report(rung, {"accuracy": 100 * accuracy(candidate, epochs)}, epochs)


def test_accuracy_in_percent_ends_the_search_at_once_and_says_what_is_wanted() -> None:
    study = make_study()
    with pytest.raises(UserCodeError, match=r"NON_FINITE.*accuracy is a fraction, from 0 to 1; divide by 100"):
        ad.search(study, evaluate=in_percent, costs=costs, budget="40trials", workers=1, progress=False)
    trials = study.trials()
    assert [(t.state, t.reason) for t in trials] == [(State.FAIL, "NON_FINITE")] * MAX_EQUAL_FAILURES
    assert len({t.message for t in trials}) == MAX_EQUAL_FAILURES  # each with its own number


def streak(reason: str, *messages: str) -> Streak:
    made = Streak()
    for message in messages:
        made.ended(State.FAIL, reason, message)
    return made


def test_failures_that_differ_in_their_numbers_alone_are_the_same() -> None:
    same = [f"RuntimeError: shapes {n}x{3 * n} and 1e-{n} do not fit" for n in range(11, 16)]
    with pytest.raises(UserCodeError, match=r"\(ERROR\): RuntimeError: shapes 15x45 and 1e-15 do not fit\. ") as caught:
        streak("ERROR", *same).check()
    assert str(caught.value).endswith(ALIKE)
    with pytest.raises(UserCodeError) as caught:
        streak("ERROR", *[same[0]] * 5).check()
    assert str(caught.value).endswith(f"do not fit. {SET_UP}")
    streak("ERROR", *same[:4]).check()
    streak("ERROR", *same[:4], "RuntimeError: something else").check()
    mixed = streak("ERROR", *same)  # in a space of which a part fails, five in a row will come
    mixed.evaluated("", "", nothing=False)
    mixed.check()


@pytest.mark.parametrize("reason", ["NAN", "OOM"])
def test_what_a_student_may_have_by_itself_is_the_same_only_with_the_same_numbers(reason: str) -> None:
    streak(reason, *[f"no room for {n} GiB" for n in range(5)]).check()
    with pytest.raises(UserCodeError, match="no room for 2 GiB"):
        streak(reason, *["no room for 2 GiB"] * 5).check()


@pytest.mark.parametrize("reason", ["WORKER_LOST", "HUNG", "CRASH"])
def test_lost_workers_are_no_streak_for_engines_count_the_different_students(reason: str) -> None:
    streak(reason, *["killed by signal 9 (SIGKILL)"] * 9).check()
