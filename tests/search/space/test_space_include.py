"""Search spaces made of others: what is laid over what, what goes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autodistill.cli import app
from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import ConfigError, UsageError
from autodistill.engines.setup.study_setup import config_space
from autodistill.search.space import builtin as spaces
from autodistill.search.space.include import merge
from autodistill.search.space.space import Space

run = CliRunner()


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> dict[str, Any]:
    return spaces.load_space(str(write(folder, "mine.yaml", text)))


def test_a_choice_above_replaces_the_one_below_and_its_dead_groups_and_conditions_go(tmp_path: Path) -> None:
    found = load(tmp_path, "include: tiny\nstudent: {family: [resnet]}\ndistillation: {loss: [none, kd]}\n")
    tiny = spaces.load_space("tiny")
    assert found["student"] == {"family": ["resnet"], "resnet": tiny["student"]["resnet"]}
    assert found["distillation"]["alpha"]["when"] == {"loss": ["kd"]}
    assert "dkd" not in found["distillation"]
    assert found["train"] == tiny["train"]
    assert found["image_sizes"] == tiny["image_sizes"]
    assert set(Space.parse(found).section("student").active({"student.family": "resnet"})) == {
        "student.family", "student.resnet.width", "student.resnet.depth", "student.resnet.reduction"
    }  # fmt: skip


def test_groups_are_merged_by_key_and_ranges_and_lists_are_replaced_as_a_whole(tmp_path: Path) -> None:
    text = "include: tiny\nstudent: {resnet: {width: [64]}}\ntrain: {lr: {low: 0.1, high: 0.2}}\n"
    found = load(tmp_path, text)
    assert found["student"]["resnet"] == {**spaces.load_space("tiny")["student"]["resnet"], "width": [64]}
    assert found["train"]["lr"] == {"low": 0.1, "high": 0.2}  # and not on the old logarithmic scale
    assert found["student"]["family"] == spaces.load_space("tiny")["student"]["family"]


def test_of_several_the_later_ones_win_and_families_of_all_can_be_chosen(tmp_path: Path) -> None:
    found = load(tmp_path, "include: [tiny, vit]\n")
    assert found == merge(spaces.load_space("tiny"), spaces.load_space("vit"))
    assert found["student"]["family"] == ["vit", "xcit", "pvt_v2"]
    assert "resnet" not in found["student"]
    assert found["train"] == spaces.load_space("vit")["train"]


def test_null_takes_a_key_out_and_stays_a_value_where_there_is_none(tmp_path: Path) -> None:
    found = load(tmp_path, "include: tiny\nstudent: {family: [vit], vit: {patch: null}}\ntrain: {seed: null}\n")
    assert set(found["student"]["vit"]) == {"width", "depth"}
    assert found["train"]["seed"] is None


def test_files_count_from_the_including_file_and_may_be_parts_of_a_space(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", "losses.yaml", "distillation: {loss: [none, kd]}\n")
    write(tmp_path / "parts", "both.yaml", "include: losses.yaml\nstudent: {family: resnet, width: [4, 8]}\n")
    found = load(tmp_path, "include: parts/both.yaml\ntrain: {lr: 0.1}\n")
    assert found == {"distillation": {"loss": ["none", "kd"]}, "student": {"family": "resnet", "width": [4, 8]},
                     "train": {"lr": 0.1}}  # fmt: skip


def test_a_circle_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "include: b.yaml\n")
    write(tmp_path, "b.yaml", "include: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml includes b\.yaml includes a\.yaml"):
        spaces.load_space(str(tmp_path / "a.yaml"))


def test_two_ways_to_the_same_space_are_no_circle(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "include: tiny\n")
    assert load(tmp_path, "include: [tiny, a.yaml]\n") == spaces.load_space("tiny")


def test_what_does_not_exist_is_refused_with_the_nearest_and_the_file_that_asks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.yaml: include: unknown search space 'tinny'; did you mean 'tiny'"):
        load(tmp_path, "include: tinny\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: include: there is no search space file .*other\.yaml"):
        load(tmp_path, "include: other.yaml\n")
    for bad in ("3", "{a: 1}", "[tiny, 3]"):
        with pytest.raises(ConfigError, match="include: expected a space's name or file"):
            load(tmp_path, f"include: {bad}\n")


def test_a_misspelt_group_above_is_still_reported(tmp_path: Path) -> None:
    found = load(tmp_path, "include: tiny\nstudent: {resnett: {width: [64]}}\n")
    with pytest.raises(ConfigError, match=r"student\.resnett: no choice beside it .* did you mean 'resnet'"):
        Space.parse(found)


def test_a_study_file_includes_a_space_beside_it_from_any_working_folder(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, "mine.yaml", "student: {family: resnet, width: [4, 8, 16]}\n")
    study = write(tmp_path, "study.yaml", "data: digits\nspace: {include: mine.yaml, student: {width: [4]}}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = StudyConfig.load(study)
    assert config.space["include"] == [str(tmp_path / "mine.yaml")]
    assert config_space(config).size() == 1
    assert config_space(StudyConfig.load(config.resolved())).size() == 1


def test_the_command_line_narrows_a_space_and_names_the_nearest(tmp_path: Path) -> None:
    check = ["spaces", "check", "digits", "--samples", "0", "--channels", "1", "--image-size", "8", "--json"]
    result = run.invoke(app, [*check, "--set", "student.family=resnet,vit", "--set", "student.resnet.width=2"])
    assert result.exit_code == 0, result.stderr
    assert '"family": "resnet"' in result.stdout
    assert "convnext" not in result.stdout
    for text, said in [
        ("student.family=resnett", "did you mean 'resnet'"),
        ("student.famly=resnet", "nearest: student.family"),
        ("student.resnet.width=3.5", "Allowed: 2, 3, 4, 6, 8, 10"),
        ("distillation.temperature={low: 9, high: 2}", "9"),
        ("budget=3m", "not part of a search space"),
        ("family", "write KEY=VALUE"),
    ]:
        result = run.invoke(app, [*check, "--set", text])
        assert result.exit_code == 2, text
        assert said in result.stderr, result.stderr


def test_show_prints_the_whole_space_as_json_and_the_file_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "include: digits\nstudent: {family: [vit]}\n")
    assert '"include"' not in run.invoke(app, ["spaces", "show", str(path), "--json"]).stdout
    assert run.invoke(app, ["spaces", "show", str(path)]).stdout == path.read_text()
