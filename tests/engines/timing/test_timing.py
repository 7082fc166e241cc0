"""Timing a few students in a process of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autodistill.core.records import DataSpec
from autodistill.engines.timing import timing
from autodistill.engines.timing.timing import FORWARD, SMALL_STEP, STEP, Job, timed
from autodistill.training.costs.cost_memory import CostMemory

STUDENTS = tuple({"family": "resnet", "width": width, "depth": 1} for width in (8, 12, 16))
JOB = Job(
    STUDENTS,
    {"image_size": 8, "channels": 1, "num_classes": 10},
    16,
    {},
    "cpu",
    1,
    DataSpec("digits"),
    cache="",
)
ROW = {STEP: 0.1, SMALL_STEP: 0.1, FORWARD: 0.001}


def test_a_student_that_kills_the_process_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    def process(job, keys, whole, found):
        rounds.append(len(keys))
        found.rows |= dict.fromkeys(keys[:1], ROW)
        return keys[1] if len(rounds) == 1 else None

    monkeypatch.setattr(timing, "_one_process", process)
    found = timed(JOB, CostMemory(None))
    assert rounds == [3, 1]  # the third alone, after the first was timed and the second died
    assert (sorted(found.rows), found.deaths) == ([0, 2], 1)
    assert found.of(STEP) == [0.1, 0.1]
    assert found.of(STEP, 1) == [0.1]


def test_what_was_timed_is_remembered_unless_the_machine_was_busy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []

    def process(job, keys, whole, found):
        asked.append(len(keys))
        found.rows |= dict.fromkeys(keys, ROW)
        found.rows[timing._key(whole, "boot_seconds")] = {"boot_seconds": 3.0}
        found.busy |= set(keys[1:])

    monkeypatch.setattr(timing, "_one_process", process)
    words: list[str] = []
    for _ in range(2):
        found = timed(JOB, CostMemory(tmp_path), say=words.append)
        assert (len(found.rows), found.boot) == (3, 3.0)
    assert asked == [3, 2]
    assert words == ["timing 3 students", "timing 2 students"]
    timed(replace(JOB, threads=2), CostMemory(tmp_path))
    assert asked == [3, 2, 3]


@pytest.mark.slow
def test_students_and_teacher_are_timed_in_a_process_of_their_own() -> None:
    found = timed(JOB, CostMemory(None))
    assert len(found.rows) == 3
    assert all(value > 0 for row in found.rows.values() for value in row.values())
    assert (found.boot > 0, found.deaths) == (True, 0)
