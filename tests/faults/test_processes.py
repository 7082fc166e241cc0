"""Signals, second drivers, clocks, hangs and closed streams: what a search does as a process among others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT, TESTS
from toys import LEVELS, costs, evaluate, make_study

import autodistill as ad
from autodistill.core.records import Candidate, Report, State
from autodistill.core.scratch import ScratchFolder, remove_orphans
from autodistill.search.rungs.levels import Rungs

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from toys import LEVELS, {evaluate}, make_study
from autodistill.search.rungs.levels import Rungs
import autodistill as ad
if __name__ == "__main__":
    study = make_study(Path(sys.argv[1]), rungs={rungs})
    ad.search(study, evaluate={evaluate}, budget=sys.argv[2], workers=int(sys.argv[3]))
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


def start(
    folder: Path,
    budget: str,
    workers: int,
    evaluate: str = "evaluate_slowly",
    rungs: str = "Rungs(LEVELS)",
    **environment: str,
) -> subprocess.Popen[bytes]:
    """Start a search in a group of its own."""
    script = folder.parent / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), tests=str(TESTS), evaluate=evaluate, rungs=rungs))
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), budget, str(workers)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def rungs_in(folder: Path) -> int:
    """Number of reports in a study that another process writes."""
    query = "SELECT count(*) FROM trial_user_attributes WHERE key LIKE 'rung:%'"
    address = f"file:{folder / 'study.db'}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # no file or no tables yet
        return 0


def wait_for_rungs(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 100
    while rungs_in(folder) < count:
        assert time.monotonic() < deadline, "the search did not get going"
        time.sleep(0.05)


def group_members(group: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(pid))
    return found


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("whom", ["process", "group"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_after_any_signal_no_process_is_left_and_the_search_goes_on(
    number: signal.Signals, whom: str, workers: int, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shared = set(os.listdir("/dev/shm"))
    with start(folder, "400trials", workers) as driver:
        wait_for_rungs(folder, 6)
        (os.kill if whom == "process" else os.killpg)(driver.pid, number)
        driver.communicate(timeout=60)
    by_itself = number in (signal.SIGTERM, signal.SIGHUP)  # Python ends by SIGINT itself after a KeyboardInterrupt
    assert driver.returncode == (128 + number if by_itself else -number)
    deadline = time.monotonic() + 10
    while (left := group_members(driver.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert not {name for name in set(os.listdir("/dev/shm")) - shared if name.startswith("sem.mp-")}
    before = {t.number: t for t in make_study(folder).trials()}
    assert all(t.state is not State.FAIL for t in before.values())
    study = make_study(folder)
    ad.search(study, evaluate=evaluate, budget=f"{study.spent.trials + 3}trials", workers=1, progress=False)
    after = {t.number: t for t in study.trials()}
    for trial in before.values():
        if trial.state in (State.COMPLETE, State.PRUNED):
            assert after[trial.number] == trial
    assert sorted(after) == list(range(len(after)))


def test_of_several_drivers_one_runs_and_the_others_say_who(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    drivers = [start(folder, "60trials", 1) for _ in range(4)]
    ends = [(one.communicate(timeout=120)[1].decode(), one.returncode) for one in drivers]
    assert sum(code == 0 for _, code in ends) >= 1
    for said, code in ends:
        assert code == 0 or "is in use by process" in said, said
    trials = make_study(folder).trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    assert sum(t.reason not in ("DUPLICATE", "INFEASIBLE") for t in trials) == 60


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_changes_no_budget(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real, began = time.time, time.monotonic()

    def jumps(candidate: Candidate) -> Iterator[Report]:
        if candidate.number == 2:
            monkeypatch.setattr(time, "time", lambda: real() + jump)
        time.sleep(0.02)
        yield from evaluate(candidate)

    study = make_study(rungs=Rungs(LEVELS, stopping=False))
    ad.search(study, evaluate=jumps, budget="1s", workers=1, progress=False)
    assert 0.5 < study.spent.seconds < 15.0  # the last trial has to fit, so a little may be left
    assert study.spent.seconds <= time.monotonic() - began
    assert len(study.trials()) > 3


def test_an_evaluation_that_hangs_holds_up_neither_the_budget_nor_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    began = time.monotonic()
    with start(folder, "3s", 2, "evaluate_or_hang", "Rungs(LEVELS, stopping=False)") as driver:
        _, said = driver.communicate(timeout=120)
    assert time.monotonic() - began < 90  # the evaluation would hang for 600 s
    assert driver.returncode == 0, said.decode()
    deadline = time.monotonic() + 10
    while group_members(driver.pid) and time.monotonic() < deadline:  # a killed process takes a moment to end
        time.sleep(0.05)
    assert group_members(driver.pid) == []
    hung = make_study(folder).trials()[0]
    assert hung.state is not State.COMPLETE
    assert hung.state is State.PARTIAL or hung.reason


def test_a_command_whose_streams_are_closed_ends_well(tmp_path: Path) -> None:
    for command in ("init --help >&- 2>&-", "spaces ls | head -1 >/dev/null", "trials nowhere >&- 2>&-"):
        line = f"set -o pipefail; {sys.executable} -m autodistill {command}; echo $?"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == ("2" if "nowhere" in command else "0"), command
        assert "Traceback" not in done.stderr


def test_scratch_of_a_killed_process_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = ScratchFolder("test")
    foreign = tmp_path / "autodistill-of-another-program"
    foreign.mkdir()
    program = (
        "import os, signal, sys, tempfile\nfrom autodistill.core.scratch import ScratchFolder\n"
        "tempfile.tempdir = sys.argv[1]\nprint(ScratchFolder('dead').path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    dead = Path(done.stdout.strip())
    assert dead.is_dir()
    remove_orphans()
    assert dead.is_dir()  # it might be about to be locked
    for path in (dead, mine.path, foreign):
        os.utime(path, (0, 0))
    remove_orphans()
    assert not dead.exists()
    assert mine.path.is_dir()
    assert foreign.is_dir()
    mine.close()
    mine.close()
    assert not mine.path.exists()


def test_a_budget_holds_over_kills_and_impossible_reports(tmp_path: Path) -> None:
    """Epochs are counted once, whatever is killed or reported."""

    def odd(candidate: Candidate) -> Iterator[Report]:
        yield Report(0, costs(candidate.student))
        if candidate.number % 3 == 1:
            yield Report(1, {"accuracy": 0.5}, 1.0, seconds=1e18)
        yield from list(evaluate(candidate))[1:]

    study = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False))
    for trials in (2, 4, 6):
        ad.search(study, evaluate=odd, budget=f"{trials}trials", workers=1, progress=False)
        study = make_study(tmp_path, rungs=Rungs(LEVELS, stopping=False))
    assert study.spent.trials == 6
    assert study.spent.seconds < 60
    assert study.spent.device_seconds < 60


def test_the_soak_test_in_short_finds_nothing_lost_doubled_changed_or_left(tmp_path: Path) -> None:
    """``benchmarks/soak.py --quick``: real trainings on two workers, killed for half a minute."""
    out = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/soak.py"), "--quick", "--json", str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    names = ("lost", "doubled", "changed", "orphans", "leftovers", "failed")
    assert {name: found[name] for name in names} == dict.fromkeys(names, 0)
    assert sum(found["kills"].values()) >= 1
