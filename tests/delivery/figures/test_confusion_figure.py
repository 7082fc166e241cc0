from __future__ import annotations

import math
from dataclasses import replace

import pytest
from class_values import FOUR, verified

from autodistill.delivery.figures.confusion_figure import MOST, confusion_figure, shown_classes


def test_student_and_teacher_stand_side_by_side_with_the_lost_classes_first() -> None:
    figure = confusion_figure(FOUR, FOUR.students[0])
    assert figure is not None
    student, teacher = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["owl", "dog", "cat", "yak"] == list(figure.layout.xaxis2.ticktext)
    assert figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]
    assert [one.text for one in figure.layout.annotations] == ["trial 3", "teacher"]
    assert student.z[0][3] == 1.0  # owls taken for yaks
    assert teacher.z[0][0] == pytest.approx(math.sqrt(0.8))
    assert student.text[1][0] == "50"
    assert student.hovertext[1][0] == "<b>dog</b> decided as <b>owl</b><br>20 of 40 images (50.0%)"


def test_of_many_classes_those_that_are_lost_are_shown_with_those_that_they_are_taken_for() -> None:
    names = tuple(f"class {number:03d}" for number in range(100))
    student = [0.9] * 100
    student[17], student[60] = 0.1, 0.3
    many = verified(names, student, [0.9] * 100)
    figure = confusion_figure(many, many.students[0])
    assert figure is not None
    assert list(figure.layout.yaxis.ticktext[:4]) == ["class 017", "class 018", "class 060", "class 061"]
    assert len(figure.layout.yaxis.ticktext) == 30
    assert figure.layout.xaxis.ticktext[-1] == "all others"
    assert all(sum(share**2 for share in row) == pytest.approx(1.0) for row in figure.data[0].z)
    assert figure.data[0].texttemplate is None
    assert 600 < figure.layout.height < 1000
    assert "30 of 100 classes" in figure.layout.title.text


def test_up_to_a_number_all_classes_are_shown_but_those_without_images() -> None:
    names = tuple(map(str, range(MOST)))
    all_of_them = verified(names, [0.5] * MOST, [0.6] * MOST)
    assert sorted(shown_classes(all_of_them.by_class(all_of_them.students[0]))) == list(range(MOST))
    row = FOUR.students[0]
    fewer = replace(row, confusion=tuple(one for one in row.confusion if one[0] != 2))
    assert 2 not in shown_classes(FOUR.by_class(fewer))
    assert confusion_figure(FOUR, replace(row, confusion=())) is None


def test_names_of_classes_are_text() -> None:
    hostile = verified(("<b>a</b>", "b" * 90), [0.5, 0.5], [0.9, 0.9])
    figure = confusion_figure(hostile, hostile.students[0])
    assert figure is not None
    assert set(figure.layout.yaxis.ticktext) == {"&lt;b&gt;a&lt;/b&gt;", "b" * 21 + "…"}
    assert "<b>a</b>" not in str(figure.data[0].hovertext[0][0]).replace("<b>&lt;b&gt;a&lt;/b&gt;</b>", "")
