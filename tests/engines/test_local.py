"""Engine ``local``: how it stops, and which errors are a trial's."""

from __future__ import annotations

import errno
import functools
import inspect
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from places import TESTS
from toys import LEVELS, evaluate, evaluate_and_hang, evaluate_and_interrupt, evaluate_or_hang, make_study

import autodistill as ad
from autodistill.core.errors import ResourceError, UnknownNameError
from autodistill.core.records import Candidate, Decision, Evaluate, Report, State, WorkerContext
from autodistill.engines import check_keywords, engines
from autodistill.engines.driving import worker
from autodistill.engines.driving.slots import Slot
from autodistill.engines.driving.worker import same_for_all
from autodistill.engines.local import _Pool, run
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.ray.options import RayOptions
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.study import Study

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_ctrl_c_stops_a_trial_at_its_next_rung_whatever_evaluates_it(workers: int) -> None:
    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    with pytest.raises(KeyboardInterrupt):
        ad.search(study, evaluate=evaluate_and_interrupt, budget="50trials", workers=workers)
    first = study.trials()[0]
    assert (first.state, first.reason, list(first.rungs)) == (State.PARTIAL, "INTERRUPTED", [0, 1])
    ad.search(study, evaluate=evaluate, budget=f"{study.spent.trials + 1}trials", workers=1)
    assert (study.trials()[0].state, list(study.trials()[0].rungs)) == (State.COMPLETE, [0, 1, 2, 3])


def test_the_second_ctrl_c_ends_all_workers_within_one_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[float] = []
    end = _Pool._end_workers

    def timed(pool: _Pool, grace: float) -> None:
        started = time.monotonic()
        end(pool, grace)
        ended.append(time.monotonic() - started)

    monkeypatch.setattr(sys.modules[_Pool.__module__], "_HURRY_SECONDS", 0.5)
    monkeypatch.setattr(_Pool, "_end_workers", timed)
    study = make_study()
    with pytest.raises(KeyboardInterrupt):
        ad.search(study, evaluate=evaluate_and_hang, budget="50trials", workers=2)
    assert len(ended) == 1
    assert ended[0] < 5
    assert multiprocessing.active_children() == []
    assert {(t.state, t.reason) for t in study.trials()} == {(State.PARTIAL, "INTERRUPTED")}


def test_a_deadline_ends_a_pool_one_of_whose_evaluations_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[_Pool.__module__], "_GRACE_SECONDS", 0.5)
    study, watch = make_study(rungs=Rungs(LEVELS, stopping=False)), Watch()

    def over() -> bool:
        trials = study.trials()
        return State.COMPLETE in {t.state for t in trials} and 1 in trials[0].rungs

    watch.until(over)
    with study.running("50trials"):
        run(study, functools.partial(same_for_all, evaluate_or_hang), [Slot(0), Slot(1)], watch)
    assert multiprocessing.active_children() == []
    hung = study.trials()[0]
    assert (hung.state, hung.reason, list(hung.rungs)) == (State.PARTIAL, "INTERRUPTED", [0, 1])
    ad.search(study, evaluate=evaluate, budget=f"{study.spent.trials + 1}trials", workers=1, progress=False)
    assert (study.trials()[0].state, list(study.trials()[0].rungs)) == (State.COMPLETE, [0, 1, 2, 3])


def test_a_worker_that_waits_for_a_decision_gets_the_request_to_quit() -> None:
    driver, pipe = multiprocessing.Pipe()
    closed: list[bool] = []

    def reports(candidate: Candidate) -> Iterator[Report]:
        try:
            yield from evaluate(candidate)
        finally:
            closed.append(True)

    driver.send(("decision", Decision.CONTINUE))
    driver.send(("quit",))
    candidate = Candidate(0, {"width": 4}, {}, {"lr": 0.1}, 0)
    assert not worker._run(pipe, reports, candidate)
    assert closed == [True]
    assert [driver.recv()[1].rung for _ in range(2)] == [0, 1]
    assert not driver.poll()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_study_ends_the_search_and_no_trial(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    report, seen = Study.report, []

    def failing(study: Study, candidate: Candidate, found: Report, **told: float) -> Decision:
        seen.append(candidate.number)
        if len(seen) == 3:
            raise FULL
        return report(study, candidate, found, **told)

    monkeypatch.setattr(Study, "report", failing)
    study = make_study()
    with pytest.raises(ResourceError, match="No space left on device") as said:
        ad.search(study, evaluate=evaluate, budget="6trials", workers=workers)
    assert said.value.exit_code == 5
    assert multiprocessing.active_children() == []
    hit = study.trials()[seen[2]]
    assert (hit.state, hit.reason) == (State.PARTIAL, "INTERRUPTED")
    assert all(t.state is not State.FAIL for t in study.trials())


@pytest.mark.parametrize("returned", [None, Report(1, {"accuracy": 0.5})])
def test_an_evaluation_that_is_no_generator_fails_its_trial(returned: Any) -> None:
    study = make_study()
    ad.search(study, evaluate=lambda candidate: returned, budget="1trials", workers=1)
    (trial,) = study.trials()
    assert (trial.state, trial.reason) == (State.FAIL, "ERROR")
    shown = repr(returned)[:100]
    assert trial.message.startswith(f"TypeError: the evaluation returned {shown}. It must be a generator")


def test_an_unknown_keyword_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    study = ad.Study.create(data="digits", space="digits", directory=tmp_path / "study")
    with pytest.raises(UnknownNameError) as told:
        ad.search(study, budget="1trials", worker=2)
    assert str(told.value) == (
        "unknown keyword of search 'worker'; did you mean 'workers'? "
        "Allowed: budget, costs, engine, evaluate, progress, workers. The engine is 'local'."
    )
    assert not (tmp_path / "study" / "teacher").exists()
    assert study.spent.seconds == 0
    with pytest.raises(UnknownNameError, match="did you mean 'address'"):
        check_keywords("ray", ["address", "adress"], ad.verify)


def test_the_keywords_of_the_ray_engine_are_the_fields_of_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = engines.get("ray")
    assert inspect.ismodule(ad.engines.ray)  # no function of that name hides the package
    parameters = list(inspect.signature(ray).parameters.values())
    assert [one.name for one in parameters[4:]] == [one.name for one in fields(RayOptions)]
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters[4:])
    given: list[Any] = []
    monkeypatch.setattr("autodistill.engines.ray.engine.run", lambda *arguments: given.append(arguments))
    ray(1, 2, 3, 4, address="auto", gpus_per_worker=0.5)
    assert given == [(1, 2, 3, 4, RayOptions(address="auto", gpus_per_worker=0.5))]


UNGUARDED = """
from toys import evaluate, make_study

import autodistill as ad
ad.search(make_study(), evaluate=evaluate, budget="4trials", workers=2, progress=False)
"""


def test_a_script_without_a_main_guard_is_refused_with_advice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{UNGUARDED}")
    ran = subprocess.run([sys.executable, str(script)], stderr=subprocess.PIPE, text=True, timeout=120)
    assert ran.returncode == 1
    *said, last = ran.stderr.splitlines()
    guard = "put the code it runs below \"if __name__ == '__main__':\"."
    assert last.startswith("autodistill.core.errors.UsageError: worker ")
    assert "ended with exit code 1 before it was ready" in last
    assert guard in last
    assert ran.stderr.count("Traceback") == 1
    assert (
        1
        <= sum(line.startswith("autodistill: a worker's import of the script started a search. ") for line in said)
        <= 2
    )


def test_an_error_while_the_study_is_ended_does_not_hide_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*args: Any, **told: float) -> Decision:
        raise FULL

    def failing_too(*args: Any) -> State:
        raise ValueError("the second")

    monkeypatch.setattr(Study, "report", failing)
    monkeypatch.setattr(Study, "close", failing_too)
    with pytest.raises(ResourceError, match="No space left on device"):
        ad.search(make_study(), evaluate=evaluate, budget="6trials", workers=1)


def test_the_same_error_of_an_evaluation_fails_its_trial() -> None:
    def full_at_first(candidate: Candidate) -> Iterator[Report]:
        if candidate.number == 0:
            raise FULL
        yield from evaluate(candidate)

    study = make_study()
    ad.search(study, evaluate=full_at_first, budget="3trials", workers=1)
    first, *others = study.trials()
    assert (first.state, first.reason) == (State.FAIL, "ERROR")
    assert "No space left on device" in first.message
    assert all(t.state is not State.FAIL for t in others)


def test_an_error_of_a_progress_function_is_no_error_of_the_training() -> None:
    def factory(context: WorkerContext) -> Evaluate:
        def training(candidate: Candidate) -> Iterator[Report]:
            for report in evaluate(candidate):
                context.progress(report.epochs, LEVELS[-1], {})
                yield report

        return training

    class Broken(Watch):
        def progress(self, *args: object) -> None:
            raise ValueError("a bug of the progress")

    study = make_study()
    with study.running("2trials"), pytest.raises(ValueError, match="a bug of the progress"):
        run(study, factory, [Slot(0)], Broken())
    assert [(t.state, t.reason) for t in study.trials()] == [(State.PARTIAL, "INTERRUPTED")]
