from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from autodistill.core.records import LatencyTarget, Objective
from autodistill.delivery.verify.file_costs import judged_by_files
from autodistill.delivery.verify.plan import PLAIN, PlannedRow
from autodistill.delivery.verify.table import Finished, rows_of
from autodistill.delivery.verify.table import table as judged_table
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.verified import Verified, VerifiedRow
from autodistill.training.trials.run_result import Result

OBJECTIVES = resolve(["accuracy", "params"])
IMAGES = 2000
SEEDS = (11, 12, 13)


def result(right: np.ndarray, validation: float | None = 0.9) -> Result:
    bits = base64.b64encode(np.packbits(right.astype(np.uint8)).tobytes()).decode()
    return Result("k", "t", len(right), float(right.mean()), 0.5, 0.02, 0.8, validation, bits, 10.0, "w")


def runs(*counts: int, validation: float | None = 0.9) -> dict[int, Result]:
    """One run per count of right images; the same images are the easy ones for all."""
    easy = np.random.default_rng(0).permutation(IMAGES)
    return {seed: result(easy < count, validation) for seed, count in zip(SEEDS, counts, strict=False)}


def student(trial: int, params: float, results: dict[int, Result], *, before: bool = True, searched: float = 0.95):
    member = PlannedRow(
        "student",
        f"resnet {trial}",
        {"width": trial},
        {"loss": "kd"},
        {"lr": 0.1},
        trial=trial,
        before=before,
        searched=searched,
        costs={"params": params},
    )
    return Finished(member, results, 3)


def table(
    finished: Sequence[Finished],
    objectives: Sequence[Objective],
    files: Mapping[int, float] | None = None,
    target: LatencyTarget | None = None,
) -> tuple[VerifiedRow, ...]:
    """The table, with the latency of some trials' files."""
    rows = [replace(row, file_latency_ms=(files or {}).get(row.trial or 0)) for row in rows_of(finished)]
    students = [row for row in rows if row.kind == "student"]
    of_files, _ = judged_by_files(students, objectives, target or LatencyTarget())
    return judged_table(rows, finished, objectives, of_files)


def twin(trial: int, results: dict[int, Result]) -> Finished:
    return Finished(PlannedRow("twin", f"resnet {trial}", {"width": trial}, PLAIN, {}, trial=trial), results, 3)


def test_packed_answers_come_back_image_by_image() -> None:
    right = np.random.default_rng(3).random(37) < 0.5
    assert (result(right).correct() == right).all()


def test_students_come_first_the_most_accurate_of_them_first() -> None:
    rows = table([student(1, 10, runs(1600, 1610, 1590)), twin(1, runs(1500)), student(2, 99, runs(1800))], OBJECTIVES)
    assert [(row.kind, row.trial) for row in rows] == [("student", 2), ("student", 1), ("twin", 1)]
    assert rows[1].accuracy is not None
    assert rows[1].accuracy.mean == pytest.approx(0.8)
    assert rows[1].accuracy.std == pytest.approx(10 / IMAGES)
    assert rows[1].seeds == SEEDS


def test_a_dominated_winner_falls_and_a_neighbour_may_join() -> None:
    rows = table(
        [
            student(1, 10, runs(1600, 1601, 1602)),
            student(2, 50, runs(1500, 1501, 1502)),  # dearer and certainly worse than 1
            student(3, 90, runs(1900, 1901, 1902), before=False),
            student(4, 95, runs(1700, 1701, 1702), before=False),
        ],
        OBJECTIVES,
    )
    verdicts = {row.trial: row.verdict for row in rows}
    assert verdicts == {1: "stays", 2: "falls", 3: "joins", 4: "outside"}
    assert all(row.rivals == () for row in rows)


def test_a_place_is_within_noise_if_a_cheaper_student_is_not_significantly_worse() -> None:
    rows = table([student(1, 10, runs(1795, 1803, 1800)), student(2, 50, runs(1805, 1798, 1802))], OBJECTIVES)
    by_trial = {row.trial: row for row in rows}
    assert by_trial[2].verdict == "stays"
    assert by_trial[2].rivals == (1,)
    assert by_trial[1].rivals == ()  # the only other student costs more


def test_the_search_flattered_by_its_own_figure_less_the_fresh_mean_on_the_same_images() -> None:
    results = {seed: result(np.ones(10, dtype=bool), v) for seed, v in zip(SEEDS, (0.90, 0.91, 0.92), strict=True)}
    (row,) = table([student(1, 10, results, searched=0.95)], OBJECTIVES)
    assert row.validation is not None
    assert row.validation.mean == pytest.approx(0.91)
    assert row.flattered == pytest.approx(0.04)


def test_nothing_is_said_of_flattery_when_validation_was_trained_on() -> None:
    (row,) = table([student(1, 10, runs(1500, validation=None))], OBJECTIVES)
    assert row.validation is None
    assert row.flattered is None


def test_distillation_gains_what_the_twin_lacks_on_the_same_seeds() -> None:
    rows = table([student(1, 10, runs(1700, 1702, 1704)), twin(1, runs(1600, 1602, 1604))], OBJECTIVES)
    gain = rows[0].gain
    assert gain is not None
    assert gain.mean == pytest.approx(100 / IMAGES)
    assert gain.seeds == 3
    assert gain.certain


def test_a_student_without_a_finished_run_has_no_result() -> None:
    rows = table([student(1, 10, runs(1700)), student(2, 5, {})], OBJECTIVES)
    assert [(row.trial, row.verdict, row.accuracy is None) for row in rows] == [(1, "stays", False), (2, "", True)]
    assert not rows[1].complete


FAST = resolve(["accuracy", "params", "latency_ms"])


def fast(trial: int, params: float, latency_ms: float, results: dict[int, Result]) -> Finished:
    one = student(trial, params, results)
    return replace(one, member=replace(one.member, costs={"params": params, "latency_ms": latency_ms}))


def test_the_latency_of_the_exported_file_is_compared_and_not_that_of_torch() -> None:
    pair = [fast(1, 10, 0.20, runs(1900, 1901, 1902)), fast(2, 50, 0.10, runs(1600, 1601, 1602))]
    files = {1: 0.01, 2: 0.02}  # torch has them the other way about
    assert {row.trial: row.verdict for row in table(pair, FAST, files)} == {1: "stays", 2: "falls"}
    assert {row.trial: row.verdict for row in table(pair, FAST)} == {1: "stays", 2: "stays"}


def test_noise_is_among_students_whose_files_cost_no_more() -> None:
    alike = runs(1800, 1802, 1804), runs(1801, 1803, 1802)
    pair = [fast(1, 10, 0.20, alike[0]), fast(2, 50, 0.10, alike[1])]
    rivals = {row.trial: row.rivals for row in table(pair, FAST, {1: 0.01, 2: 0.02})}
    assert rivals == {1: (), 2: (1,)}
    assert {row.trial: row.rivals for row in table(pair, FAST)} == {1: (), 2: ()}


@pytest.mark.parametrize(
    ("files", "target", "why"),
    [
        ({1: 0.01}, LatencyTarget(), "for all students: the file of trial 2 has no such figure"),
        ({1: 0.01, 2: 0.02}, LatencyTarget(device="cuda"), "(torch on cuda, fp32)"),
        ({1: 0.01, 2: 0.02}, LatencyTarget(precision="bf16"), "(torch on cpu, bf16)"),
        ({1: 0.01, 2: 0.02}, LatencyTarget(table="t.csv"), "(by a table)"),
        ({1: 0.01, 2: 0.02}, LatencyTarget(command="run {onnx}"), "(by the study's command)"),
    ],
)
def test_two_kinds_of_latency_are_never_compared(files: dict[int, float], target: LatencyTarget, why: str) -> None:
    pair = [fast(1, 10, 0.20, runs(1900, 1901, 1902)), fast(2, 50, 0.10, runs(1600, 1601, 1602))]
    rows = [replace(row, file_latency_ms=files.get(row.trial or 0)) for row in rows_of(pair)]
    of_files, words = judged_by_files(rows, FAST, target)
    assert of_files == ()
    assert "Verdicts take latency_ms as the search measured it" in words
    assert why in words
    assert {row.trial: row.verdict for row in table(pair, FAST, files, target)} == {1: "stays", 2: "stays"}


def test_the_compared_onnx_size_is_that_of_the_exported_file() -> None:
    objectives = resolve(["accuracy", "onnx_bytes"])
    (row,) = rows_of([student(1, 10, runs(1900, 1901, 1902))])
    row = replace(row, file_bytes=4321, costs={"onnx_bytes": 9999.0, "bytes": 77.0})
    of_files, words = judged_by_files([row], objectives, LatencyTarget(table="t.csv"))
    assert of_files == ("onnx_bytes",)
    assert words == "Verdicts take onnx_bytes of the exported file, which is what ships."
    found = Verified("x", (), (row,), 3, of_files=of_files, judged=words)
    assert (found.cost(row, "onnx_bytes"), found.cost(row, "bytes")) == (4321, 77.0)
    assert judged_by_files([row], resolve(["accuracy", "params"]), LatencyTarget()) == ((), "")


BALANCED = resolve(["balanced_accuracy", "params"])


def balanced(trial: int, params: float, *means: float, seed: int = 0) -> Finished:
    """A student with a balanced accuracy per seed, and drawings of the test images that spread by 0.02."""
    drawn = np.random.default_rng(seed).normal(0, 0.02, 200).astype("<f4")
    results = {}
    for each, mean in zip(SEEDS, means, strict=False):
        text = base64.b64encode((mean + drawn).astype("<f4").tobytes()).decode()
        results[each] = replace(
            result(np.arange(IMAGES) < 1500),
            measures={"balanced_accuracy": mean},
            drawings={"balanced_accuracy": text},
            confusion=((900, 100), (100, 900)),
        )
    return student(trial, params, results)


def test_students_are_sorted_and_compared_by_the_measure_that_is_the_objective() -> None:
    rows = table(
        [balanced(1, 10, 0.70, 0.702, 0.701), balanced(2, 50, 0.703, 0.699, 0.702), balanced(3, 90, 0.8, 0.801, 0.802)],
        BALANCED,
    )
    assert [row.trial for row in rows] == [3, 2, 1]
    by_trial = {row.trial: row for row in rows}
    assert {trial: row.verdict for trial, row in by_trial.items()} == {1: "stays", 2: "stays", 3: "stays"}
    assert by_trial[2].rivals == (1,)  # the same drawings for both: the spread over images cancels
    assert by_trial[3].rivals == ()
    figure = by_trial[3].measures["balanced_accuracy"]
    assert figure.low is not None
    assert figure.mean - figure.low == pytest.approx(1.97 * 0.02, rel=0.2)


def test_runs_without_stored_drawings_have_plain_figures_and_no_rivals() -> None:
    (row,) = table([student(1, 10, runs(1600, 1601))], OBJECTIVES)
    assert row.loss is not None
    assert row.loss.low is None
    assert row.confusion == ()
