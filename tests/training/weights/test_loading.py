"""Weights in networks: classes and channels adapted as timm does it, nothing left random unnoticed, own input kept."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import torch
from hub_cache import lay_hub_cache, stand_in
from safetensors.torch import save_file
from torch import Tensor, nn

from autodistill.core.errors import TeacherError, WeightsError
from autodistill.training.students import build as students
from autodistill.training.students.starting_weights import read_for, source_of, statistics_of
from autodistill.training.weights.loading import read
from autodistill.training.weights.source import resolve

TINY = {"family": "timm", "model": "test_resnet"}
SHAPE = {"image_size": 32, "channels": 3, "num_classes": 5}
CLASSES = tuple("abcde")


def from_timm(tag: str, tensors: dict[str, Tensor], **keywords: int) -> nn.Module:
    """The network as timm itself loads these weights."""
    overlay = {"state_dict": dict(tensors), "hf_hub_id": None, "url": None}
    return timm.create_model(tag, pretrained=True, pretrained_cfg_overlay=overlay, **keywords)


def assert_same_body(model: nn.Module, other: nn.Module, head: str) -> None:
    theirs = other.state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith(head):
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tag", ["test_resnet", "test_vit", "test_efficientnet", "test_byobnet"])
def test_classes_and_channels_are_adapted_as_timm_does_it(
    tag: str, channels: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tensors = lay_hub_cache(monkeypatch, tmp_path, tag)
    student = {"family": "timm", "model": tag}
    weights = read_for(student, {}, CLASSES)
    shape = {"image_size": 160, "channels": channels, "num_classes": 5}
    model = students.build_student(student, **shape, weights=weights, seed=3)
    reference = from_timm(tag, tensors, num_classes=5, in_chans=channels)
    assert_same_body(model, reference, str(timm.get_pretrained_cfg(tag).classifier))
    plain = students.build_student(student, **shape, seed=3)
    head = model.get_classifier()  # type: ignore[operator]
    assert torch.equal(head.weight, plain.get_classifier().weight)  # type: ignore[operator]
    assert "state_dict" not in model.pretrained_cfg  # type: ignore[operator]


def test_a_file_is_loaded_whatever_prefix_and_classifier_it_has(tmp_path: Path) -> None:
    body = stand_in("test_resnet")
    for number, spelled in enumerate(
        (
            body,
            {f"module.{name}": value for name, value in body.items()},
            {name: value for name, value in body.items() if not name.startswith("fc.")},
            {f"net.{name}": value for name, value in body.items() if not name.startswith("fc.")},
        )
    ):
        file = tmp_path / f"{number}.safetensors"
        save_file(spelled, file)
        model = students.build_student(TINY, **SHAPE, weights=read(resolve(str(file))))
        assert torch.equal(model.state_dict()["layer1.0.conv1.weight"], body["layer1.0.conv1.weight"])


def test_a_classifier_is_kept_only_for_the_same_classes(tmp_path: Path) -> None:
    trained = timm.create_model("test_resnet", num_classes=5).state_dict()
    save_file(trained, tmp_path / "five.safetensors")
    weights = read(resolve(str(tmp_path / "five.safetensors")))
    assert torch.equal(students.build_student(TINY, **SHAPE, weights=weights).fc.weight, trained["fc.weight"])  # type: ignore[union-attr]
    object.__setattr__(weights.source, "classes", CLASSES)
    kept = students.build_student(TINY, **SHAPE, weights=weights.for_classes(CLASSES))
    other = students.build_student(TINY, **SHAPE, weights=weights.for_classes(tuple("edcba")))
    assert torch.equal(kept.fc.weight, trained["fc.weight"])  # type: ignore[union-attr]
    assert not torch.equal(other.fc.weight, trained["fc.weight"])  # type: ignore[union-attr]
    assert_same_body(other, kept, "fc.")


def test_weights_of_another_network_are_refused_and_not_ignored(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file(stand_in("test_efficientnet"), file)
    with pytest.raises(WeightsError, match=r"test_resnet does not fit the weights .*network are missing"):
        students.build_student(TINY, **SHAPE, weights=read(resolve(str(file))))
    half = {name: value for name, value in stand_in("test_resnet").items() if not name.startswith("layer2")}
    save_file(half, file)
    with pytest.raises(WeightsError, match=r"missing in the file \(layer2\.0\.conv1\.weight"):
        students.build_student(TINY, **SHAPE, weights=read(resolve(str(file))))


def test_a_file_that_could_run_code_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "whole.pth"
    torch.save(timm.create_model("test_resnet"), file)
    with pytest.raises(TeacherError, match="hold Python objects beside tensors"):
        read(resolve(str(file)))


def test_a_family_of_free_width_takes_the_slices_that_fit(tmp_path: Path) -> None:
    wide = students.build_student({"family": "mbconv", "width": 16}, **SHAPE, seed=1)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    mapping = {"mbconv": str(tmp_path / "wide.safetensors")}
    narrow = {"family": "mbconv", "width": 8}
    model = students.build_student(narrow, **SHAPE, weights=read_for(narrow, mapping, CLASSES), seed=2)
    assert torch.equal(model.state_dict()["conv_stem.weight"], wide.state_dict()["conv_stem.weight"][:8])
    with pytest.raises(WeightsError, match=r"no layer of vit .* fits the weights"):
        students.build_student({"family": "vit"}, **SHAPE, weights=read_for(narrow, mapping, CLASSES))


def test_the_mean_and_deviation_are_those_of_the_weights(tmp_path: Path) -> None:
    config = timm.get_pretrained_cfg("mobilenetv3_small_100")
    student = {"family": "mobilenetv3", "variant": "mobilenetv3_small_100"}
    source = source_of(student, {})
    assert statistics_of(student, source, 3) == (config.mean, config.std)
    grey = statistics_of(student, source, 1)
    assert grey is not None
    assert grey[0] == pytest.approx((sum(config.mean) / 3,))
    save_file(stand_in("test_resnet"), tmp_path / "a.safetensors")  # a plain file says nothing
    assert statistics_of(student, resolve(str(tmp_path / "a.safetensors")), 3) == (config.mean, config.std)
    assert statistics_of({"family": "mbconv"}, resolve(str(tmp_path / "a.safetensors")), 3) is None


def test_loading_warns_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_hub_cache(monkeypatch, tmp_path, "test_vit")
    student = {"family": "timm", "model": "test_vit"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        students.build_student(
            student, image_size=96, channels=1, num_classes=5, weights=read_for(student, {}, CLASSES)
        )
