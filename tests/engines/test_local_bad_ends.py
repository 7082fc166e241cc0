"""Whatever an evaluation raises in the process of the search fails its trial, and the search goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from toys import LEVELS, costs, evaluate, make_study

import autodistill as ad
from autodistill.core.errors import error_text
from autodistill.core.records import Candidate, Report, State
from autodistill.engines.driving.worker import pack_error
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.end_states import end_by_error


class UnprintableError(Exception):
    """An exception whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class LyingError(UnprintableError):
    """An exception that ends the program when it is printed."""

    def __str__(self) -> str:
        sys.exit(3)


def raising(error: BaseException) -> Callable[[Candidate], Iterator[Report]]:
    def fails(candidate: Candidate) -> Iterator[Report]:
        if candidate.number == 1:
            yield Report(0, costs(candidate.student))
            raise error
        yield from evaluate(candidate)

    return fails


ERRORS = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    BaseException("odd"),
    UnprintableError(),
    LyingError(),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_evaluation_that_ends_oddly_fails_its_trial_and_no_other(error: BaseException) -> None:
    study = make_study()
    ad.search(study, evaluate=raising(error), budget="4trials", progress=False, workers=1)
    trials = study.trials()
    assert (trials[1].state, trials[1].reason) == (State.FAIL, "ERROR")
    assert type(error).__name__ in trials[1].message
    assert sum(t.state is State.FAIL for t in trials) == 1
    assert study.spent.trials == 4


def test_a_generator_that_raises_while_it_is_closed_ends_nothing() -> None:
    def fails(candidate: Candidate) -> Iterator[Report]:
        try:
            yield from evaluate(candidate)
        finally:
            raise KeyboardInterrupt

    study = make_study()
    ad.search(study, evaluate=fails, budget="3trials", progress=False, workers=1)
    assert study.spent.trials == 3


def test_an_unprintable_error_of_a_worker_can_be_sent() -> None:
    _, kind, reason, text, _ = pack_error(UnprintableError())
    assert (kind, reason, text) == ("UnprintableError", "ERROR", "its text cannot be printed: RuntimeError")
    assert pack_error(UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte"))[2] == "ERROR"
    assert error_text(LyingError()) == "its text cannot be printed: SystemExit"
    assert end_by_error(UnprintableError(), "")[2].startswith("UnprintableError: its text")


def interrupting(number: int, times: int) -> Callable[[Candidate], Iterator[Report]]:
    def sends(candidate: Candidate) -> Iterator[Report]:
        yield Report(0, costs(candidate.student))
        for _ in range(times):
            os.kill(os.getpid(), number)
        yield from list(evaluate(candidate))[1:]

    return sends


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_trial_that_goes_on_and_ends_with_its_own_code(number: signal.Signals, times: int) -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        ad.search(study, evaluate=interrupting(number, times), budget="4trials", progress=False, workers=1)
    code = caught.value.code if isinstance(caught.value, SystemExit) else 130
    assert code == 128 + number
    assert [(t.state, t.reason) for t in study.trials()] == [(State.PARTIAL, "INTERRUPTED")]


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        study = make_study()
        ad.search(study, evaluate=interrupting(signal.SIGHUP, 1), budget="2trials", progress=False, workers=1)
        assert study.spent.trials == 2
    finally:
        signal.signal(signal.SIGHUP, before)
