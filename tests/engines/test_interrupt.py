from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import TESTS
from toys import make_study

from autodistill.core.records import State

SCRIPT = """
import sys
from pathlib import Path
from toys import evaluate_slowly, make_study
import autodistill as ad
if __name__ == "__main__":
    ad.search(make_study(Path(sys.argv[1])), evaluate=evaluate_slowly, budget=sys.argv[2], workers=int(sys.argv[3]))
"""


def start(folder: Path, budget: str, workers: int, *, group: bool = False) -> subprocess.Popen[bytes]:
    script = folder.parent / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(TESTS)!r})\n" + SCRIPT)
    command = [sys.executable, str(script), str(folder), budget, str(workers)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=group)


def wait_for_trials(folder: Path, count: int) -> None:
    """Look without opening the study: a second writer would get in the way of its creation."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        with contextlib.suppress(sqlite3.OperationalError):
            with contextlib.closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as connection:
                (found,) = connection.execute("SELECT COUNT(*) FROM trials").fetchone()
            if found >= count:
                return
        time.sleep(0.1)
    raise TimeoutError("the search did not get going")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_of_the_whole_group_fails_no_trial(how: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with start(folder, "30trials", 2, group=True) as process:
        try:
            wait_for_trials(folder, 4)
        finally:
            os.killpg(process.pid, how)
        process.communicate(timeout=60)
    assert process.returncode == 128 + how
    states = {trial.state for trial in make_study(folder).trials()}
    assert State.PARTIAL in states
    assert State.FAIL not in states


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGINT, 2), (signal.SIGKILL, 1)])
def test_a_search_that_was_killed_goes_on_with_no_trial_lost_or_doubled(
    how: signal.Signals, workers: int, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    with start(folder, "30trials", workers) as process:
        try:
            wait_for_trials(folder, 4)
        finally:
            process.send_signal(how)
        process.communicate(timeout=60)
    assert process.returncode != 0
    before = {t.number: t for t in make_study(folder).trials()}
    with start(folder, "12trials", workers) as again:
        _, error = again.communicate(timeout=120)
    assert again.returncode == 0, error.decode()
    after = {t.number: t for t in make_study(folder).trials()}
    assert list(after) == list(range(len(after)))
    for number, trial in before.items():
        if trial.state in (State.COMPLETE, State.PRUNED, State.FAIL):
            assert after[number] == trial
    # killed between Optuna's row and our first write, a trial has no candidate to go on with: it ends as lost
    assert all(t.state in (State.COMPLETE, State.PRUNED) or t.reason == "WORKER_LOST" for t in after.values())
    assert sum(t.reason not in ("DUPLICATE", "INFEASIBLE") for t in after.values()) == 12
