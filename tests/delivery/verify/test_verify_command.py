from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from class_values import FOUR
from verified_values import STUDENT, TEACHER, TWIN, VERIFIED

import autodistill as ad
from autodistill.commands.verify import findings, numbers, print_verified
from autodistill.core.errors import UsageError
from autodistill.delivery.export.model_card import _verified as card_section
from autodistill.delivery.export.weights import Source
from autodistill.delivery.report.tables import verification_words
from autodistill.delivery.verify.plot import _axis
from autodistill.search.results.verified import Difference, Figure


def test_trial_numbers_are_read_with_commas_between_them() -> None:
    assert numbers("3, 7,") == (3, 7)
    assert numbers(None) == ()
    with pytest.raises(UsageError, match="trial numbers such as 3,7; got 'x'"):
        numbers("3,x")


def test_the_table_has_twin_and_gain_beside_each_student(capsys: pytest.CaptureFixture[str]) -> None:
    print_verified(VERIFIED)
    header, student, teacher = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["trial", "student", "loss", "test"]
    for cell in (
        "3",
        "kd",
        "0.9000 ± 0.0100",
        "[0.880, 0.920]",
        "0.8800",
        "+0.0200",
        "1,000",
        "4,321",
        "0.2",
        "+0.0300",
    ):
        assert cell in student
    assert "on the front, within noise of 4, 5" in student
    assert "0.9900" in teacher


def test_an_embedding_term_is_named_beside_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    for distillation, shown in (
        ({"loss": "none", "embedding": "rkd"}, "none+rkd"),
        ({"loss": "kd", "embedding": "none"}, "kd"),
    ):
        print_verified(replace(VERIFIED, rows=(replace(STUDENT, distillation=distillation),)))
        assert f" {shown} " in capsys.readouterr().out


def test_what_was_found_is_said_in_sentences() -> None:
    text = " ".join(findings(VERIFIED))
    assert "1 of 1 students on the front of the search were verified; 1 of 1 are on the verified front." in text
    assert "3 of 6 runs are finished" in text
    assert "flattered its front by +0.0300 on average" in text
    assert "less that on test images: +0.0400" in text
    assert "beyond noise it helped 1 and harmed 0 of 1 students" in text
    assert "Accuracy within noise of a student that is at least as cheap in every cost: 3." in text


def test_the_latency_that_was_compared_is_named_and_drawn() -> None:
    words = "Verdicts take latency_ms of the exported file, which is what ships."
    objectives = (("accuracy", "maximize"), ("latency_ms", "minimize"))
    files = replace(VERIFIED, objectives=objectives, of_files=("latency_ms",), judged=words)
    assert words in findings(files)
    assert _axis(files) == "file_latency_ms"
    assert _axis(replace(files, of_files=(), judged="")) == "latency_ms"  # what the verdicts are of
    assert _axis(VERIFIED) == "file_latency_ms"  # no latency is judged: that of the file is drawn


def test_a_loss_beyond_noise_is_called_harm_and_a_fall_is_named() -> None:
    fallen = replace(STUDENT, verdict="falls", gain=Difference(-0.05, -0.08, -0.02, 3), rivals=())
    text = " ".join(findings(replace(VERIFIED, rows=(fallen, TWIN, TEACHER))))
    assert "it helped 0 and harmed 1 of 1 students" in text
    assert "0 of 1 are on the verified front; fell off: 3." in text


def test_the_report_notes_that_one_seed_gives_no_spread() -> None:
    once = replace(STUDENT, gain=Difference(0.02, 0.01, 0.03, 1))
    text = " ".join(findings(replace(VERIFIED, rows=(once, TWIN, TEACHER), seeds=1)))
    assert "gained +0.0200 accuracy on average over 1 student; with one seed this may be chance ('?')." in text
    assert "beyond noise" not in text
    both = replace(VERIFIED, rows=(STUDENT, replace(once, trial=4), TEACHER))  # a budget ended between the seeds
    text = " ".join(findings(both))
    assert "beyond noise it helped 1 and harmed 0 of 1 students" in text
    assert "('?': within noise, or only one seed: 1)." in text
    found: Any = SimpleNamespace(trial=3, source=Source("search", 0))
    assert "which may be chance: one seed is not enough." in card_section(replace(VERIFIED, rows=(once,)), found)
    assert "(95 % interval +0.0100 to +0.0300), more than chance." in card_section(VERIFIED, found)


def test_the_findings_name_how_much_of_the_front_was_verified() -> None:
    text = " ".join(findings(replace(VERIFIED, front_before=4)))
    assert "1 of 4 students on the front of the search were verified; they are compared with each other only." in text


def test_command_and_report_say_one_figure_of_flattery_and_over_whom() -> None:
    near = replace(STUDENT, trial=9, before=False, flattered=0.09)
    both = replace(VERIFIED, rows=(STUDENT, near, TEACHER))
    assert "flattered its front by +0.0300 on average over 1 student (" in both.flattery
    assert both.flattery in findings(both)
    assert both.flattery in verification_words(both)
    low = replace(VERIFIED, rows=(replace(STUDENT, flattered=-0.018),))
    assert low.flattery.startswith("The search had shown its front 0.0180 too low on average over 1 student (")
    alone = replace(VERIFIED, rows=(near,))
    assert "flattered students outside its front by +0.0900 on average over 1 student (" in alone.flattery


def test_nothing_is_said_of_flattery_after_training_on_validation_too() -> None:
    row = replace(STUDENT, flattered=None, validation=None)
    text = " ".join(findings(replace(VERIFIED, rows=(row,), refit="train+val")))
    assert "trained on the validation images too" in text


def test_a_study_without_folder_or_without_images_cannot_be_verified() -> None:
    keys: dict[str, Any] = {"space": {"student": {"width": [1, 2]}}, "objectives": ["accuracy"], "epochs": 1}
    with pytest.raises(UsageError, match="is in memory"):
        ad.verify(ad.Study.create(**keys))


def test_a_study_with_an_evaluation_of_its_own_cannot_be_verified(tmp_path: Any) -> None:
    keys: dict[str, Any] = {"space": {"student": {"width": [1, 2]}}, "objectives": ["accuracy"], "epochs": 1}
    with pytest.raises(UsageError, match="names no data"):
        ad.verify(ad.Study.create(**keys, directory=tmp_path / "s"))


def test_a_folder_that_is_no_study_is_not_made_into_one(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="is not a study"):
        ad.verify(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_the_table_has_a_trained_objective_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    print_verified(FOUR)
    header, student, *_, teacher = capsys.readouterr().out.splitlines()  # the verdict may take a second line
    assert "balanced_accuracy" in header
    assert "0.6000 ± 0.0100 [0.550, 0.650]" in student
    assert "0.8500 ± 0.0100 [0.800, 0.900]" in teacher


def test_lost_classes_are_named_with_what_they_are_taken_for() -> None:
    text = " ".join(findings(FOUR))
    assert "warning: classes that are never recognised on the test images: trial 3: owl." in text
    assert (
        "Trial 3 falls furthest below its teacher (in brackets) in the recall of: owl 0.00 (0.80; 100% taken for yak), "
        "dog 0.50 (0.90; 50% taken for owl), cat 0.90 (0.95; 10% taken for dog)." in text
    )


def test_a_teacher_that_the_validation_images_flatter_is_said() -> None:
    def found(validation: float) -> str:
        teacher = replace(TEACHER, accuracy=Figure(0.80, None, 0.76, 0.84), validation=Figure(validation))
        return " ".join(findings(replace(VERIFIED, rows=(STUDENT, TWIN, teacher))))

    assert "teacher is right on 0.9500 of the validation images and on 0.8000 of the test images" in found(0.95)
    assert "teacher is right" not in found(0.84)  # 216 and 360 images: may be chance
