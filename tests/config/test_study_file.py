from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autodistill.config.study_file import MAY_CHANGE, StudyConfig, differences
from autodistill.core import strict_yaml
from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.records import DataSpec, LatencyTarget, TeacherSpec
from autodistill.search.space import builtin as spaces


def problems_of(source: Any, overrides: dict[str, Any] | None = None, **keywords: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        StudyConfig.load(source, overrides, **keywords)
    return caught.value.problems


@pytest.mark.parametrize(
    ("key", "value"), [("data.seed", -1), ("data.seed", 2**31), ("latency.timeout_s", 0), ("latency.timeout_s", -1.0)]
)
def test_amounts_of_a_section_have_limits(key: str, value: float) -> None:
    assert key in problems_of({"data": "digits"}, {key: value})[0]


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_nothing_given_is_the_embedded_digits_study() -> None:
    config = StudyConfig.load(None)
    assert config.data == DataSpec("digits")
    assert config.teacher == TeacherSpec("auto")
    assert (config.name, config.space, config.sampler) == ("digits", "digits", "front")
    assert config.objectives == ("accuracy", "params", "latency_ms")
    assert (config.rungs, config.survey, config.budget, config.workers) == ("auto", "auto", None, None)


@pytest.mark.parametrize(
    ("data", "space"),
    [
        ("digits", "small"),
        ("fashion_mnist", "middle"),
        ({"source": "digits", "image_size": 28}, "middle"),
        ({"source": "image_folder", "image_size": 48}, "middle"),
        ({"source": "image_folder", "image_size": 160}, "large"),
        ("image_folder", "middle"),
        ("mymodule:images", "large"),
    ],
)
def test_the_space_is_the_one_made_for_the_size_of_the_images(
    data: Any, space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, sizes in (("small", [8, 16]), ("middle", [28, 32]), ("large", [160, 256])):
        (tmp_path / f"{name}.yaml").write_text(f"image_sizes: {sizes}\nstudent: {{width: [1, 2]}}\n")
    monkeypatch.setattr(spaces, "_FOLDERS", (tmp_path,))
    assert StudyConfig.load({"data": data}).space == space


def test_a_space_of_ones_own_without_data_is_a_study_without_images() -> None:
    config = StudyConfig.load({"space": {"student": {"width": [1, 2]}}, "objectives": ["accuracy", "params"]})
    assert config.data is None
    assert config.epochs is None


def test_texts_are_short_for_the_source_and_lists_may_be_texts_with_commas() -> None:
    short = StudyConfig.load({"data": "synthetic", "teacher": "resnet18", "objectives": "accuracy, macs"})
    long = StudyConfig.load(
        {"data": {"source": "synthetic"}, "teacher": {"source": "resnet18"}, "objectives": ["accuracy", "macs"]}
    )
    assert short == long


def test_values_of_the_rooms_are_taken_as_they_are() -> None:
    data, teacher = (
        DataSpec("synthetic", train_size=50, options={"classes": 4}),
        TeacherSpec("resnet18", accept_weak=True),
    )
    config = StudyConfig.load({"data": data, "teacher": teacher, "latency": LatencyTarget(batch=8)})
    assert (config.data, config.teacher, config.latency.batch) == (data, teacher, 8)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        StudyConfig.load(None).seed = 3  # type: ignore[misc]


def test_every_problem_is_reported_at_once_with_file_line_and_nearest_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "dta: digits\n"
        "data: {source: image_folder, rooot: x, train_size: 0}\n"
        "objectives: [accuracy, latncy]\n"
        "constraints: ['parms <= 1e6']\n"
        "sampler: frnt\n"
        "budget: 5 parsecs\n"
        "epochs: 2.5\n"
        "workers: two\n"
        "rungs: {eta: 1}\n",
    )
    found = problems_of(path)
    expected = [
        ("1: dta", "did you mean 'data'?"),
        ("2: data.train_size", "got 0; it must be at least 2"),
        ("2: data.rooot", "did you mean 'root'? allowed: root, "),
        ("3: objectives", "did you mean 'latency_ms'"),
        ("4: constraints.0", "did you mean 'params'"),
        ("5: sampler", "did you mean 'front'? allowed: front, "),
        ("6: budget", "cannot read '5parsecs'"),
        ("7: epochs", "expected a whole number, got 2.5"),
        ("8: workers", "expected a whole number, got 'two'"),
        ("9: rungs", "eta is 1"),
    ]
    assert len(found) == len(expected)
    for text, (place, said) in zip(found, expected, strict=True):
        assert text.startswith(f"{path}:{place}: ")
        assert said in text


@pytest.mark.parametrize("key", sorted(StudyConfig.model_fields))
def test_a_key_with_a_letter_missing_names_the_right_one(key: str) -> None:
    misspelt = key[:-2] + key[-1] if len(key) > 3 else key + "s"
    (problem,) = problems_of({misspelt: 1})
    assert f"did you mean {key!r}?" in problem


def test_a_misspelt_required_key_is_one_problem_not_two() -> None:
    assert len(problems_of({"data": {"sorce": "digits"}})) == 1


def test_flags_are_named_in_messages_about_them(tmp_path: Path) -> None:
    path = write(tmp_path, "data: digits\n")
    found = problems_of(path, {"data.image_size": 2, "sampler": "gpp"}, flags={"data.image_size": "--image-size"})
    assert any(text.startswith("--image-size: got 2") for text in found)


def test_overrides_win_and_reach_into_sections(tmp_path: Path) -> None:
    path = write(
        tmp_path, "data: digits\nseed: 3\ntraining: {batch_size: 32, ema: 0.9}\nset: {student.family: [resnet]}\n"
    )
    config = StudyConfig.load(
        path,
        {"data.train_size": 500, "seed": None, "training.batch_size": 64, "set": {"train.lr": 0.01}, "budget": "2h"},
    )
    assert config.data == DataSpec("digits", train_size=500)
    assert config.seed == 3
    assert config.training == {"batch_size": 64, "ema": 0.9}
    assert config.set == {"student.family": ["resnet"], "train.lr": 0.01}
    assert config.budget == "2h"


def test_paths_count_from_the_study_file_and_flags_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = write(
        tmp_path, "data: {source: image_folder, root: photos}\nteacher: t/teacher.safetensors\nspace: my.yaml\n"
    )
    config = StudyConfig.load(path)
    assert config.data is not None
    assert config.data.root == str(tmp_path / "photos")
    assert config.teacher.source == str(tmp_path / "t/teacher.safetensors")
    assert config.space == str(tmp_path / "my.yaml")
    flagged = StudyConfig.load(path, {"data.root": "photos", "teacher": "resnet18"})
    assert flagged.data is not None
    assert flagged.data.root == str(tmp_path / "here" / "photos")
    assert flagged.teacher.source == "resnet18"


def test_resolved_reads_back_as_an_equal_configuration_through_yaml(tmp_path: Path) -> None:
    config = StudyConfig.load(
        {
            "data": {"source": "synthetic", "image_size": 32, "options": {"classes": 5}},
            "set": {"train.lr": {"low": 1e-3, "high": 1e-2}},
            "constraints": "params <= 1e6",
            "rungs": {"eta": 4, "lowest": 0.1},
            "budget": "2h,40trials",
        }
    )
    path = write(tmp_path, strict_yaml.dump(config.resolved()))
    assert StudyConfig.load(path) == config


def test_differences_name_each_key_with_both_values_and_leave_out_what_may_change() -> None:
    old = StudyConfig.load({"data": "digits", "budget": "5m", "workers": 1, "engine": "local", "name": "a"})
    new = StudyConfig.load({"data": "digits", "budget": "9m", "workers": 2, "engine": "ray", "name": "b"})
    kept = ("name", "budget", "workers", "engine", "devices_per_trial", "slots_per_gpu", "warm_start", "within")
    assert kept == MAY_CHANGE
    assert differences(old, new) == []
    other = StudyConfig.load({"data": {"source": "digits", "train_size": 100}, "seed": 5, "training": {"ema": 0.9}})
    assert differences(old, other) == [
        "data.train_size: the study has none, this run has 100",
        "training.ema: the study has none, this run has 0.9",
        "seed: the study has 0, this run has 5",
    ]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no study file .* create one with 'autodistill init'"):
        StudyConfig.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["- 1\n", "digits\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    assert "expected keys such as 'data: digits'" in problems_of(write(tmp_path, text))[0]


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a\nb", "x" * 101])
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    assert "name: got" in problems_of({"name": name})[0]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("survey", "on", "allowed: auto, off, or the number"),
        ("survey", 1, "at least 2"),
        ("space", 3, "give a built-in name"),
        ("rungs", {"lowst": 0.1}, "unknown key 'lowst'"),
        ("rungs", {"lowest": 0}, "lowest is 0"),
        ("rungs", {"levels": []}, "levels is []"),
        ("objectives", [], "no objective given"),
        ("objectives", ["params", "params"], "given twice"),
        ("teacher", 3, "expected text or a mapping"),
        ("latency", {"batch": 0}, "at least 1"),
        ("seed", True, "expected a whole number, got True"),
        ("constraints", ["accuracy >= 90"], "from 0 to 1; write >= 0.9 for 90 %"),
        ("constraints", ["agreement >= -1"], "agreement is a fraction, from 0 to 1."),
        ("training", [1], "expected a mapping of names to values"),
    ],
)
def test_impossible_values_say_what_is_allowed(key: str, value: Any, said: str) -> None:
    assert said in problems_of({key: value})[0]


def test_a_study_of_ones_own_may_constrain_its_own_objectives_only() -> None:
    own = {"space": {"student": {"a": [1, 2]}}, "objectives": ["energy:minimize", "accuracy"]}
    assert StudyConfig.load({**own, "constraints": ["energy <= 3"]}).constraints == ("energy <= 3",)
    assert "unknown metric 'macs'" in problems_of({**own, "constraints": ["macs <= 3"]})[0]
    percent = ("accuracy >= 90",)  # what a user's own function calls accuracy may be anything
    assert StudyConfig.load({**own, "constraints": percent}).constraints == percent


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(StudyConfig.model_fields)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_whatever_is_given_is_a_configuration_or_a_usage_error(keys: dict[str, Any]) -> None:
    try:
        config = StudyConfig.load(keys)
    except UsageError:
        return
    assert StudyConfig.load(config.resolved()) == config


def test_an_option_of_the_teacher_written_as_a_key_is_refused_with_the_right_place():
    keys = {"data": "digits", "teacher": "resnet18", "teacher.image_size": 32}
    with pytest.raises(
        ConfigError, match=r"--set teacher.image_size: this is an option .* write teacher.options.image_size"
    ):
        StudyConfig.load(None, keys, flags={"teacher.image_size": "--set teacher.image_size"})


def test_wrong_restrictions_are_reported_with_their_line_beside_all_else(tmp_path: Path) -> None:
    path = write(tmp_path, "data: digits\nbudget: often\nset:\n  student.family: [resnt]\n  student.wdth: 4\n")
    said = problems_of(path, {"set": {"train.lr": 7.0}}, flags={"set.train.lr": "--set train.lr"})
    assert [text.split(": ")[0] for text in said] == ["--set train.lr", f"{path}:2", f"{path}:4", f"{path}:5"]
    assert "set.student.family: 'resnt' is not in the space; did you mean 'resnet'?" in said[2]
