"""A study against a small reference, through any sequence of ask, report, error, crash and resume."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from toys import LEVELS, accuracy, costs, make_study

from autodistill.core.errors import DivergedError, InterruptedTrialError, WorkerLostError
from autodistill.core.records import Candidate, Decision, Report, State
from autodistill.search.rungs.levels import Rungs
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import MAX_ATTEMPTS, Study

ENDED = (State.COMPLETE, State.PRUNED, State.FAIL)


class StudyMachine(RuleBasedStateMachine):
    """What a study has to remember: ended trials for ever, and the rungs of open ones."""

    in_file = False

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.storage = None if self.in_file else store.open_storage(None)
        self.ended: dict[int, State] = {}
        self.rungs: dict[int, int] = {}
        self.open: dict[int, Candidate] = {}
        self.stopped: set[int] = set()
        self.counted = 0
        self.attempts: dict[int, int] = {}

    @initialize()
    def start(self) -> None:
        self._open()

    def _open(self) -> None:
        folder = Path(self.scratch.name) if self.in_file else None
        self.study: Study = make_study(folder, rungs=Rungs(LEVELS, stopping=False), storage=self.storage)
        self.run = self.study.running("1000trials")
        self.run.__enter__()

    def teardown(self) -> None:
        self.scratch.cleanup()

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def ask(self) -> None:
        candidate = self.study.ask()
        assert candidate is not None
        number = candidate.number
        assert number not in self.ended
        assert number not in self.open
        assert candidate.start_rung == self.rungs.get(number, 0)
        self.open[number] = candidate
        self.rungs.setdefault(number, 0)
        refused = {t.number: t.state for t in self.study.trials() if t.reason == "DUPLICATE"}
        self.ended |= refused

    @precondition(lambda self: self.open.keys() - self.stopped)
    @rule(which=st.integers(0, 2))
    def report(self, which: int) -> None:
        number = self._pick(which)
        candidate, rung = self.open[number], self.rungs[number] + 1
        known = costs(candidate.student)
        if rung == 1:
            self.study.report(candidate, Report(0, known))
        epochs = LEVELS[rung - 1]
        values = {"accuracy": accuracy(candidate, epochs), **known}
        decision = self.study.report(candidate, Report(rung, values, float(epochs), 0.01 * rung))
        self.rungs[number] = rung
        self.attempts[number] = 0
        if rung == len(LEVELS):
            assert decision is Decision.STOP
            self.stopped.add(number)
        else:
            assert decision is Decision.CONTINUE

    @precondition(lambda self: self.stopped)
    @rule()
    def close(self) -> None:
        number = min(self.stopped)
        assert self.study.close(self.open.pop(number)) is State.COMPLETE
        self.stopped.discard(number)
        self.ended[number] = State.COMPLETE
        self.counted += 1

    @precondition(lambda self: self.open.keys() - self.stopped)
    @rule(which=st.integers(0, 2))
    def fail(self, which: int) -> None:
        number = self._pick(which)
        assert self.study.close(self.open.pop(number), DivergedError(f"trial {number}")) is State.FAIL
        self.ended[number] = State.FAIL
        self.counted += 1

    @precondition(lambda self: self.open.keys() - self.stopped)
    @rule(which=st.integers(0, 2), lost=st.booleans())
    def interrupt(self, which: int, lost: bool) -> None:
        number = self._pick(which)
        error = WorkerLostError("killed", by_student=False) if lost else InterruptedTrialError("asked to stop")
        state = self.study.close(self.open.pop(number), error)
        if lost:
            assert state is State.FAIL
            self.ended[number] = State.FAIL
            self.counted += 1
        else:
            assert state is State.PARTIAL

    @rule()
    def crash(self) -> None:
        """The driver is gone; nothing is closed. Trials at the top are COMPLETE, the others go on."""
        self._end_run(crashed=True)
        self._open()

    @rule()
    def stop_and_resume(self) -> None:
        for number in list(self.open):
            if number not in self.stopped:
                self.study.close(self.open.pop(number), InterruptedTrialError("asked to stop"))
        self._end_run(crashed=False)
        self._open()

    def _end_run(self, *, crashed: bool) -> None:
        if not crashed:
            self.run.__exit__(None, None, None)
        for number in list(self.open):
            if number in self.stopped:
                self.ended[number] = State.COMPLETE
                self.counted += 1
            else:
                self.attempts[number] = self.attempts.get(number, 1) + 1
                if self.attempts[number] > MAX_ATTEMPTS:
                    self.ended[number] = State.FAIL
                    self.counted += 1
        self.open, self.stopped = {}, set()

    def _pick(self, which: int) -> int:
        running = sorted(self.open.keys() - self.stopped)
        return running[which % len(running)]

    @invariant()
    def everything_is_as_the_reference_says(self) -> None:
        if not hasattr(self, "study"):
            return
        trials = {t.number: t for t in self.study.trials()}
        assert sorted(trials) == list(range(len(trials)))
        assert {n: t.state for n, t in trials.items() if t.state in ENDED} == self.ended
        for number, rung in self.rungs.items():
            assert max(trials[number].rungs, default=0) == rung
        assert all(t.reason and t.message for t in trials.values() if t.state in (State.FAIL, State.PRUNED))
        assert self.study.spent.trials == self.counted
        assert self.study.spent.epochs == sum(LEVELS[rung - 1] for rung in self.rungs.values() if rung)


class FileMachine(StudyMachine):
    """The same in an SQLite file."""

    in_file = True


ANY_SPEED = {"deadline": None, "suppress_health_check": list(HealthCheck)}
StudyMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, **ANY_SPEED)
FileMachine.TestCase.settings = settings(max_examples=5, stateful_step_count=30, **ANY_SPEED)


class TestStudyAgainstAReference(StudyMachine.TestCase):  # type: ignore[misc, name-defined]
    """Run by hypothesis, in memory."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
class TestStudyFileAgainstAReference(FileMachine.TestCase):  # type: ignore[misc, name-defined]
    """Run by hypothesis, in a file."""
