"""Misspelt names are refused where a study is made, from Python and from the command line alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hub_cache import lay_hub_cache
from places import ROOT

import autodistill as ad
from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import ConfigError, UsageError

MISSPELT = [
    ({"data": "digit"}, "unknown data source 'digit'; did you mean 'digits'?"),
    ({"teacher": "resnt18"}, "unknown teacher 'resnt18'; did you mean 'resnet18'"),
    ({"teacher": ["resnet18", "resnt26d"]}, "unknown teacher 'resnt26d'; did you mean 'resnet26d'"),
    ({"teacher": "nowhere/teacher.onnx"}, "teacher.onnx: that file does not exist"),
    ({"teacher": "nowhere/folder"}, "folder: that folder or file does not exist"),
    ({"engine": "locl"}, "unknown engine 'locl'; did you mean 'local'?"),
    ({"training": {"batchsize": 3}}, "unknown training setting 'batchsize'; did you mean 'batch_size'"),
    ({"space": {"student": {"family": "resnt"}}, "data": "digits"}, "'resnt'; did you mean 'resnet'"),
    ({"space": {"student": {"family": "resnet"}, "distillation": {"loss": "dkdd"}}, "data": "digits"}, "'dkdd'; did"),
]


OVERRIDDEN = [
    (
        {"space": "mobile", "training": {"lr": 0.02}},
        "training.lr: the space searches train.lr (0.001 to 0.03 (log)), so this would have no effect; "
        "write --set train.lr=0.02, or in a study file set: {train.lr: 0.02}",
    ),
    ({"space": "mobile", "training": {"augment": "colour"}}, "write --set train.augment=VALUE"),
    (
        {"space": {"student": {"family": "resnet"}, "train": {"lr": 0.1}}, "training": {"lr": 0.02}},
        "training.lr: the space fixes train.lr to 0.1, so this would have no effect; change it in the space",
    ),
]
"""Settings of all trials that the space decides for each."""

ELSEWHERE = [
    (
        {"space": "mobile", "set": {"train.augment": "colour"}},
        "to add values, write a file with 'include: SPACE' and 'train: {augment: [...]}'",
    ),
    (
        {"space": "cpu", "set": {"student.resnet.width": 7}},
        "a file with 'include: SPACE' and 'student: {resnet: {width: [...]}}', and give it as --space FILE",
    ),
    (
        {"space": "mobile", "set": {"train.ema": 0.9}},
        "train.ema: not a parameter of this space; a setting that all trials share is written training.ema",
    ),
    (
        {"space": {"student": {"family": "resnet"}, "train": {"lr": 0.1}}, "set": {"train.lr": 0.02}},
        "train.lr: not a parameter of this space, which fixes it to 0.1; to add values, write",
    ),
]
"""Values and settings that a space does not search."""


@pytest.mark.parametrize(("keys", "said"), OVERRIDDEN + ELSEWHERE)
def test_a_setting_without_effect_or_outside_the_space_is_refused_with_what_does_it(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as created:
        ad.Study.create(data="digits", **keys, directory=tmp_path / "study")
    assert said in str(created.value)
    assert not (tmp_path / "study").exists()


def test_a_setting_for_all_trials_may_repeat_what_the_space_fixes(tmp_path: Path) -> None:
    space = {"student": {"family": "resnet"}, "train": {"lr": 0.1}}
    study = ad.Study.create(data="digits", space=space, training={"lr": 0.1, "ema": 0.9}, directory=tmp_path / "study")
    assert study.config.training == {"lr": 0.1, "ema": 0.9}


def test_what_a_message_says_widens_the_space(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("include: mobile\ntrain: {augment: [colour, photo]}\n")
    keys = {"data": "digits", "space": str(tmp_path / "mine.yaml"), "set": {"train.augment": "colour"}}
    study = ad.Study.create(**keys, directory=tmp_path / "study")
    augment = next(p for p in study.space.parameters if p.name == "train.augment")
    assert augment.distribution.choices == ("colour",)


@pytest.mark.parametrize(("keys", "said"), MISSPELT)
def test_a_misspelt_name_is_refused_when_the_study_is_made_and_nothing_is_written(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as created:
        ad.Study.create(**keys, directory=tmp_path / "study")
    assert said in str(created.value)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(keys))
    with pytest.raises(ConfigError) as opened:
        ad.Study.open(tmp_path / "study.yaml", directory=tmp_path / "study")
    assert said in str(opened.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data": "digit", "engine": "locl"}, ["unknown engine 'locl'", "unknown data source 'digit'"]),
        (
            {"data": "digits", "teacher": "resnt18", "training": {"batchsize": 3}},
            ["unknown teacher 'resnt18'", "unknown training setting 'batchsize'"],
        ),
    ],
    ids=["known without torch", "known with torch"],
)
def test_every_misspelt_name_of_a_kind_is_reported_at_once(keys: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        ad.Study.create(**keys)
    assert [problem.split(";")[0] for problem in caught.value.problems] == said


RUNGS: dict[str, Any] = {"data": "digits", "space": "digits", "rungs": {"levels": [2, 6, 18]}}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"epochs": 30}, ["epochs: got 30, but rungs.levels ends at 18, the epochs of a full training"]),
        (
            {"epochs": 18, "rungs": {"levels": [2, 6, 18], "lowest": 0.5}},
            ["rungs: got lowest=0.5, but levels=[2, 6, 18] lists every rung"],
        ),
    ],
)
def test_settings_that_levels_would_overrule_are_refused(tmp_path: Path, more: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        ad.Study.create(**{**RUNGS, **more}, directory=tmp_path / "study")
    assert [problem.split(";")[0] for problem in caught.value.problems] == said
    assert not (tmp_path / "study").exists()


def test_levels_say_how_long_a_full_training_is(tmp_path: Path) -> None:
    study = ad.Study.create(**RUNGS, directory=tmp_path / "study")
    assert (study.config.epochs, study.rungs.levels) == (18, (2, 6, 18))
    assert ad.Study.create(**RUNGS, epochs=18, directory=None).config.epochs == 18
    own = {"space": {"student": {"width": [1, 2]}}, "objectives": ["accuracy", "params"]}
    assert ad.Study.create(**own, rungs={"levels": [1, 3]}, directory=None).config.epochs == 3


def test_a_study_of_old_whose_levels_overruled_its_settings_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    ad.Study.create(**RUNGS, directory=folder)
    stored = yaml.safe_load((folder / "study.yaml").read_text())
    old = {**stored, "epochs": 30, "rungs": {"levels": [2, 6, 18], "lowest": 0.5}}
    (folder / "study.yaml").write_text(yaml.safe_dump(old))
    assert ad.Study.open(folder).rungs.levels == (2, 6, 18)
    assert ad.Study.create(**RUNGS, directory=folder).rungs.levels == (2, 6, 18)
    with pytest.raises(UsageError, match=r"epochs: the study has 18, this run has 9"):
        ad.Study.create(**{**RUNGS, "rungs": "auto"}, epochs=9, directory=folder)


def python(code: str) -> None:
    """Run ``code`` in a process that has loaded nothing yet."""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_images_that_are_not_there_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    folder = {"source": "image_folder", "root": str(tmp_path / "nowhere")}
    python(
        "import sys, pytest, autodistill as ad\n"
        "from autodistill.core.errors import UsageError\n"
        f"for data, said in (('digit', \"did you mean 'digits'\"), ({folder!r}, 'is not a folder')):\n"
        "    with pytest.raises(UsageError, match=said):\n"
        f"        ad.Study.create(data=data, directory={str(tmp_path / 'study')!r})\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["search"], ["search", "--dry-run"], ["teach"], ["init", "study.yaml"]])
def test_the_command_line_says_the_same_before_anything_is_printed_written_or_loaded(
    tmp_path: Path, command: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        ad.Study.create(data="digit")
    python(
        "import os, sys\n"
        "from typer.testing import CliRunner\n"
        "from autodistill.cli import app\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"result = CliRunner().invoke(app, [*{command!r}, '--data', 'digit'])\n"
        "assert (result.exit_code, result.stdout) == (2, ''), result.output\n"
        "assert result.stderr.startswith('error: '), result.stderr\n"
        f"assert {caught.value.problems[0]!r} in result.stderr\n"
        "assert not {'torch', 'timm', 'optuna'} & set(sys.modules)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("by_command", [True, False])
def test_each_check_runs_once_when_a_study_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_command: bool
) -> None:
    from autodistill.commands import search_run
    from autodistill.engines.setup import check_names, study_setup

    ran: list[str] = []

    def counted(module: ModuleType, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **keys: ran.append(name) or real(*args, **keys))

    counted(check_names, "check_first")
    counted(check_names, "check_study")
    counted(study_setup, "check_same")
    config = StudyConfig.load({"data": "digits", "epochs": 3, "budget": "1trials"})
    if by_command:

        def stop(study: ad.Study, **options: Any) -> None:
            raise UsageError("far enough")

        monkeypatch.setattr("autodistill.api.search", stop)
        with pytest.raises(UsageError, match="far enough"):
            search_run.run(config, tmp_path / "study", as_json=True, tensorboard=False, options={})
    else:
        study_setup.build_study(config, tmp_path / "study")
    assert ran == ["check_first", "check_same", "check_study"]


def test_a_name_that_is_right_the_second_time_makes_the_study_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "test_resnet")
    folder = tmp_path / "study"
    with pytest.raises(UsageError):
        ad.Study.create(data="digits", teacher="test_resnt", directory=folder)
    assert (
        ad.Study.create(data="digits", teacher="test_resnet", directory=folder).config.teacher.source == "test_resnet"
    )


def test_opening_a_study_again_looks_only_at_what_may_be_new_and_loads_no_torch(tmp_path: Path) -> None:
    ad.Study.create(data="digits", directory=tmp_path)
    with pytest.raises(ConfigError, match="unknown engine 'locl'"):
        ad.Study.open(tmp_path, engine="locl")
    python(
        "import sys, autodistill as ad\n"
        f"study = ad.Study.open({str(tmp_path)!r})\n"
        "assert study.config.data.source == 'digits'\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )


def test_a_study_can_be_opened_to_be_read_where_its_images_are_not(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    keys = {"source": "image_folder", "root": str(tmp_path / "photos"), "image_size": 16}
    ad.Study.create(data=keys, space={"student": {"family": "resnet"}}, directory=tmp_path / "study")
    (tmp_path / "photos").rmdir()
    assert ad.Study.open(tmp_path / "study").config.data.source == "image_folder"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"objectives": ["accuracy", "f2:maximize:trained"]}, "objective 'f2' is computed by nothing"),
        ({"objectives": ["accuracy", "energy:minimize"]}, "objective 'energy' is computed by nothing"),
        ({"objectives": ["balanced_acuracy:maximize:trained"]}, "did you mean 'balanced_accuracy'"),
        ({"measures": {"f2": "no_such_module:f2"}}, "cannot import 'no_such_module:f2'"),
        ({"measures": {"ece": "math:sqrt"}}, "'ece' is the name of a built-in measure"),
        ({"measures": {"f2": "math"}}, "must be module:function"),
        ({"objectives": ["f2"], "measures": {"f2": "math:sqrt"}}, "f2"),
    ],
)
def test_a_metric_that_nothing_computes_is_refused_when_the_study_is_made(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ad.create_study(data="digits", space="digits", **keys)


def test_measures_are_objectives_and_constraints_by_name() -> None:
    study = ad.create_study(
        data="digits",
        space="digits",
        objectives=["balanced_accuracy", "f2:maximize", "params"],
        measures={"f2": "math:fsum"},
        constraints=["f2 >= 0.5", "worst_recall >= 0.2"],
    )
    assert [(one.name, one.stage) for one in study.objectives] == [
        ("balanced_accuracy", "trained"),
        ("f2", "trained"),
        ("params", "known"),
    ]
