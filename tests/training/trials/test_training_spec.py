"""A candidate's mappings become a loss mix and a recipe once, at the entrance of a training."""

import pickle
from pathlib import Path

import pytest

from autodistill.core.errors import UnknownNameError
from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import MAX_VIEWS, Recipe
from autodistill.training.trials.evaluate import evaluator
from autodistill.training.trials.finetune import FineTuner
from autodistill.training.trials.training_spec import TrainingSpec

STUDENT = {"family": "resnetv2", "width": 4, "stages": 2}
DISTILLATION = {"loss": "kd", "temperature": 3.7, "alpha": 0.7, "teacher": "large"}


def test_the_sections_of_a_candidate_become_a_loss_mix_a_recipe_and_the_name_of_a_teacher() -> None:
    candidate = Candidate(4, STUDENT, DISTILLATION, {"lr": 0.01}, seed=9, start_rung=2)
    spec = TrainingSpec.of(candidate, {"batch_size": 16, "lr": 0.5, "label_smoothing": 0.1})
    weights = {"task_weight": 0.1, "distillation_weight": 0.9}  # the published ones of kd, unused with calibration
    assert spec.mix == LossMix("kd", 0.7, {"temperature": 3.7}, label_smoothing=0.1, **weights)
    assert spec.recipe == Recipe(lr=0.01, batch_size=16, label_smoothing=0.1)
    assert (spec.number, spec.student, spec.seed, spec.start_rung) == (4, STUDENT, 9, 2)
    assert spec.teacher == "large"
    assert spec.settings_key == candidate.key()
    assert spec.proposed == {"distillation": DISTILLATION, "train": {"lr": 0.01}}
    assert pickle.loads(pickle.dumps(spec)) == spec  # helper processes get it through a pipe


def test_the_label_smoothing_of_the_loss_mix_overrides_that_of_the_recipe() -> None:
    candidate = Candidate(0, STUDENT, {"label_smoothing": 0.2}, {"label_smoothing": 0.1}, seed=0)
    assert TrainingSpec.of(candidate, {}).mix.label_smoothing == 0.2


@pytest.mark.parametrize(("section", "settings"), [("distillation", {"temprature": 2.0}), ("train", {"lrr": 0.1})])
def test_an_unknown_setting_is_refused(section: str, settings: dict[str, float]) -> None:
    sections = {"distillation": {"loss": "kd"}, "train": {}, section: settings}
    with pytest.raises(UnknownNameError, match=r"temperature|lr"):
        TrainingSpec.of(Candidate(0, STUDENT, **sections, seed=0), {})


def test_a_training_parses_its_candidate_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    parse, parse_mix = Recipe.parse, LossMix.parse
    monkeypatch.setattr(Recipe, "parse", lambda *layers, **more: parsed.append("recipe") or parse(*layers, **more))
    monkeypatch.setattr(LossMix, "parse", lambda mapping, **more: parsed.append("mix") or parse_mix(mapping, **more))
    data = DataSpec("synthetic", options={"classes": 4, "count": 80, "size": 8})
    task = Task(data, TeacherSpec("timm:none"), str(tmp_path), (1,), ("accuracy",), cache=str(tmp_path / "cache"))
    candidate = Candidate(0, STUDENT, {"loss": "none"}, {"lr": 0.01, "ema": 0.0}, seed=0)
    reports = evaluator(task, WorkerContext())(candidate)
    assert next(reports).rung == 0
    reports.close()
    assert sorted(parsed) == ["mix", "recipe"]


@pytest.mark.parametrize(("views", "top", "cached"), [(0, 8, 8), (0, 200, MAX_VIEWS), (3, 200, 3)])
def test_views_are_the_epochs_up_to_a_bound_unless_they_are_set(views: int, top: int, cached: int) -> None:
    assert Recipe(views=views).cached_views(top) == cached


@pytest.mark.parametrize(("train", "views"), [({}, 8), ({"views": 3}, 3)])
def test_fine_tuning_uses_the_views_that_its_trial_cached(
    tmp_path: Path, train: dict[str, int], views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"mean": [0.5], "std": [0.25]}
    monkeypatch.setattr("autodistill.training.trials.finetune.student_facts", lambda folder, number: facts)
    task = Task(DataSpec("digits"), TeacherSpec(), str(tmp_path), (2, 8), ("accuracy",))
    tuner = FineTuner(task, Candidate(0, STUDENT, {"loss": "kd"}, train, seed=0), epochs=2)
    assert tuner._trial.spec.recipe.cached_views(2) == views
