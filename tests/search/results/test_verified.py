from __future__ import annotations

import json
from pathlib import Path

import pytest
from verified_values import STUDENT, TEACHER, TWIN, VERIFIED

from autodistill.core.errors import StoreError, UsageError
from autodistill.delivery.export.loading import load_verified
from autodistill.delivery.verify.write import write_verified
from autodistill.search.results.verified import Difference, Verified, VerifiedRow, read_verified, verified_folder


def test_what_is_saved_is_read_back_as_it_was(tmp_path: Path) -> None:
    paths = write_verified(VERIFIED, tmp_path)
    assert read_verified(tmp_path) == VERIFIED
    assert {path.name for path in paths.values()} == {"verify.json", "verify.csv", "verify.png"}
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    assert "accuracy.low" in paths["csv"].read_text().splitlines()[0]


def test_a_study_that_was_not_verified_has_none(tmp_path: Path) -> None:
    assert read_verified(tmp_path) is None


def test_a_figure_that_was_edited_is_refused(tmp_path: Path) -> None:
    write_verified(VERIFIED, tmp_path)
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


def test_weights_are_read_only_where_they_were_stored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not verified yet; run 'autodistill verify"):
        load_verified(tmp_path, 3)
    write_verified(VERIFIED, tmp_path)
    assert verified_folder(tmp_path, 3) == tmp_path / "verify" / "runs" / "abc"
    with pytest.raises(StoreError, match="is missing"):
        load_verified(tmp_path, 3)


def test_the_repr_is_one_line() -> None:
    kept = VerifiedRow("student", "tiny", 3, verdict="stays")
    fell = VerifiedRow("student", "large", 4, verdict="falls")
    found = Verified("digits", (("accuracy", "maximize"),), (kept, fell), 1, finished=3, planned=4)
    assert repr(found) == "<Verified 'digits': 2 students, 1 on the verified front, 1 seed, 3 of 4 runs finished>"
