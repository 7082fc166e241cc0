"""The lease between processes that train and processes that measure. Every other side is a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodistill.errors import ResourceError
from autodistill.training import lease

ROOT = Path(__file__).resolve().parent.parent
# A trainer appends the time of every batch to a file: what it did while somebody measured can be read from it.
TRAINER = """
import sys, time
from autodistill.training import lease
with open(sys.argv[1], "a", buffering=1) as log:
    while True:
        lease.breathe()
        log.write(f"{time.monotonic()}\\n")
        time.sleep(0.005)
"""
HOLDER = """
import sys, time
from autodistill.training import lease
with lease.quiet():
    print("quiet", flush=True)
    time.sleep(600)
"""
STUCK = """
import time
from autodistill.training import lease
lease.breathe()
print("training", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lease of this test's own, in this process and in those it starts."""
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    monkeypatch.setattr(lease, "_state", {})
    yield tmp_path
    lease.rest()


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


def test_trainers_pause_while_somebody_measures_and_then_go_on(start, folder: Path) -> None:
    logs = [folder / "a", folder / "b"]
    for log in logs:
        start(TRAINER, log)
    wait_for(lambda: all(len(batches(log)) > 5 for log in logs))
    with lease.quiet() as alone:
        begin = time.monotonic()
        time.sleep(0.3)
        end = time.monotonic()
    assert alone
    for log in logs:
        # a trainer notes its batch after it asked; one that asked just before may note it just after
        assert not [moment for moment in batches(log) if begin + 0.1 < moment < end]
    wait_for(lambda: all(any(moment > end for moment in batches(log)) for log in logs))


def test_a_measurer_that_waits_is_not_starved_by_trainers_that_take_turns(start, folder: Path) -> None:
    logs = [folder / str(i) for i in range(3)]
    for log in logs:
        start(TRAINER, log)
    wait_for(lambda: all(len(batches(log)) > 5 for log in logs))
    for _ in range(5):
        begin = time.monotonic()
        with lease.quiet() as alone:
            assert alone
        assert time.monotonic() - begin < 10


def test_a_killed_trainer_frees_the_machine(start) -> None:
    trainer = start(STUCK)
    assert trainer.stdout.readline() == "training\n"
    with lease.quiet(patience=0.1) as alone:
        assert not alone
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    with lease.quiet(patience=5) as alone:
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
    with lease.quiet(patience=0.1) as alone:
        assert not alone
    measurer.kill()
    measurer.wait()
    with lease.quiet(patience=5) as alone:
        assert alone


def test_a_measurer_that_gave_up_leaves_no_trace(start, folder: Path) -> None:
    start(TRAINER, folder / "log")
    stuck = start(STUCK)
    assert stuck.stdout.readline() == "training\n"
    wait_for(lambda: len(batches(folder / "log")) > 0)
    with lease.quiet(patience=0.05) as alone:
        assert not alone
    end = time.monotonic()
    wait_for(lambda: any(moment > end for moment in batches(folder / "log")))


def test_a_process_that_rests_holds_nobody_up_and_one_that_measures_does_not_block_itself() -> None:
    lease.breathe()
    with lease.quiet(patience=1) as alone:
        assert alone
    lease.breathe()
    lease.breathe()
    lease.rest()
    lease.rest()
    with lease.quiet(patience=1) as alone:
        assert alone


def test_breathing_costs_less_than_a_tenth_of_a_millisecond(record_property) -> None:
    lease.breathe()
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        lease.breathe()
        times.append(time.perf_counter() - begin)
    typical = sorted(times)[len(times) // 2] * 1e6
    record_property("microseconds", typical)
    print(f"breathe(): {typical:.1f} microseconds")
    assert typical < 100


def test_a_folder_that_is_no_folder_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 123_456)
    with pytest.raises(ResourceError, match="belongs to another user; set AUTODISTILL_LEASE"):
        lease.folder()


def test_a_link_in_the_folder_is_not_followed(folder: Path) -> None:
    place = lease.folder()
    victim = folder / "victim"
    victim.write_text("mine")
    (place / "intent").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        lease.breathe()
    assert victim.read_text() == "mine"
