"""What cannot serve the task of a study is refused by name, or left out of a built-in space; no sampler proposes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodistill as ad
from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import ConfigError
from autodistill.engines.setup.check_names import check_first, check_study
from autodistill.engines.setup.served_task import leave_out_unusable
from autodistill.engines.setup.study_setup import build_study, config_space, open_to_read
from autodistill.search.space.builtin import space_names

SCENES: dict[str, Any] = {"source": "synthetic_scenes", "options": {"count": 120, "size": 16, "classes": 3}}
TWO: dict[str, Any] = {"source": "synthetic", "options": {"count": 60, "size": 16, "classes": 2}}
OWN = {
    "student": {"family": "resnet", "width": [4, 8], "depth": 1},
    "distillation": {"loss": ["none", "kd", "dkd", "logit_std"], "alpha": 0.5},
    "train": {"lr": 0.01},
}


def _checked(**keys: Any) -> None:
    config = StudyConfig.load({"epochs": 1, **keys})
    check_first(config)
    check_study(config, config_space(config))


def _losses(space: Any) -> set[Any]:
    rng = np.random.default_rng(0)
    return {space.nest(space.sample(rng))["distillation"].get("loss") for _ in range(300)}


@pytest.mark.parametrize("name", space_names())
def test_losses_for_one_class_are_left_out_of_built_in_spaces(name: str) -> None:
    config = StudyConfig.load({"data": SCENES, "task": "multilabel", "space": name})
    config, notes = leave_out_unusable(config, config_space(config))
    space = config_space(config)
    assert not _losses(space) & {"dkd", "nkd", "logit_std"}
    assert {"none", "kd"} <= _losses(space)
    assert any("'dkd' cannot serve task: multilabel" in note for note in notes)
    assert not any(p.name.startswith("distillation.dkd") for p in space.parameters)  # nor their own keywords


@pytest.mark.parametrize("sampler", ["front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc"])
def test_no_sampler_proposes_a_loss_without_a_gradient_for_two_classes(sampler: str) -> None:
    study = ad.Study.create(
        data=TWO, space="digits", sampler=sampler, epochs=1, survey="off", objectives=["accuracy", "params"]
    )
    assert any("'logit_std' cannot teach 2 classes" in note for note in study.notes)
    proposed = set()
    with study.running("12trials"):
        for _ in range(12):
            candidate = study.ask()
            assert candidate is not None
            proposed.add(candidate.distillation["loss"])
            study.report(candidate, ad.Report(0, {"params": 100.0 + candidate.number}))
            study.report(candidate, ad.Report(1, {"accuracy": 0.5, "params": 100.0 + candidate.number}, 1.0, 1.0))
            study.close(candidate)
    assert "logit_std" not in proposed
    assert len(proposed) > 1


def test_more_than_two_classes_keep_every_loss() -> None:
    three = {"source": "synthetic", "options": {"count": 60, "size": 16, "classes": 3}}
    config = StudyConfig.load({"data": three, "space": "digits"})
    config, notes = leave_out_unusable(config, config_space(config))
    assert not notes
    assert not config.left_out


def test_a_loss_of_the_users_own_space_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'dkd' cannot serve task: multilabel; allowed: dist, hard, kd"):
        _checked(data=SCENES, task="multilabel", space=OWN)
    with pytest.raises(
        ConfigError, match=r"'logit_std' cannot teach 2 classes.*leave it out: --set distillation.loss=none,kd,dkd"
    ):
        _checked(data=TWO, space=OWN)
    kept = {**OWN, "distillation": {"loss": ["none", "kd"], "alpha": 0.5}}
    _checked(data=SCENES, task="multilabel", space=kept)


def test_a_loss_that_the_user_set_is_refused_although_the_space_is_built_in() -> None:
    with pytest.raises(ConfigError, match="'dkd' cannot serve task: multilabel"):
        build_study(
            StudyConfig.load(
                {"data": SCENES, "task": "multilabel", "space": "tiny", "set": {"distillation.loss": ["none", "dkd"]}}
            ),
            None,
        )


def test_measures_settings_and_images_of_the_other_task_are_refused_by_name() -> None:
    kept = {**OWN, "distillation": {"loss": ["none", "kd"], "alpha": 0.5}}
    with pytest.raises(
        ConfigError, match="'top5_accuracy' cannot serve task: multilabel; allowed: auroc, average_precision"
    ):
        _checked(data=SCENES, task="multilabel", space=kept, objectives=["top5_accuracy", "params"])
    with pytest.raises(ConfigError, match="'micro_f1' cannot serve task: multiclass"):
        _checked(data="digits", space=kept, objectives=["micro_f1", "params"])
    with pytest.raises(ConfigError, match="sampler: balanced cannot serve task: multilabel"):
        _checked(data=SCENES, task="multilabel", space=kept, training={"sampler": "balanced"})
    with pytest.raises(ConfigError, match="'digits' gives one class per image, but task: multilabel"):
        _checked(data="digits", task="multilabel", space=kept)
    with pytest.raises(ConfigError, match="set task: multilabel"):
        _checked(data=SCENES, space=kept)


def test_the_default_objective_of_several_labels_is_average_precision() -> None:
    config = StudyConfig.load({"data": SCENES, "task": "multilabel"})
    assert config.objectives == ("average_precision", "params", "latency_ms")
    assert StudyConfig.load({"data": "digits"}).objectives[0] == "accuracy"


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="task"):
        StudyConfig.load({"data": SCENES, "task": "multi-label"})


def test_a_study_keeps_what_was_left_out_when_it_is_resumed(tmp_path) -> None:
    keys = {"data": TWO, "space": "digits", "epochs": 1, "survey": "off", "objectives": ["accuracy", "params"]}
    first = ad.Study.create(**keys, directory=tmp_path / "study")
    assert first.config.left_out == {"distillation.loss": ["logit_std"]}
    again = ad.Study.create(**keys, directory=tmp_path / "study")
    assert again.config.left_out == first.config.left_out
    assert _losses(again.space) == _losses(first.space)
    assert "logit_std" not in _losses(open_to_read(tmp_path / "study").space)
