"""Weights of a study's students: what has none is never proposed or refused by name, before anything is trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import timm
from hub_cache import lay_hub_cache, stand_in
from safetensors.torch import save_file
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.core.errors import ConfigError
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.setup.initial_weights import fetch_all, with_weights
from autodistill.search.space.builtin import compose
from autodistill.search.space.space import Space
from autodistill.training.weights import hub

SPACE: dict[str, Any] = {
    "student": {
        "family": ["lcnet", "resnet", "timm"],
        "lcnet": {"variant": ["lcnet_035", "lcnet_050", "lcnet_075"]},
        "resnet": {"width": [8, 16]},
        "timm": {"model": ["test_resnet", "test_vit"]},
    },
    "train": {"init": ["pretrained", "random"]},
}


TEACHER = {"family": "resnet", "width": 4, "depth": 1}


def name_of(student: dict[str, Any]) -> str:
    return str(student.get("variant", student.get("model", student["family"])))


def draws(space: Space) -> set[tuple[str, str]]:
    found = (space.nest(values) for values in space.enumerate() or [])
    return {
        (
            str(one["student"].get("variant", one["student"].get("model", one["student"]["family"]))),
            one["train"]["init"],
        )
        for one in found
    }


@pytest.fixture
def everything_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050", "lcnet_075", "test_resnet", "test_vit")


def test_pretrained_is_offered_to_students_with_weights_only(everything_here: None) -> None:
    space, weights = with_weights(Space.parse(SPACE), {})
    both = {"lcnet_050", "lcnet_075", "test_resnet", "test_vit"}
    expected = {(name, init) for name in both for init in ("pretrained", "random")}
    assert draws(space) == expected | {("lcnet_035", "random"), ("resnet", "random")}
    assert {one.text for one in weights.sources} == both
    assert weights.notes == ("init is always random for lcnet_035, resnet: they have no weights here",)
    assert weights.lines()[0] == "weights: 4 here; licences: apache-2.0 (4)"
    again, same = with_weights(space, {})
    assert draws(again) == draws(space)
    assert {one.text for one in same.sources} == both


def test_a_space_without_pretrained_is_left_alone_and_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("the hub was asked"))
    space = Space.parse({**SPACE, "train": {"lr": 0.01}})
    assert with_weights(space, {})[0] is space
    with_weights(Space.parse(SPACE), {}, ask=False)


def test_with_the_hub_switched_off_only_what_is_here_is_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050")
    space, weights = with_weights(Space.parse(SPACE), {})
    assert {name for name, init in draws(space) if init == "pretrained"} == {"lcnet_050"}
    assert weights.notes[0] == "HF_HUB_OFFLINE is set: only weights that are here are used, those of lcnet_050"


def test_a_hub_that_cannot_be_reached_is_said_with_what_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "_asked", {})
    monkeypatch.setattr(hub, "_answers", lambda: False)
    with pytest.raises(ConfigError) as caught:
        with_weights(Space.parse(SPACE), {})
    text = str(caught.value)
    assert "weights of lcnet_075, test_resnet, test_vit are not on this machine and the hub cannot be reached" in text
    assert "Weights that are here: lcnet_050." in text
    assert text.endswith("HF_HUB_OFFLINE=1 searches with those that are here.")


def test_a_study_is_opened_again_where_its_weights_are_not_and_keeps_its_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050")
    made = draws(with_weights(Space.parse(SPACE), {})[0])
    assert draws(with_weights(Space.parse(SPACE), {}, ask=False, strict=False)[0]) == made
    lay_hub_cache(monkeypatch, tmp_path / "empty")
    gone = Space.parse({**SPACE, "weights": {"resnet": "nowhere#3"}})
    for training in ({}, {"licence": "mit"}):
        assert with_weights(gone, training, ask=False, strict=False)[0].parameters
    with pytest.raises(ConfigError):
        with_weights(gone, {})


def test_students_that_must_start_from_weights_and_have_none_are_refused_by_name(everything_here: None) -> None:
    space = Space.parse({**SPACE, "train": {"lr": 0.01}})
    with pytest.raises(
        ConfigError,
        match=r"init is pretrained, but these students have no weights: lcnet_035, resnet\. "
        r"Those that have: lcnet_050, lcnet_075, test_resnet, test_vit\. Keep only those: "
        r"--set student\.family=lcnet,timm --set student\.lcnet\.variant=lcnet_050,lcnet_075; or let the space choose",
    ):
        with_weights(space, {"init": "pretrained"})
    kept = space.restrict({"student.family": ["lcnet"], "student.lcnet.variant": ["lcnet_050"]})
    assert [one.text for one in with_weights(kept, {"init": "pretrained"})[1].sources] == ["lcnet_050"]


def test_weights_that_are_needed_and_missing_are_refused_with_the_hub_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050")
    space = Space.parse({"student": {"family": "lcnet", "lcnet": {"variant": ["lcnet_050", "lcnet_075"]}}})
    with pytest.raises(ConfigError, match=r"weights of lcnet_075 are not .*HF_HUB_OFFLINE is set\).*here: lcnet_050"):
        with_weights(space, {"init": "pretrained"})


def test_a_licence_that_is_not_accepted_counts_as_no_weights(everything_here: None) -> None:
    with pytest.raises(ConfigError, match=r"no student of the space has weights: .*licence apache-2\.0; accepted: mit"):
        with_weights(Space.parse(SPACE), {"licence": "mit"})


def test_a_space_names_weights_relative_to_its_file_and_wrong_names_are_listed(tmp_path: Path) -> None:
    save_file(stand_in("lcnet_050"), tmp_path / "a.safetensors")
    made = compose(
        {**SPACE, "weights": {"lcnet_035": "a.safetensors", "resnet": "../b#3", "lcnet_050": "lcnet_050"}}, tmp_path
    )
    assert made["weights"] == {
        "lcnet_035": str(tmp_path / "a.safetensors"),
        "resnet": f"{tmp_path.parent / 'b'}#3",
        "lcnet_050": "lcnet_050",
    }
    with pytest.raises(ConfigError) as caught:
        with_weights(Space.parse({**made, "weights": {"lcnet_53": "lcnet_050", "resnet": "nowhere#3"}}), {})
    assert "unknown variant or family in weights 'lcnet_53'; did you mean 'lcnet_" in str(caught.value)
    assert "weights.resnet: weights nowhere#3: nowhere is not a study" in str(caught.value)
    with pytest.raises(ConfigError, match=r"weights\.lcnet_050: expected a text such as a timm name"):
        Space.parse({**SPACE, "weights": {"lcnet_050": 3}})


def test_weights_that_do_not_fit_their_variant_are_refused_before_the_search(
    everything_here: None, tmp_path: Path
) -> None:
    save_file(stand_in("lcnet_050"), tmp_path / "a.safetensors")
    for name, message in (("lcnet_075", "lcnet_075 does not fit the weights"), ("resnet", "no layer of resnet")):
        space = Space.parse({**SPACE, "weights": {name: str(tmp_path / "a.safetensors")}})
        with pytest.raises(ConfigError, match=message):
            with_weights(space, {})
    fitting = Space.parse({**SPACE, "weights": {"lcnet_050": str(tmp_path / "a.safetensors")}})
    assert str(tmp_path / "a.safetensors") in [one.text for one in with_weights(fitting, {})[1].sources]


def test_weights_are_fetched_once_with_progress_licence_and_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "_asked", {})
    monkeypatch.setattr(hub, "_answers", lambda: True)
    monkeypatch.setattr(hub, "size", lambda repository: 5_000_000)
    fetched: list[str] = []

    def download(repository: str, names: tuple[str, ...] = hub.WEIGHT_FILES) -> Path:
        fetched.append(repository)
        lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_075")
        found = hub.cached(repository)
        assert found is not None
        return found

    monkeypatch.setattr(hub, "download", download)
    space = Space.parse({"student": {"family": "lcnet", "lcnet": {"variant": ["lcnet_050", "lcnet_075"]}}})
    watch, said = Watch(), list[str]()
    monkeypatch.setattr(watch, "stage", lambda name, text, share=None: said.append(f"{name}: {text}"))
    for _ in range(2):
        fetch_all(with_weights(space, {"init": "pretrained"})[1], watch)
    assert fetched == [timm.get_pretrained_cfg("lcnet_075").hf_hub_id]
    assert said == [
        "weights: 1 here, 1 to fetch (5.0 MB); licences: apache-2.0 (2)",
        "weights: fetching 1 of 1: lcnet_075 (5.0 MB, licence apache-2.0)",
        "weights: 2 here; licences: apache-2.0 (2)",
    ]


def test_a_search_proposes_and_trains_only_what_has_weights(everything_here: None, tmp_path: Path) -> None:
    study = ad.Study.create(
        data={"source": "synthetic", "image_size": 32, "train_size": 60, "options": {"classes": 3}},
        teacher={
            "source": "auto",
            "accept_weak": True,
            "options": {"epochs": 1, "model": {"family": "resnet", "width": 4}},
        },
        space={
            "student": {
                "family": ["lcnet", "resnet"],
                "lcnet": {"variant": ["lcnet_035", "lcnet_050"]},
                "resnet": {"width": [4, 8], "depth": 1},
            },
            "train": {"init": ["pretrained", "random"], "lr": 0.001},
        },
        objectives=["accuracy", "params"],
        epochs=1,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path / "study",
    )
    asked = {"student": {"family": "lcnet", "variant": "lcnet_035"}, "train": {"init": "pretrained", "lr": 0.001}}
    with pytest.raises(ConfigError, match=r"train\.init: 'pretrained' was given, but .* can only be 'random'"):
        study.enqueue(asked)
    ad.search(study, budget="3trials", workers=1)
    trials = study.trials()
    assert {trial.reason for trial in trials} <= {"", "DUPLICATE", None}
    assert {trial.state.value for trial in trials} <= {"COMPLETE", "PRUNED"}
    started = {(trial.student.get("variant", "resnet"), trial.train["init"]) for trial in trials}
    assert started <= {
        ("lcnet_050", "pretrained"),
        ("lcnet_050", "random"),
        ("lcnet_035", "random"),
        ("resnet", "random"),
    }


def test_dry_runs_and_searches_say_it_within_seconds_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path / "hf", "lcnet_050")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "student: {family: lcnet, lcnet: {variant: [lcnet_035, lcnet_050, lcnet_075]}}\n"
    )
    call = [
        "search",
        "--data",
        "synthetic",
        "--space",
        "mine.yaml",
        "--set",
        "training.init=pretrained",
        "--dir",
        "out",
    ]
    for extra in (["--dry-run"], []):
        start = time.monotonic()
        found = CliRunner().invoke(app, [*call, *extra])
        assert time.monotonic() - start < 5
        assert found.exit_code == 2
        assert "these students have no weights: lcnet_035" in str(found.exception or found.output) + found.stderr
        assert not (tmp_path / "out").exists()


def test_spaces_check_refuses_a_space_whose_draws_cannot_be_built(tmp_path: Path) -> None:
    space = "student: {family: resnet, resnet: {width: [8]}}\ntrain: {init: pretrained}\n"
    (tmp_path / "mine.yaml").write_text(space)
    found = CliRunner().invoke(app, ["spaces", "check", str(tmp_path / "mine.yaml"), "--samples", "0"])
    assert found.exit_code == 2
    assert "these students have no weights: resnet" in str(found.exception or found.output) + found.stderr
