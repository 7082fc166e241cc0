"""What is said of an empty front, everywhere in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toys
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.commands.console.output import print_table
from autodistill.core.records import Constraint, State, TrialRecord
from autodistill.core.wording import (
    complete_counted,
    counted,
    distillation_words,
    setting_words,
    student_words,
    students_counted,
    why_empty,
)
from autodistill.delivery.report.write import write_report
from autodistill.engines.setup.study_setup import open_to_read

REASON = "6 trials reached the top rung, and none satisfies accuracy >= 0.9999"
run = CliRunner()


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of six full trainings, none of which is as accurate as was asked for."""
    folder = tmp_path_factory.mktemp("runs") / "bounded"
    study = ad.Study.create(
        directory=folder,
        name="toy",
        space=toys.SPACE,
        objectives=["accuracy", "params", "latency_ms"],
        constraints=["accuracy >= 0.9999"],
        sampler="random",
        epochs=9,
        rungs="off",
    )
    ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="6trials")
    return folder


def test_a_clause_says_why_a_front_is_empty() -> None:
    bound = (Constraint("accuracy", ">=", 0.9),)
    complete = TrialRecord(0, State.COMPLETE, {"accuracy": 0.5}, {}, {}, {}, 0)
    assert why_empty([], bound) == "no trial is COMPLETE yet"
    assert why_empty([complete], bound) == "1 trial reached the top rung, and none satisfies accuracy >= 0.9"


@pytest.mark.parametrize(
    "arguments",
    [
        ("front",),
        ("front", "--knee"),
        ("front", "--pick", "params <= 5"),
        ("export", "--knee", "-o", "x"),
        ("compress", "--knee"),
    ],
)
def test_a_bound_that_no_student_keeps_is_the_reason_that_every_command_gives(
    arguments: tuple[str, ...], bounded: Path
) -> None:
    said = run.invoke(app, [arguments[0], str(bounded), *arguments[1:]])
    assert REASON in said.output
    assert "COMPLETE yet" not in said.output


def test_pictures_of_an_empty_front_have_the_reason(bounded: Path, tmp_path: Path) -> None:
    assert "6 trials reached the top rung" in _words(bounded / "front.png", bounded)  # as the search left it
    for name in ("front.svg", "front.html"):
        run.invoke(app, ["front", str(bounded), "--plot", str(tmp_path / name)])
    assert "none satisfies accuracy &gt;= 0.9999" in (tmp_path / "front.html").read_text()


def _words(path: Path, folder: Path) -> str:
    """Text that a saved picture of the empty front holds, by drawing it again beside the file."""
    from autodistill.delivery.figures import front_png as plots

    study = open_to_read(folder)
    said: list[Any] = []
    original = plots.nothing_drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "nothing_drawn", lambda axes, words: (said.append(words), original(axes, words)))
        again = path.with_name("again.png")
        study.front().plot(again, empty=why_empty(study.trials(), study.constraints))
        assert again.read_bytes() == path.read_bytes()
    again.unlink()
    return str(said[0])


def test_the_report_counts_them_as_complete_and_outside_a_bound(bounded: Path, tmp_path: Path) -> None:
    write_report(open_to_read(bounded), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert f"{REASON.replace('>', '&gt;')} (6 COMPLETE), so there is no front" in page
    assert "complete, outside a bound (6)" in page
    assert "complete, dominated" not in page
    assert "there are 0" not in page


@pytest.mark.parametrize(("count", "said"), [(1, "1 seed"), (2, "2 seeds"), (0, "0 seeds"), (1200, "1,200 seeds")])
def test_counts_agree_with_their_nouns(count: int, said: str) -> None:
    assert counted(count, "seed") == said


def test_students_and_their_forms_are_counted_apart() -> None:
    def form(number: int, variant: str = "fp32") -> TrialRecord:
        return TrialRecord(number, State.COMPLETE, {}, {}, {}, {}, 0, variant=variant)

    plain, forms = [form(0), form(1)], [form(0), form(1), form(1, "int8")]
    assert [one.called for one in forms] == ["0", "1", "1 (int8)"]
    assert students_counted(plain) == "2 students"
    assert students_counted(forms) == "2 students in 3 forms"
    assert complete_counted(plain) == "2 COMPLETE trials"
    assert complete_counted(forms) == "2 COMPLETE trials (3 forms)"


HOSTILE = "a\x1b[31m\nb\u202ec\x9bd"


def test_stored_names_become_one_printable_line() -> None:
    shown = "a�[31m�b�c�d"
    assert student_words({"family": HOSTILE, HOSTILE: HOSTILE}) == f"{shown} {shown}={shown}"
    assert distillation_words({"loss": HOSTILE}) == shown
    assert setting_words(HOSTILE) == shown


def test_a_stored_name_cannot_begin_a_line_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", HOSTILE], [[HOSTILE, "1"]])
    assert len(capsys.readouterr().out.splitlines()) == 2
