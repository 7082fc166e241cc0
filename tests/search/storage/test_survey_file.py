"""The survey that a study keeps, its command and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autodistill.cli import app
from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import LatencyTarget, SurveyRow
from autodistill.delivery.figures.survey_png import survey_png
from autodistill.search.storage.survey_file import SURVEY_FILE, earlier_survey, read_survey, write_survey

run = CliRunner()
TARGET = LatencyTarget("onnxruntime", threads=2)
ROWS = [
    SurveyRow({"family": "vit", "width": 32}, {"params": 4000.0, "latency_ms": 0.25}, noisy=True),
    SurveyRow({"family": "resnet", "width": 4}, {"params": 1000.0, "latency_ms": 0.5}),
    SurveyRow({"family": "vit", "patch": 16}, error="patch 16 does not divide 8 px"),
]


def test_a_survey_is_read_as_it_was_written_and_replaced_as_a_whole(tmp_path: Path) -> None:
    write_survey(tmp_path, ROWS[:1], LatencyTarget())
    write_survey(tmp_path, ROWS, TARGET)
    assert read_survey(tmp_path) == (ROWS, TARGET)
    assert [path.name for path in tmp_path.iterdir()] == [SURVEY_FILE]


def test_a_study_without_a_survey_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no survey"):
        read_survey(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "students": [{"x": 1}], "latency": {}}', '{"format": 9}']
)
def test_a_broken_file_is_said_to_be_broken(tmp_path: Path, text: str) -> None:
    (tmp_path / SURVEY_FILE).write_text(text)
    with pytest.raises(StoreError, match=SURVEY_FILE):
        read_survey(tmp_path)


@pytest.mark.parametrize(
    ("png", "said"),
    [
        ("x.txt", "got the ending '.txt'; allowed: .png, .svg, .pdf"),
        ("x.html", "got the ending '.html'; allowed: .png, .svg, .pdf"),
        ("nodir/x.png", "does not exist; create it, or choose another"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path: Path, png: str, said: str) -> None:
    write_survey(tmp_path, ROWS, TARGET)
    result = run.invoke(app, ["survey", str(tmp_path), "--png", str(tmp_path / png)])
    assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True), result.stderr


def test_the_command_lists_students_by_size_with_reasons_and_noise(tmp_path: Path) -> None:
    write_survey(tmp_path, ROWS, TARGET)
    result = run.invoke(app, ["survey", str(tmp_path), "--png", str(tmp_path / "survey.png")])
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["student", "params", "latency_ms"]
    assert lines[1].split() == ["resnet", "width=4", "1,000", "0.5"]
    assert lines[2].split() == ["vit", "width=32", "4,000", "0.25", "noisy"]
    assert "infeasible, will not be trained: patch 16 does not divide 8 px" in result.stderr
    assert "onnxruntime on cpu, batch 1, fp32, 2 thread(s)" in result.stderr
    assert (tmp_path / "survey.png").read_bytes().startswith(b"\x89PNG")
    as_json = json.loads(run.invoke(app, ["survey", str(tmp_path), "--json"]).stdout)
    assert as_json["students"][1] == {"student": {"family": "resnet", "width": 4}, "error": "", "noisy": False,
                                      "costs": {"params": 1000.0, "latency_ms": 0.5}}  # fmt: skip


def test_a_space_is_surveyed_without_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path))
    arguments = ["survey", "--space", "digits", "--pool", "3", "--counted", "--channels", "1", "--json"]
    result = run.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["students"]
    assert len(found) == 3
    assert all(set(row["costs"]) == {"params", "macs"} for row in found)
    assert run.invoke(app, arguments).stdout == result.stdout


def test_a_study_and_a_space_are_one_too_many(tmp_path: Path) -> None:
    result = run.invoke(app, ["survey", str(tmp_path), "--space", "digits"])
    assert result.exit_code == 2
    assert "a study and --space are given" in result.stderr


def test_a_picture_needs_two_costs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs two costs; this survey has params"):
        survey_png([SurveyRow({"family": "vit"}, {"params": 3.0})], tmp_path / "a.png")
    with pytest.raises(UsageError, match="this survey has none"):
        survey_png([], tmp_path / "a.png")


def test_ticks_of_a_picture_are_short_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **options: seen.append(self))
    survey_png(
        [SurveyRow({}, {"params": 2.5e4 + 4e3 * i, "latency_ms": 0.1 * i}) for i in range(1, 6)], tmp_path / "a.png"
    )
    axes = seen[0].axes[0]
    axes.figure.canvas.draw()
    for axis in (axes.xaxis, axes.yaxis):
        words = [label.get_text() for label in axis.get_ticklabels(which="both")]
        assert any(words)
        assert not any("10^" in word for word in words)
    assert "30k" in [label.get_text() for label in axes.get_xticklabels()]


def test_what_was_measured_before_is_known_for_the_same_target_on_the_same_machine_only(tmp_path: Path) -> None:
    good = [row for row in ROWS if not row.error]
    assert earlier_survey(tmp_path, TARGET, machine="here") == []
    write_survey(tmp_path, ROWS, TARGET, machine="here")
    assert earlier_survey(tmp_path, TARGET, machine="here") == good
    assert earlier_survey(tmp_path, TARGET, machine="there") == []
    assert earlier_survey(tmp_path, LatencyTarget(threads=7), machine="here") == []
    (tmp_path / "survey.json").write_text("{")
    assert earlier_survey(tmp_path, TARGET, machine="here") == []
