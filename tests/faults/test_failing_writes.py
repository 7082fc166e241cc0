"""Disks that fill up or break at the n-th operation, and limits of the system: an error that says so, and no damage."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from faults_runner import STEPS, Runner, ended, table

BUDGET = "13epochs"
SAID = (
    "No space left",
    "is full",
    "Input/output error",
    "I/O error",
    "cannot write",
    "File too large",
    "Too many open",
    "unable to open",
)


@pytest.fixture(scope="module")
def whole(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], list[Any]]:
    """Number of steps of an undisturbed search, and its trials."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    answer = runner.search(folder, BUDGET, seed=5)
    assert answer["code"] == 0, answer["said"]
    return answer["counts"], table(folder, seed=5)


def check_then_finish(runner: Runner, folder: Path, answer: dict[str, Any], expected: list[Any]) -> None:
    """The search ended with a message about the disk, or as if nothing was; another finishes it.

    What was stored stays as it was. Trials that had not ended when the write failed may end otherwise than in a search
    that nothing disturbed: a search that ends by an error saves them as interrupted ones.
    """
    assert answer["code"] in (0, 5), answer
    if answer["code"] == 5:
        assert any(words in answer["said"] for words in SAID), answer["said"]
    before = ended(folder)
    again = runner.search(folder, BUDGET, seed=5)
    assert again["code"] == 0, again["said"]
    after = ended(folder)
    assert {number: after.get(number) for number in before} == before
    numbers = [row[0] for row in table(folder, seed=5)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= len(expected) - 1
    assert [path.name for path in folder.glob(".*")] == []


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("kind", STEPS)
def test_the_nth_write_fails(
    runner: Runner, tmp_path: Path, whole: tuple[dict[str, int], list[Any]], kind: str, error: str
) -> None:
    counts, expected = whole
    every = range(1, counts[kind] + 1)
    for n in every if len(every) <= 15 else sorted(random.Random(error).sample(every, 15)):
        folder = tmp_path / str(n)
        answer = runner.search(folder, BUDGET, seed=5, at={kind: n}, do=error)
        check_then_finish(runner, folder, answer, expected)


@pytest.mark.parametrize("size", [30_000, 90_000, 130_000, 180_000, 240_000])
def test_a_file_may_not_grow_beyond_a_limit(
    runner: Runner, tmp_path: Path, whole: tuple[dict[str, int], list[Any]], size: int
) -> None:
    """``ulimit -f``: SQLite itself meets it, in the middle of a page or of its log."""
    answer = runner.search(tmp_path / "study", BUDGET, seed=5, limits={"FSIZE": size})
    check_then_finish(runner, tmp_path / "study", answer, whole[1])


@pytest.mark.parametrize("files", [8, 12, 14, 18, 24])
def test_few_files_may_be_open(
    runner: Runner, tmp_path: Path, whole: tuple[dict[str, int], list[Any]], files: int
) -> None:
    """``ulimit -n``."""
    answer = runner.search(tmp_path / "study", BUDGET, seed=5, limits={"NOFILE": files})
    check_then_finish(runner, tmp_path / "study", answer, whole[1])


def test_a_student_that_takes_more_memory_than_there_is_fails_alone(runner: Runner, tmp_path: Path) -> None:
    """``ulimit -v``."""
    answer = runner.search(tmp_path / "study", "30trials", seed=5, hungry=True, limits={"AS": 8 << 30})
    assert answer["code"] == 0, answer["said"]
    trials = table(tmp_path / "study", seed=5)
    assert {row[2] for row in trials if row[4]["depth"] > 5} == {"OOM"}
    assert {row[1] for row in trials if row[4]["depth"] <= 5} <= {"COMPLETE", "PRUNED", "PARTIAL"}


def test_a_full_disk_is_told_and_once_it_has_room_the_search_goes_on(
    runner: Runner, tmp_path: Path, whole: tuple[dict[str, int], list[Any]]
) -> None:
    """A real file system of 200 KB, where this user may mount one."""
    import subprocess

    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        answer = runner.search(place / "study", BUDGET, seed=5)
        assert answer["code"] == 5, answer
        subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
        check_then_finish(runner, place / "study", answer, whole[1])
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_file_system_is_told(runner: Runner, tmp_path: Path) -> None:
    import subprocess

    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting needs root")
    try:
        assert runner.search(place / "study", BUDGET, seed=5)["code"] == 0
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        answer = runner.search(place / "study", "60epochs", seed=5)
        assert answer["code"] in (2, 5), answer
        assert "write" in answer["said"] or "Read-only" in answer["said"]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
