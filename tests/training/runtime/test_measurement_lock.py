"""The lock between processes that train and processes that measure; the other process is always a real one."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from places import ROOT

from autodistill.core.errors import ResourceError
from autodistill.training.runtime import measurement_lock

# A trainer that appends the time of every batch to a file, which shows whether it trained during a measurement.
TRAINER = """
import sys, time
from autodistill.training.runtime import measurement_lock
with open(sys.argv[1], "a", buffering=1) as log:
    while True:
        measurement_lock.yield_to_measurement()
        log.write(f"{time.monotonic()}\\n")
        time.sleep(0.005)
"""
HOLDER = """
import sys, time
from autodistill.training.runtime import measurement_lock
with measurement_lock.exclusive():
    print("quiet", flush=True)
    time.sleep(600)
"""
# A measurer that measures continuously and writes its number at the start of each measurement.
SURVEYOR = """
import os, sys, time
from autodistill.training.runtime import measurement_lock
with open(sys.argv[1], "a", buffering=1) as log:
    while True:
        with measurement_lock.exclusive() as alone:
            log.write(f"{sys.argv[2]} {time.monotonic()} {alone}\\n")
            time.sleep(0.2)
"""
# A trainer that stops waiting once a file exists. It prints the reports of its wait, and its end.
POLITE = """
import os, sys, time
from autodistill.training.runtime import measurement_lock
waited = []
def on_wait(what, seconds):
    waited.append(seconds)
    print(what, flush=True)
measurement_lock.NOTICE_SECONDS = 0.05
begin = time.monotonic()
measurement_lock.yield_to_measurement(waiting=measurement_lock.Waiting(lambda: os.path.exists(sys.argv[1]), on_wait))
seconds = time.monotonic() - begin
print("ended", sum(waited) / seconds, sep="\\n", flush=True)
with measurement_lock.exclusive(patience=60) as alone:
    print(alone, flush=True)
"""
STUCK = """
import time
from autodistill.training.runtime import measurement_lock
measurement_lock.yield_to_measurement()
print("training", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lock files of this test's own, for this process and those it starts."""
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "locks"))
    monkeypatch.setattr(measurement_lock, "_state", {})
    yield tmp_path
    measurement_lock.release()


@pytest.fixture
def start(folder: Path) -> Iterator[object]:
    running: list[subprocess.Popen[str]] = []

    def begin(code: str, *args: object) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, *map(str, args)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def batches(log: Path) -> list[float]:
    return [float(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_trainers_pause_during_a_measurement_and_then_continue(start, folder: Path) -> None:
    logs = [folder / "a", folder / "b"]
    for log in logs:
        start(TRAINER, log)
    wait_for(lambda: all(len(batches(log)) > 5 for log in logs))
    with measurement_lock.exclusive() as alone:
        begin = time.monotonic()
        time.sleep(0.3)
        end = time.monotonic()
    assert alone
    for log in logs:
        # a trainer logs a batch after it checked the lock: a check just before `begin` may be logged just after it
        assert not [moment for moment in batches(log) if begin + 0.1 < moment < end]
    wait_for(lambda: all(any(moment > end for moment in batches(log)) for log in logs))


def test_a_measurer_that_waits_is_not_starved_by_trainers_that_take_turns(start, folder: Path) -> None:
    logs = [folder / str(i) for i in range(3)]
    for log in logs:
        start(TRAINER, log)
    wait_for(lambda: all(len(batches(log)) > 5 for log in logs))
    for _ in range(5):
        begin = time.monotonic()
        with measurement_lock.exclusive() as alone:
            assert alone
        assert time.monotonic() - begin < 10


def test_a_killed_trainer_frees_the_machine(start) -> None:
    trainer = start(STUCK)
    assert trainer.stdout.readline() == "training\n"
    with measurement_lock.exclusive(patience=0.1) as alone:
        assert not alone
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    with measurement_lock.exclusive(patience=5) as alone:
        assert alone


def test_a_killed_measurer_frees_the_trainers(start, folder: Path) -> None:
    measurer = start(HOLDER)
    assert measurer.stdout.readline() == "quiet\n"
    start(TRAINER, folder / "log")
    time.sleep(1.0)
    assert batches(folder / "log") == []
    measurer.send_signal(signal.SIGKILL)
    wait_for(lambda: len(batches(folder / "log")) > 0)


def test_two_measurers_take_turns(start) -> None:
    measurer = start(HOLDER)
    assert measurer.stdout.readline() == "quiet\n"
    with measurement_lock.exclusive(patience=0.1) as alone:
        assert not alone
    measurer.kill()
    measurer.wait()
    with measurement_lock.exclusive(patience=5) as alone:
        assert alone


def test_a_measurer_that_gave_up_leaves_no_trace(start, folder: Path) -> None:
    start(TRAINER, folder / "log")
    stuck = start(STUCK)
    assert stuck.stdout.readline() == "training\n"
    wait_for(lambda: len(batches(folder / "log")) > 0)
    with measurement_lock.exclusive(patience=0.05) as alone:
        assert not alone
    end = time.monotonic()
    wait_for(lambda: any(moment > end for moment in batches(folder / "log")))


def test_a_process_that_released_the_lock_blocks_no_other_and_a_measuring_one_not_itself() -> None:
    measurement_lock.yield_to_measurement()
    with measurement_lock.exclusive(patience=1) as alone:
        assert alone
    measurement_lock.yield_to_measurement()
    measurement_lock.yield_to_measurement()
    measurement_lock.release()
    measurement_lock.release()
    with measurement_lock.exclusive(patience=1) as alone:
        assert alone


def test_yielding_to_no_measurement_takes_less_than_a_tenth_of_a_millisecond(record_property) -> None:
    measurement_lock.yield_to_measurement()
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        measurement_lock.yield_to_measurement()
        times.append(time.perf_counter() - begin)
    typical = sorted(times)[len(times) // 2] * 1e6
    record_property("microseconds", typical)
    print(f"breathe(): {typical:.1f} microseconds")
    assert typical < 100


def test_a_folder_that_is_no_folder_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 123_456)
    with pytest.raises(ResourceError, match="belongs to another user; set AUTODISTILL_LEASE"):
        measurement_lock.folder()


def test_a_link_in_the_folder_is_not_followed(folder: Path) -> None:
    place = measurement_lock.folder()
    victim = folder / "victim"
    victim.write_text("mine")
    (place / "intent").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        measurement_lock.yield_to_measurement()
    assert victim.read_text() == "mine"


def test_a_trainer_that_waits_names_the_process_and_ends_its_wait_when_it_is_asked_to_stop(start, folder: Path) -> None:
    measurer = start(HOLDER)
    assert measurer.stdout.readline() == "quiet\n"
    trainer = start(POLITE, folder / "stop")
    words = f"waiting for a latency measurement of process {measurer.pid}\n"
    assert [trainer.stdout.readline() for _ in range(3)] == [words] * 3
    (folder / "stop").touch()
    lines = list(iter(trainer.stdout.readline, "ended\n"))
    assert lines.pop() == "\n"  # the wait is over
    assert set(lines) <= {words}
    assert float(trainer.stdout.readline()) == pytest.approx(1.0, abs=0.1)  # the whole wait was reported
    measurer.kill()
    assert trainer.stdout.readline() == "True\n"  # it did not take the lock: the next measurer is alone


def test_a_training_goes_on_beside_a_measurement_that_does_not_end_and_says_so(
    start, caplog: pytest.LogCaptureFixture
) -> None:
    measurer = start(HOLDER)
    assert measurer.stdout.readline() == "quiet\n"
    waits: list[str] = []
    waiting = measurement_lock.Waiting(on_wait=lambda what, seconds: waits.append(what))
    measurement_lock.yield_to_measurement(patience=0.1, waiting=waiting)
    assert f"process {measurer.pid} has measured for more than" in caplog.text
    waits.clear()
    measurement_lock.yield_to_measurement(waiting=waiting)  # it does not wait again for the same measurement
    assert len(caplog.records) == 1
    measurer.kill()
    measurer.wait()
    measurement_lock.yield_to_measurement(waiting=waiting)
    with (measurement_lock.folder() / "work").open() as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the trainers' lock is held again


def test_two_measurers_that_measure_all_the_time_and_a_trainer_take_turns(start, folder: Path) -> None:
    log, turns = folder / "batches", folder / "turns"
    start(TRAINER, log)
    wait_for(lambda: len(batches(log)) > 5)
    for name in "ab":
        start(SURVEYOR, turns, name)

    def measured() -> list[tuple[str, float]]:
        lines = turns.read_text().splitlines() if turns.exists() else []
        return [(line.split()[0], float(line.split()[1])) for line in lines]

    wait_for(lambda: len({name for name, _ in measured()}) == 2 and len(measured()) >= 12)
    moments, trained = [moment for _, moment in measured()], batches(log)
    gaps = itertools.pairwise(moments)
    with_training = [any(start < moment < end for moment in trained) for start, end in gaps]
    assert sum(with_training) >= 0.7 * len(with_training)


def test_nothing_holds_up_the_next_measurement_where_no_trainer_waits(start, folder: Path) -> None:
    with measurement_lock.exclusive():
        pass
    assert (measurement_lock.folder() / "slice").exists() is False or not (
        measurement_lock.folder() / "slice"
    ).read_text()
    trainer = start(TRAINER, folder / "log")
    wait_for(lambda: len(batches(folder / "log")) > 5)
    with measurement_lock.exclusive() as alone:
        assert alone
        wait_for(lambda: not measurement_lock._free("waiting", ""))
    assert float((measurement_lock.folder() / "slice").read_text()) > 0
    trainer.kill()
    trainer.wait()
    measurement_lock._grant("", 30.0)
    with measurement_lock.exclusive(patience=0.0) as alone:  # the slice was for a trainer that is gone
        assert alone


def test_a_slice_of_a_clock_before_a_restart_of_the_machine_holds_nothing_up(start, folder: Path) -> None:
    start(TRAINER, folder / "log")
    wait_for(lambda: len(batches(folder / "log")) > 5)
    (measurement_lock.folder() / "slice").write_text(repr(time.monotonic() + 1e6))
    with measurement_lock.exclusive(patience=60) as alone:
        assert alone


def test_a_measurement_stops_trainings_on_its_own_device_alone(
    start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        measurement_lock, "_device_suffix", lambda device: f"-{device}" if device.startswith("cuda") else ""
    )
    measurement_lock.yield_to_measurement(["cuda:0"])
    start(TRAINER, folder / "log")
    wait_for(lambda: len(batches(folder / "log")) > 5)
    with (measurement_lock.folder() / "work-cuda:0").open() as trainer:
        fcntl.flock(trainer, fcntl.LOCK_SH)  # stands for a trainer of another process
        with measurement_lock.exclusive("cuda:1", patience=0.0) as alone:
            assert alone
            begin = time.monotonic()
            wait_for(lambda: any(moment > begin for moment in batches(folder / "log")))
        with measurement_lock.exclusive("cuda:0", patience=0.0) as alone:
            assert not alone


def test_a_gpu_is_known_by_its_identity_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {0: "GPU-b", 1: "GPU-a"}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid=shown[device.index])
    )
    measurement_lock._device_suffix.cache_clear()
    assert [measurement_lock._device_suffix(device) for device in ("cpu", "cuda:0", "cuda:1")] == [
        "",
        "-GPU-b",
        "-GPU-a",
    ]
    measurement_lock._device_suffix.cache_clear()
