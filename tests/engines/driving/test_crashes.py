"""Students that kill their workers, trainings that stand still, devices that break: the search goes on without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dying
import pytest
from dying import evaluate
from optuna.samplers import RandomSampler
from places import TESTS
from toys import make_study
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.core import registry
from autodistill.core.errors import UsageError, WorkerLostError
from autodistill.core.records import Candidate, Report, State
from autodistill.core.registry import Foreign, Registry, register_again
from autodistill.engines.driving import hangs, worker
from autodistill.engines.driving.hangs import Hangs, Pulse
from autodistill.engines.driving.lost_workers import ending, loss_of
from autodistill.engines.driving.slots import Slot
from autodistill.engines.driving.worker import Isolated, is_device_broken, same_for_all
from autodistill.engines.local import run
from autodistill.engines.monitor.watch import Snapshot, Watch
from autodistill.engines.setup.left_out import leave_out_crashed
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.crashes import GivenUp
from autodistill.search.study.study import Study
from autodistill.training.costs import crash_memory
from autodistill.training.costs.crash_memory import CrashMemory

pytestmark = pytest.mark.usefixtures("isolated")

SEGFAULT = "killed by signal 11 (SIGSEGV)"
WHOLE = Rungs(dying.LEVELS, stopping=False)


# -- the study's side, without processes ------------------------------------------------------------------------------


def taken(study: Study, width: int) -> Candidate:
    """The next candidate of this width; others are trained to the top on the way."""
    while True:
        candidate = study.ask()
        assert candidate is not None, study.ended
        if candidate.student["width"] == width:
            return candidate
        finish(study, candidate)


def finish(study: Study, candidate: Candidate) -> None:
    for report in evaluate(candidate):
        study.report(candidate, report)
    study.close(candidate)


def lose(study: Study, candidate: Candidate, error: WorkerLostError | None = None) -> tuple[State, str]:
    study.close(candidate, error or WorkerLostError(SEGFAULT), seconds=2.0)
    trial = study.trials()[candidate.number]
    return trial.state, trial.reason


def small_study(**keys: Any) -> Study:
    space = {"student": {"width": [4, 32]}, "train": {"lr": {"low": 0.1, "high": 1.0}}}
    return make_study(space=space, rungs=WHOLE, **keys)


@pytest.mark.parametrize("sampler", ["random", "front", "tpe"])
def test_a_student_is_tried_twice_and_never_proposed_again_whatever_the_recipe(sampler: str) -> None:
    study = small_study(sampler=sampler)
    with study.running("30trials"):
        first = taken(study, 32)
        assert lose(study, first) == (State.PARTIAL, "INTERRUPTED")
        again = study.ask()
        assert again is not None
        assert (again.number, again.student, again.train) == (first.number, first.student, first.train)
        assert lose(study, again) == (State.PRUNED, "CRASH")
        for _ in range(8):
            candidate = study.ask()
            assert candidate is not None
            assert candidate.student == {"width": 4}
            finish(study, candidate)
    trials = study.trials()
    said = trials[first.number].message
    assert said.startswith(f"width=32 lost its worker twice ({SEGFAULT}): it cannot be trained on this machine")
    assert study.spent.device_seconds >= 4.0  # both attempts were work
    assert all(t.reason == "CRASH" and t.message == said for t in trials if t.student == {"width": 32})


def test_a_student_that_was_given_up_stays_so_when_the_study_goes_on(tmp_path: Path) -> None:
    study = small_study(directory=tmp_path)
    with study.running("20trials"):
        finish(study, taken(study, 4))
        lose(study, taken(study, 32))
        lose(study, taken(study, 32))
    again = small_study(directory=tmp_path)
    with again.running("20trials"):
        assert again.is_forbidden({"width": 32})
        for _ in range(5):
            candidate = again.ask()
            assert candidate is not None
            assert candidate.student == {"width": 4}
            finish(again, candidate)


def test_where_nothing_was_ever_trained_students_are_tried_again_when_the_study_goes_on(tmp_path: Path) -> None:
    study = small_study(directory=tmp_path)
    with study.running("20trials"):
        study.enqueue({"student": {"width": 32}, "distillation": {}, "train": {"lr": 0.5}})
        lose(study, taken(study, 32))
        lose(study, taken(study, 32))
        assert study.is_forbidden({"width": 32})
    again = small_study(directory=tmp_path)
    with again.running("20trials"):
        assert not again.is_forbidden({"width": 32})


def test_trials_that_wait_with_a_student_end_with_it() -> None:
    study = small_study()
    with study.running("20trials"):
        one, two = taken(study, 32), taken(study, 32)
        assert lose(study, one) == (State.PARTIAL, "INTERRUPTED")
        assert lose(study, two) == (State.PRUNED, "CRASH")
        assert study.trials()[one.number].reason == "CRASH"
        candidate = study.ask()
        assert candidate is not None
        assert candidate.student == {"width": 4}


def test_a_worker_that_the_system_killed_fails_its_trial_and_not_its_student() -> None:
    study = small_study()
    with study.running("20trials"):
        for _ in range(3):
            candidate = taken(study, 32)
            assert lose(study, candidate, loss_of(-9)) == (State.FAIL, "WORKER_LOST")
        assert study.trials()[candidate.number].message.endswith("(SIGKILL); out of memory is the usual cause")
        for _ in range(6):  # equal failures of one student alone do not end the search
            assert lose(study, taken(study, 32), loss_of(-9)) == (State.FAIL, "WORKER_LOST")


def test_a_crash_is_remembered_beyond_the_study_once_another_student_has_trained() -> None:
    study, seen = small_study(), list[GivenUp]()
    study.on_crash = seen.append
    with study.running("20trials"):
        study.enqueue({"student": {"width": 32}, "distillation": {}, "train": {"lr": 0.5}})
        lose(study, taken(study, 32))
        lose(study, taken(study, 32))
        assert seen == []  # a machine that can train nothing says nothing of its students
        finish(study, taken(study, 4))
        finish(study, taken(study, 4))
    assert [(one.student, one.how) for one in seen] == [({"width": 32}, SEGFAULT)]


def test_a_training_that_stands_still_is_begun_again_twice_and_then_fails() -> None:
    study = small_study()
    hung = WorkerLostError("no progress for 6m, where 1s are usual", "HUNG")
    with study.running("20trials"):
        first = taken(study, 32)
        assert lose(study, first, hung) == (State.PARTIAL, "INTERRUPTED")
        assert lose(study, taken(study, 32), hung) == (State.PARTIAL, "INTERRUPTED")
        assert lose(study, taken(study, 32), hung) == (State.FAIL, "HUNG")
        assert "width=32 stood still three times" in study.trials()[first.number].message
        assert study.is_forbidden({"width": 32})


# -- processes ---------------------------------------------------------------------------------------------------------


def drive(study: Study, factory: Any, workers: int, budget: str) -> list[str]:
    """Run a study whose only worker is isolated too; returns what was said of workers."""
    said: list[str] = []

    def listen(snapshot: Snapshot) -> None:
        if snapshot.stage == "worker":
            said.append(snapshot.message)

    with study.running(budget):
        run(study, factory, [Slot(i) for i in range(workers)], Watch(listen, study))
    return said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_goes_on_after_a_student_that_kills_its_workers(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "attempts"
    monkeypatch.setenv("TOY_LOG", str(log))
    study = make_study(space={"student": {"width": [4, 32]}, "train": {"lr": {"low": 0.1, "high": 1.0}}}, rungs=None)
    said = drive(study, Isolated(same_for_all, dying.segfaults_at_32), workers, "14trials")
    assert study.ended == "budget of 14 trials is spent"
    attempts = log.read_text().splitlines()
    assert 2 <= len(attempts) <= 1 + workers  # another worker may have begun the same student meanwhile
    assert said[0] == f"#{attempts[0]} width=32: {SEGFAULT}; another worker takes its place"
    by_reason = {t.reason for t in study.trials() if t.student["width"] == 32}
    assert by_reason == {"CRASH"}
    assert any(t.state is State.COMPLETE for t in study.trials())


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_whose_every_student_kills_its_worker_names_different_students(workers: int) -> None:
    with pytest.raises(UsageError) as told:
        drive(make_study(sampler=RandomSampler(0)), Isolated(same_for_all, dying.always_segfaults), workers, "40trials")
    count = {1: 5, 2: 6}[workers]
    assert str(told.value).startswith(f"{count} different students lost their workers in a row, and no evaluation ")
    assert len({word for word in str(told.value).split() if word.startswith("width=")}) == count
    assert str(told.value).count(SEGFAULT) == count


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_that_stands_still_is_ended_and_the_search_goes_on(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangs, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(hangs, "MANY", 2.0)
    monkeypatch.setattr(worker, "_PROGRESS_SECONDS", 0.0)
    space = {"student": {"width": [4, 32]}, "train": {"lr": [0.1, 0.2, 0.3]}}
    study = make_study(space=space, rungs=WHOLE)
    study.enqueue({"student": {"width": 4}, "distillation": {}, "train": {"lr": 0.1}})
    drive(study, Isolated(dying.stands_still_at_32), workers, "4trials")
    trials = study.trials()
    hung = [t for t in trials if t.student["width"] == 32]
    assert {t.reason for t in hung} <= {"HUNG", "CRASH", "DUPLICATE"}
    assert [t.state for t in hung if t.reason == "HUNG"][:1] == [State.FAIL]
    assert "no progress for " in next(t.message for t in hung if t.reason == "HUNG")
    assert sum(t.state is State.COMPLETE for t in trials) >= 2


def test_a_broken_device_costs_one_trial_and_its_process() -> None:
    study = make_study(rungs=WHOLE)
    said = drive(study, Isolated(same_for_all, dying.breaks_its_device), 1, "7trials")
    failed = [t for t in study.trials() if t.state is State.FAIL]
    assert [(t.number, t.reason) for t in failed] == [(2, "ERROR")]
    assert sum(t.state is State.COMPLETE for t in study.trials()) == 6
    assert said == []


def test_errors_that_leave_a_cuda_context_broken_are_known() -> None:
    assert is_device_broken(RuntimeError("CUDA error: device-side assert triggered\nCompile with ..."))
    wrapped = RuntimeError("a helper of this training failed")
    wrapped.__cause__ = RuntimeError("CUDA error: uncorrectable ECC error encountered")
    assert is_device_broken(wrapped)
    assert not is_device_broken(RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"))
    assert not is_device_broken(ValueError("misaligned address"))


def test_sys_exit_in_the_only_worker_fails_its_trial() -> None:
    study = make_study()
    ad.search(study, evaluate=dying.quits_at_first, budget="3trials", workers=1, progress=False)
    assert (study.trials()[0].state, study.trials()[0].message) == (State.FAIL, "SystemExit: 3")


UNGUARDED = """
import dying, toys
from autodistill.engines.local import run
from autodistill.engines.driving.slots import Slot
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.driving.worker import Isolated, same_for_all
print("the script runs")
study = toys.make_study()
with study.running("14trials"):
    run(study, Isolated(same_for_all, dying.segfaults_at_32), [Slot(0)], Watch())
print(study.ended)
"""


def test_the_only_worker_does_not_run_an_unguarded_script_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{UNGUARDED}")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["the script runs", "budget of 14 trials is spent"]


def test_what_the_script_itself_registers_keeps_the_only_worker_in_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    local = sys.modules[run.__module__]
    monkeypatch.setattr(local, "foreign", lambda: (Foreign("__main__", "autodistill.families", "mine"),))
    study, seen = make_study(), list[int]()

    def here(candidate: Candidate) -> Iterator[Report]:
        seen.append(os.getpid())
        yield from evaluate(candidate)

    said = drive(study, Isolated(same_for_all, here), 1, "2trials")
    assert set(seen) == {os.getpid()}
    assert said == [
        "trains in this process, so a crash would end the search: the script itself registers mine; register them in "
        "a module it imports"
    ]


def test_names_are_registered_again_by_importing_what_registered_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_foreign", "_registries"):
        monkeypatch.setattr(registry, name, {})
    names: Registry[int] = Registry("toy name", "autodistill.toy_names")
    (tmp_path / "registers_a_toy.py").write_text(
        "from autodistill.core import registry\nregistry._registries['autodistill.toy_names'].register('new')(1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    one = Foreign("registers_a_toy", "autodistill.toy_names", "new")
    assert register_again([one]) == ""
    assert names.get("new") == 1
    assert register_again([one._replace(name="other")]) == "'other' is not registered by importing registers_a_toy"
    assert "no_such_module cannot be imported" in register_again([one._replace(module="no_such_module")])


# -- words and clocks -------------------------------------------------------------------------------------------------


def test_endings_are_said_with_the_name_of_the_signal() -> None:
    assert ending(-11) == SEGFAULT
    assert ending(7) == "ended with exit code 7"
    assert [loss_of(code).by_student for code in (-11, -6, 7, -9, -15)] == [True, True, True, False, False]


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(hangs, "time", made)
    return made


def begun(judge: Hangs, clock: Clock, *, first: float = 4.0, step: float = 20.0) -> Pulse:
    pulse = Pulse()
    pulse.begin()
    clock.now += first
    for _ in range(7):
        judge.beat(pulse)
        clock.now += step
    judge.beat(pulse)
    return pulse


def test_a_training_hangs_after_thirty_times_its_own_batch_time_and_five_minutes(clock: Clock) -> None:
    judge = Hangs()
    slow, quick = begun(judge, clock, step=20.0), begun(judge, clock, step=1.0)
    clock.now += 299
    assert judge.verdict(quick) == judge.verdict(slow) == ""
    clock.now += 2
    assert judge.verdict(quick) == "no progress for 5m 1s; usual are 1s"
    clock.now += 600 - 7 - 4 - 301  # what the quick one took on the way counts for the slow one
    assert judge.verdict(slow) == ""
    clock.now += 20
    assert judge.verdict(slow).endswith("usual are 20s")


def test_evaluating_waiting_and_the_first_start_of_all_are_no_hangs(clock: Clock) -> None:
    judge, first = Hangs(), Pulse()
    first.begin()
    clock.now += 10_000
    assert judge.verdict(first) == ""
    pulse = begun(judge, clock)
    pulse.rest()
    clock.now += 10_000
    assert judge.verdict(pulse) == ""
    fresh = Pulse()
    clock.now += 10_000
    assert judge.verdict(fresh) == ""  # its known costs are being measured
    waiting = begun(judge, clock)
    clock.now += 10_000
    waiting.excuse()  # its worker says that it waits for a measurement
    assert judge.verdict(waiting) == ""


def test_a_first_batch_hangs_if_it_takes_much_longer_than_the_slowest_start(clock: Clock) -> None:
    judge = Hangs()
    begun(judge, clock, first=12.0)
    stuck = Pulse()
    stuck.begin()
    clock.now += 359
    assert judge.verdict(stuck) == ""
    clock.now += 2
    assert judge.verdict(stuck) == "no progress for 6m 1s; usual are 12s"


# -- the whole of it, with networks ------------------------------------------------------------------------------------


def dying_study(directory: Path) -> Study:
    import dying_family  # noqa: F401  registers it, here and in the worker

    small = {"family": "resnet", "width": 4, "depth": 1}
    return ad.Study.create(
        data={"source": "digits", "train_size": 100},
        teacher={"source": "auto", "accept_weak": True, "options": {"epochs": 1, "model": small}},
        space={
            "student": {"family": "dying_toy", "width": [4, 8]},
            "distillation": {"loss": "none"},
            "train": {"lr": {"low": 0.01, "high": 0.02}, "batch_size": 50},
        },
        objectives=["accuracy", "params"],
        epochs=1,
        directory=directory,
    )


class Images:
    """What is asked of the images of a study."""

    image_size, channels = 96, 3


def left_out(study: Study) -> list[str]:
    """What is said when the study leaves out what crashed before."""
    said: list[str] = []
    leave_out_crashed(study, Images(), Watch(lambda snapshot: said.append(snapshot.message)), "cpu")  # type: ignore[arg-type]
    return said


def test_what_crashed_is_left_out_of_the_next_study_until_it_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path))
    first = small_study()
    assert left_out(first) == []
    first.on_crash(GivenUp({"width": 32}, SEGFAULT, "width=32 lost its worker twice"))
    first.on_crash(GivenUp({"width": 999}, SEGFAULT, "of another space"))
    second = small_study()
    with second.running("20trials"):
        assert left_out(second) == [
            f"1 student left out, after crashes on this machine: width=32 ({SEGFAULT}); "
            "'autodistill cache rm crashes' clears the list"
        ]
        assert second.is_forbidden({"width": 32})
        for _ in range(5):
            candidate = second.ask()
            assert candidate is not None
            assert candidate.student == {"width": 4}
            finish(second, candidate)
    listed = CliRunner().invoke(app, ["cache", "ls", "--json"], catch_exceptions=False)
    assert f"width=32 ({SEGFAULT})" in listed.output
    assert CliRunner().invoke(app, ["cache", "rm", "crashes"], catch_exceptions=False).exit_code == 0
    assert left_out(small_study()) == []


def test_a_crash_is_remembered_for_its_image_shape_device_and_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(size: int = 96, device: str = "cpu") -> CrashMemory:
        return CrashMemory(tmp_path, image_size=size, channels=3, device=device)

    student = {"family": "resnet", "width": 8, "depth": 1}
    memory().put(student, SEGFAULT)
    memory().put({**student, "width": 16}, "killed by signal 6 (SIGABRT)")
    assert [(one.student, one.how) for one in memory().known()] == [
        (student, SEGFAULT),
        ({**student, "width": 16}, "killed by signal 6 (SIGABRT)"),
    ]
    assert memory(size=64).known() == []
    assert memory(device="cuda:0").known() == []
    monkeypatch.setattr(crash_memory, "version_of", lambda name: "99.9")
    assert memory().known() == []


@pytest.mark.slow
def test_a_network_that_crashes_is_left_out_of_the_next_study_until_it_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    first = dying_study(tmp_path / "first")
    first.enqueue({"student": {"width": 8}, "distillation": {}, "train": {"lr": 0.01}})
    ad.search(first, budget="2trials", progress=False)
    trials = first.trials()
    assert [t.reason for t in trials if t.student["width"] == 8] == ["CRASH"]
    assert f"dying_toy width=8 lost its worker twice ({SEGFAULT})" in trials[0].message
    assert sum(t.state is State.COMPLETE for t in trials) == 2

    second = dying_study(tmp_path / "second")
    ad.search(second, budget="3trials", progress=lambda snapshot: said.append(snapshot.message))
    assert {t.student["width"] for t in second.trials()} == {4}
    left_out = [text for text in said if "left out" in text]
    assert left_out == [
        f"1 student left out, after crashes on this machine: dying_toy width=8 ({SEGFAULT}); "
        "'autodistill cache rm crashes' clears the list"
    ]
    assert "1 students measured" in " ".join(said)

    def command(*words: str) -> str:
        return CliRunner().invoke(app, list(words), catch_exceptions=False).output

    assert f"dying_toy width=8 ({SEGFAULT})" in command("cache", "ls", "--json")
    assert "cleared the list of students" in command("cache", "rm", "crashes")
    assert "dying_toy" not in command("cache", "ls", "--json")
