"""From a text to weights: where they are, their licence, size and input; what is missing is said within seconds."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
from hub_cache import lay_hub_cache, stand_in, write_cache
from safetensors.torch import save_file

from autodistill.core.errors import WeightsError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.trials.teach import teach
from autodistill.training.trials.trial_files import save_student, trial_folder
from autodistill.training.weights import hub
from autodistill.training.weights.source import require, resolve

TAG = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def data() -> datasets.ImageData:
    return datasets.load_images(DataSpec("synthetic", options={"classes": 4, "count": 80, "size": 16}))


def test_a_name_of_timm_has_the_facts_of_timms_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for tag in ("mobilenetv3_small_100.lamb_in1k", "vit_tiny_patch16_224", "regnety_004.tv2_in1k"):
        config, found = timm.get_pretrained_cfg(tag), resolve(tag)
        assert (found.mean, found.std, found.image_size) == (config.mean, config.std, config.input_size[-1])
        assert (found.licence, found.count, found.repository) == (config.license, 1000, config.hf_hub_id)
        assert not found.is_here


def test_weights_in_the_hubs_cache_are_here_with_their_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = lay_hub_cache(monkeypatch, tmp_path, TAG)
    found = resolve(TAG)
    assert found.is_here
    assert found.size == found.file.stat().st_size  # type: ignore[union-attr]
    assert found.words == f"{TAG} ({found.size / 1e6:.1f} MB, licence apache-2.0)"  # type: ignore[operator]
    assert {name: tuple(value.shape) for name, value in found.tensors().items()} == {
        name: tuple(value.shape) for name, value in tensors.items()
    }
    require([found])


def test_a_repository_of_the_hub_is_read_from_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path)
    file = write_cache(tmp_path, "someone/flowers", stand_in(TAG))
    config = {
        "architecture": "test_resnet",
        "num_classes": 1000,
        "label_names": ["rose", "tulip"],
        "pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (file.parent / "config.json").write_text(json.dumps(config))
    (file.parent / "README.md").write_text("---\nlicense: CC-BY-4.0\n---\n# flowers\n")
    found = resolve("hf-hub:someone/flowers")
    assert (found.kind, found.name, found.image_size, found.licence) == ("hub", "test_resnet", 96, "cc-by-4.0")
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert found.classes == ("rose", "tulip")
    assert found.is_here


def test_a_folder_of_timm_is_found_with_and_without_its_prefix(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=7, in_chans=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {"input_size": [1, 64, 64]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for text in (f"local-dir:{tmp_path}", str(tmp_path), str(tmp_path / "model.safetensors")):
        found = resolve(text)
        assert (found.name, found.channels, found.count, found.licence) == ("test_resnet", 1, 7, "unknown")
        assert found.is_here


def test_a_taught_teacher_and_a_trial_of_a_study_know_their_network(data: datasets.ImageData, tmp_path: Path) -> None:
    student = {"family": "resnetv2", "width": 4, "stages": 2}
    teach(data, student, directory=tmp_path / "teacher", epochs=1)
    found = resolve(str(tmp_path / "teacher"))
    assert found.student is not None
    assert {key: found.student[key] for key in student} == student
    assert (found.classes, found.image_size, found.licence) == (data.classes, 16, "own")
    assert found.mean == pytest.approx(data.mean)
    facts = json.loads((tmp_path / "teacher" / "teacher.json").read_text())
    facts["weights"] = {"source": "x", "licence": "mit", "fingerprint": ""}
    study = tmp_path / "study"
    save_student(trial_folder(study, 12), found.tensors(), facts)
    (study / "study.yaml").write_text("name: a\n")
    trial = resolve(f"{study}#12")
    assert (trial.student, trial.licence) == (facts["architecture"], "mit")
    with pytest.raises(WeightsError, match=r"trial 3 has no finished student\. Trials that have: 12\."):
        resolve(f"{study}#3")
    with pytest.raises(WeightsError, match=r"a study has many networks; name a trial, such as .*study#12"):
        resolve(str(study))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet81", r"neither a network of timm nor a file or folder here; did you mean .*resnet18"),
        ("resnet18.a1_in2k", r"no weights with the tag 'a1_in2k'; for resnet18 it has: .*resnet18\.a1_in1k"),
        ("lcnet_035", r"no pretrained weights for lcnet_035\. Networks like it that have: .*lcnet_050"),
        ("nowhere/model.safetensors", r"that file does not exist"),
        ("nowhere#3", r"nowhere is not a study"),
        ("local-dir:nowhere", r"that folder does not exist"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_is_near(text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        resolve(text)


def test_a_folder_without_a_network_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"that is a folder; give a file .*one of 'autodistill teach'"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no file with weights"):
        resolve(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read: KeyError"):
        resolve(str(tmp_path))


def test_a_silent_hub_is_given_up_on_within_seconds_and_what_is_here_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lay_hub_cache(monkeypatch, tmp_path, TAG)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "_asked", {})
    monkeypatch.setattr(hub, "_SECONDS", 0.2)

    def hang(*args: object, **keywords: object) -> None:
        time.sleep(2.0)
        raise OSError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(
        WeightsError,
        match=rf"weights of resnet18\.a1_in1k, lcnet_050 are not on this machine and the hub cannot be reached\. "
        rf"Weights that are here: {TAG}\.",
    ):
        require([resolve("resnet18.a1_in1k"), resolve(TAG), resolve("lcnet_050")])
    assert time.monotonic() - start < 1.5
    assert not hub.reachable()  # remembered


def test_equal_content_has_one_identity_and_changed_content_another(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_file({"x": torch.full((3,), value)}, tmp_path / f"{name}.safetensors")
    first, same, other = (resolve(str(tmp_path / f"{name}.safetensors")).identity for name in "abc")
    assert first == same != other
