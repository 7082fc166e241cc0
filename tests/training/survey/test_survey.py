"""The survey: rows in the order of the pool, reasons why students cannot be built, and reuse of stored costs."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.core.records import LatencyTarget, SurveyRow
from autodistill.training.costs import latency_protocol as latency
from autodistill.training.costs.cost_memory import LATENCY, CostMemory
from autodistill.training.costs.counts import known_costs
from autodistill.training.costs.latency_protocol import Latency
from autodistill.training.runtime import measurement_lock
from autodistill.training.students import build as students
from autodistill.training.students.families.schema import Family, families
from autodistill.training.survey import survey, surveyor
from autodistill.training.survey.survey import GROUP
from autodistill.training.survey.time_limit import FIRST_GROUP, Hours

SHAPE = {"image_size": 8, "channels": 1}
POOL = [{"family": "resnet", "width": width} for width in (2, 4, 6)]
BAD = {"family": "vit", "patch": 16}


def run(pool: list[dict[str, Any]], metrics: tuple[str, ...] = ("params", "macs"), **options: Any) -> list[SurveyRow]:
    options = {"target": LatencyTarget(), **options}
    return survey.survey(pool, **SHAPE, num_classes=3, metrics=metrics, **options)


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fake latencies of 1, 2, 3 ms … in the order of measurement; keeps the size of every group."""
    groups: list[int] = []

    def timed(runs: list[Any], **options: Any) -> list[Latency]:
        groups.append(len(runs))
        places = range(sum(groups) - len(runs) + 1, sum(groups) + 1)
        return [Latency(float(i), float(i), float(i), 0.01, False, 10) for i in places]

    monkeypatch.setattr(surveyor, "measure_runs", timed)
    return groups


def test_counted_costs_are_those_of_the_student_and_rows_keep_the_order() -> None:
    rows = run(POOL)
    assert [row.student for row in rows] == POOL
    for row in rows:
        model = students.build_student(row.student, **SHAPE, num_classes=3)
        assert row.costs == known_costs(model, **SHAPE, metrics=["params", "macs"])
        assert not row.error


def test_a_student_that_cannot_be_built_has_a_reason_and_no_costs_and_the_others_go_on() -> None:
    rows = run([POOL[0], BAD, POOL[1]])
    assert [bool(row.costs) for row in rows] == [True, False, True]
    assert "patch 16 does not divide 8 px" in rows[1].error


def test_a_student_that_builds_and_cannot_run_is_infeasible_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Family("broken", "convolutional", "Fails.", (), lambda params, shape: nn.Linear(5, 5))
    monkeypatch.setitem(families._entries, "broken", broken)
    rows = run([{"family": "broken"}], ("params", LATENCY))
    assert "Linear fails on 1 x 8 x 8 px" in rows[0].error
    assert not rows[0].costs


def test_a_misspelt_student_is_the_users_error_and_not_infeasible() -> None:
    with pytest.raises(UnknownNameError, match="resnet"):
        run([{"family": "resnett"}])
    with pytest.raises(UsageError, match="width is 1; allowed"):
        run([{"family": "resnet", "width": 1}])


def test_an_unknown_metric_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UnknownNameError, match="cost metric"):
        run([BAD], ("parms",))


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        run(POOL, ("params", LATENCY), target=LatencyTarget("onnx"))


def test_latency_is_measured_in_groups_and_belongs_to_its_student(stopwatch: list[int]) -> None:
    pool = [{"family": "resnet", "width": width} for width in range(2, 2 + GROUP + 2)]
    rows = run([BAD, *pool], ("params", LATENCY))
    assert [row.student for row in rows] == [BAD, *pool]
    assert stopwatch[0] == FIRST_GROUP
    assert max(stopwatch) <= GROUP
    assert sum(stopwatch) == len(pool)
    found = [row.costs.get(LATENCY) for row in rows]
    assert found[0] is None
    assert sorted(found[1:]) == list(range(1, len(pool) + 1))  # the fake clock counts them in the order of measurement
    assert (found[1], found[-1]) == (1.0, 2.0)  # the cheapest and the most expensive come first


def test_as_many_as_the_model_needs_are_measured_although_the_time_is_up(stopwatch: list[int]) -> None:
    pool = [{"family": "resnet", "width": width} for width in range(2, 18)]
    rows = run(pool, ("params", LATENCY), hours=Hours(end=time.monotonic(), least=6))
    assert 6 <= len(rows) < 6 + GROUP
    assert sum(stopwatch) == len(rows)


def test_one_group_is_measured_whatever_the_time(stopwatch: list[int]) -> None:
    pool = [{"family": "resnet", "width": width} for width in range(2, 18)]
    past = time.monotonic() - 1
    rows = run(pool, ("params", LATENCY), hours=Hours(end=past, least=6, last=past))
    assert stopwatch == [FIRST_GROUP]
    assert len(rows) == FIRST_GROUP


def test_a_survey_waits_for_other_measurers_no_longer_than_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, stopwatch: list[int]
) -> None:
    waits: list[str] = []
    stop = [False]
    with (measurement_lock.folder() / "intent").open("w") as another:  # another process that measures
        fcntl.flock(another, fcntl.LOCK_EX)
        another.write("4711 0")
        another.flush()
        monkeypatch.setattr(measurement_lock, "NOTICE_SECONDS", 0.01)

        def on_wait(what: str, seconds: float) -> None:
            waits.append(what)
            stop[0] = len(waits) > 2

        rows = run(POOL, ("params", LATENCY), waits=on_wait, should_stop=lambda: stop[0])
    assert waits[0] == "waiting for a latency measurement of process 4711"
    assert (rows, stopwatch) == ([], [])


def test_real_latencies_are_positive_and_nothing_trains_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def watched(runs: list[Any], **options: Any) -> list[Latency]:
        with (measurement_lock.folder() / "work").open() as another:  # a handle of its own, as another process has
            try:
                fcntl.flock(another, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return latency.measure_runs(runs, **options)

    monkeypatch.setattr(surveyor, "measure_runs", watched)
    rows = run(POOL[:2], ("params", LATENCY))
    assert held == [True]
    assert all(row.costs[LATENCY] > 0 for row in rows)


def test_threads_are_those_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def timed(runs: list[Any], **options: Any) -> list[Latency]:
        seen.append(torch.get_num_threads())
        return [Latency(1.0, 1.0, 1.0, 0.0, False, 1) for _ in runs]

    monkeypatch.setattr(surveyor, "measure_runs", timed)
    run(POOL[:1], (LATENCY,), target=LatencyTarget(threads=3))
    assert seen == [3]


def test_the_second_survey_builds_and_measures_nothing(
    tmp_path: Path, stopwatch: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(POOL, ("params", LATENCY), memory=CostMemory(tmp_path))
    monkeypatch.setattr(students, "build_student", lambda *args, **options: pytest.fail("built again"))
    assert run(POOL, ("params", LATENCY), memory=CostMemory(tmp_path)) == first
    assert stopwatch == [3]


def test_a_noisy_latency_is_marked_and_forgotten_but_its_counts_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        surveyor, "measure_runs", lambda runs, **options: [Latency(1.0, 1.0, 1.0, 0.5, True, 9) for _ in runs]
    )
    rows = run(POOL[:1], ("params", LATENCY), memory=CostMemory(tmp_path))
    assert rows[0].noisy
    assert rows[0].costs[LATENCY] == 1.0
    again = CostMemory(tmp_path)
    key = again.key(POOL[0], SHAPE, 3)
    assert again.get(key, ["params"], LatencyTarget()) is None
    assert again.get(key, ["params"], None) == {"params": rows[0].costs["params"]}


def test_its_progress_is_reported_and_it_stops_on_request() -> None:
    reported: list[tuple[int, int]] = []
    pool = [{"family": "resnet", "width": width} for width in range(2, 2 + 2 * GROUP)]
    rows = run(
        pool, progress=lambda done, total: reported.append((done, total)), should_stop=lambda: len(reported) == 1
    )
    assert reported == [(FIRST_GROUP, 2 * GROUP)]
    assert len(rows) == FIRST_GROUP


def test_an_empty_pool_has_no_rows() -> None:
    assert run([]) == []


def test_a_survey_that_is_remembered_as_a_whole_loads_no_torch(tmp_path: Path, stopwatch: list[int]) -> None:
    first = run(POOL, ("params", LATENCY), memory=CostMemory(tmp_path))
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from autodistill.core.records import LatencyTarget\n"
        "from autodistill.training.costs.cost_memory import CostMemory\n"
        "from autodistill.training.survey.survey import survey\n"
        f"rows = survey({POOL!r}, **{SHAPE!r}, num_classes=3, metrics=['params', 'latency_ms'],\n"
        f"              target=LatencyTarget(), memory=CostMemory(Path({str(tmp_path)!r})))\n"
        "loaded = {'torch', 'timm', 'torchvision', 'optuna'} & set(sys.modules)\n"
        "print(json.dumps([[row.costs for row in rows], sorted(loaded)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[row.costs for row in first], []]
