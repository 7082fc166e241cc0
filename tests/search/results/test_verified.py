from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodistill.core.errors import StoreError, UsageError
from autodistill.search.results.verified import (
    Difference,
    Figure,
    Verified,
    VerifiedRow,
    load_verified,
    read_verified,
    verified_folder,
)

STUDENT = VerifiedRow(
    "student",
    "resnet width=8",
    trial=3,
    student={"family": "resnet", "width": 8},
    distillation={"loss": "kd"},
    train={"lr": 0.01},
    seeds=(5, 6, 7),
    planned=3,
    accuracy=Figure(0.9, 0.01, 0.88, 0.92),
    validation=Figure(0.91, 0.01),
    loss=Figure(0.3, 0.02),
    agreement=Figure(0.93, 0.01),
    ece=Figure(0.02, 0.001),
    costs={"params": 1000.0, "latency_ms": 0.5},
    file_bytes=4321,
    file_latency_ms=0.2,
    searched=0.94,
    flattered=0.03,
    gain=Difference(0.02, 0.01, 0.03, 3),
    before=True,
    verdict="stays",
    rivals=(4, 5),
    weights="verify/runs/abc",
)
TWIN = VerifiedRow("twin", "resnet width=8", trial=3, planned=3, accuracy=Figure(0.88), costs={"params": 1000.0})
TEACHER = VerifiedRow("teacher", "teacher", accuracy=Figure(0.99, None, 0.98, 1.0))
VERIFIED = Verified(
    "digits",
    (("accuracy", "maximize"), ("params", "minimize")),
    (STUDENT, TWIN, TEACHER),
    seeds=3,
    epochs=4,
    test_images=360,
    validation_images=216,
    finished=3,
    planned=6,
    front_before=1,
    versions={"torch": "2"},
)


def test_what_is_saved_is_read_back_as_it_was(tmp_path: Path) -> None:
    paths = VERIFIED.save(tmp_path)
    assert read_verified(tmp_path) == VERIFIED
    assert {path.name for path in paths.values()} == {"verify.json", "verify.csv", "verify.png"}
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    assert "accuracy.low" in paths["csv"].read_text().splitlines()[0]


def test_a_study_that_was_not_verified_has_none(tmp_path: Path) -> None:
    assert read_verified(tmp_path) is None


def test_a_figure_that_was_edited_is_refused(tmp_path: Path) -> None:
    VERIFIED.save(tmp_path)
    path = tmp_path / "verify.json"
    data = json.loads(path.read_text())
    data["rows"][0]["accuracy"]["mean"] = 0.999
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError, match="changed or cut after it was written"):
        read_verified(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "verify.json").write_text(text)
    with pytest.raises(StoreError, match="verify"):
        read_verified(tmp_path)


def test_rows_are_found_by_trial() -> None:
    assert VERIFIED.student(3) is STUDENT
    assert VERIFIED.twin(3) is TWIN
    assert VERIFIED.twin(9) is None
    assert VERIFIED.teacher_row() is TEACHER
    assert VERIFIED.front == (STUDENT,)
    assert VERIFIED.fallen == ()
    assert not VERIFIED.complete
    with pytest.raises(UsageError, match="trial 9 was not verified; verified: 3"):
        VERIFIED.student(9)


def test_a_table_for_pandas_has_a_line_per_row() -> None:
    frame = VERIFIED.to_pandas()
    assert list(frame["kind"]) == ["student", "twin", "teacher"]
    assert frame["accuracy.mean"].tolist() == [0.9, 0.88, 0.99]
    assert frame["rivals"][0] == "4 5"


def test_a_difference_is_certain_with_two_seeds_and_an_interval_beside_zero() -> None:
    assert Difference(0.02, 0.01, 0.03, 2).certain
    assert not Difference(0.02, 0.01, 0.03, 1).certain
    assert not Difference(0.02, -0.01, 0.05, 3).certain


def test_weights_are_asked_for_only_where_they_were_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not verified yet; run 'autodistill verify"):
        load_verified(tmp_path, 3)
    VERIFIED.save(tmp_path)
    assert verified_folder(tmp_path, 3) == tmp_path / "verify" / "runs" / "abc"
    with pytest.raises(StoreError, match="is missing"):
        load_verified(tmp_path, 3)


def test_it_introduces_itself_in_a_line() -> None:
    kept = VerifiedRow("student", "tiny", 3, verdict="stays")
    fell = VerifiedRow("student", "large", 4, verdict="falls")
    found = Verified("digits", (("accuracy", "maximize"),), (kept, fell), 1, finished=3, planned=4)
    assert repr(found) == "<Verified 'digits': 2 students, 1 on the verified front, 1 seed, 3 of 4 runs finished>"
