from __future__ import annotations

import json
from dataclasses import replace

import pytest
from class_values import FOUR

from autodistill.search.results.verified import Verified


def test_the_classes_that_the_student_loses_against_its_teacher_are_named_first() -> None:
    (row,) = FOUR.students
    assert [one.name for one in FOUR.by_class(row)] == ["owl", "dog", "cat", "yak"]
    assert [one.name for one in FOUR.losing_classes(row)] == ["owl", "dog", "cat"]
    owl = FOUR.by_class(row)[0]
    assert (owl.images, owl.recall, owl.teacher_recall, owl.taken_for, owl.share) == (40, 0.0, 0.8, "yak", 1.0)
    assert owl.lost == pytest.approx(0.8)
    assert owl.precision == 0.0  # every dog that is not recognised is called an owl
    assert FOUR.by_class(row)[-1].taken_for == ""


def test_without_a_teacher_s_recalls_the_worst_recognised_class_is_first() -> None:
    alone = replace(FOUR, rows=FOUR.students)
    (row,) = alone.students
    assert [one.name for one in alone.by_class(row)] == ["owl", "dog", "cat", "yak"]
    assert alone.losing_classes(row) == []
    assert alone.by_class(replace(row, recalls=())) == []


def test_confusion_matrices_are_stored_by_what_is_not_zero_and_read_as_means_over_seeds() -> None:
    (row,) = FOUR.students
    assert FOUR.confusion(row) == [[36, 4, 0, 0], [0, 20, 20, 0], [0, 0, 0, 40], [0, 0, 0, 40]]
    assert (1, 2, 60) in row.confusion  # three seeds
    assert all(images > 0 for _, _, images in row.confusion)
    again = Verified.from_json(json.loads(json.dumps(FOUR.to_json())))
    assert again == FOUR
    assert "confusion" not in FOUR.to_pandas().columns
    assert FOUR.to_pandas()["recalls"][0] == "0.9 0.5 0.0 1.0"


def test_tables_show_the_trained_objectives_that_have_no_column() -> None:
    assert FOUR.measured == ("balanced_accuracy",)
    assert replace(FOUR, objectives=(("accuracy", "maximize"), ("params", "minimize"))).measured == ()
