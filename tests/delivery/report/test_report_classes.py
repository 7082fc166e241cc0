"""The part of a report about classes: two heat maps, a table with the lost classes first, and sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import report_studies
from class_values import confusion, with_classes
from report_page import Page

from autodistill.delivery.report.write import write_report
from autodistill.search.results.verified import VERIFY_FILE, Verified
from autodistill.search.storage.study_folder import dump_json
from autodistill.search.study.study import Study

NAMES = (report_studies.HOSTILE, "owl", "rose", "yak")


def with_all_classes(found: Verified, names: tuple[str, ...], student: list[float], teacher: list[float]) -> Verified:
    following = [*range(1, len(names)), 0]
    rows = [
        with_classes(row, confusion(teacher if row.kind == "teacher" else student, following))
        if row.kind in ("student", "teacher")
        else row
        for row in found.rows
    ]
    return replace(found, rows=tuple(rows), classes=names)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("classes") / "study"
    made = report_studies.make(trials=40, directory=folder)
    found = with_all_classes(
        report_studies.verification(made.front()), NAMES, [0.9, 0.0, 0.5, 1.0], [0.95, 0.8, 0.9, 0.75]
    )
    (folder / VERIFY_FILE).write_text(dump_json(found.to_json()))
    return made


def test_the_report_shows_who_loses_which_class_in_a_picture_a_table_and_a_sentence(
    study: Study, tmp_path: Path
) -> None:
    write_report(study, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    text = page.text("verified")
    best = max(study.front().trials, key=lambda trial: trial.values["accuracy"]).number
    assert f"trial {best} loses most in the recall of owl (0.00 instead of 0.80), rose (0.50 instead of 0.90)" in text
    assert f"Trial {best} never recognises owl." in text
    assert "-0.800" in text
    assert text.index("owl") < text.index("rose", text.index("Recall and precision of each class"))
    figure = page.data["figures"]["confusion"]
    assert [trace["type"] for trace in figure["data"]] == ["heatmap", "heatmap"]
    assert figure["layout"]["yaxis"]["ticktext"][:2] == ["owl", "rose"]
    assert "<script" not in str(figure["layout"]["yaxis"]["ticktext"])
    assert any(attributes.get("data-figure") == "confusion" for _, attributes in page.tags)


def test_a_report_of_a_hundred_classes_stays_readable(study: Study, tmp_path: Path) -> None:
    assert study.directory is not None
    before = (study.directory / VERIFY_FILE).read_text()
    names = tuple(f"class {number}" for number in range(100))
    found = with_all_classes(report_studies.verification(study.front()), names, [0.6] * 100, [0.9] * 100)
    try:
        (study.directory / VERIFY_FILE).write_text(dump_json(found.to_json()))
        write_report(study, tmp_path / "r.html")
    finally:
        (study.directory / VERIFY_FILE).write_text(before)
    figure = Page(tmp_path / "r.html").data["figures"]["confusion"]
    assert len(figure["layout"]["yaxis"]["ticktext"]) == 30
    assert figure["layout"]["xaxis"]["ticktext"][-1] == "all others"


def test_a_verification_without_classes_has_no_such_part(study: Study, tmp_path: Path) -> None:
    made = report_studies.make(trials=40, directory=tmp_path / "study")
    text = dump_json(report_studies.verification(made.front()).to_json())
    (tmp_path / "study" / VERIFY_FILE).write_text(text)
    write_report(made, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "confusion" not in page.data["figures"]
    assert "Recall and precision of each class" not in page.text("verified")
