"""Students: validation, building, infeasible students, and their names for display."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autodistill.core.errors import InfeasibleError, UnknownNameError, UsageError
from autodistill.training.students import build as students
from autodistill.training.students import starting_weights
from autodistill.training.students.build import families
from autodistill.training.students.families.reduction import auto_reduction
from autodistill.training.students.families.schema import FamilyParameter
from autodistill.training.students.families.transformers import patch_size

SMALL = {"image_size": 32, "channels": 3, "num_classes": 10}


def size(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def final_side(student: dict[str, object], side: int) -> int:
    """Pixels per side of the last map of four dimensions."""
    model = students.build_student(student, image_size=side, channels=1, num_classes=2).eval()
    with torch.no_grad():
        return int(model.forward_features(torch.zeros(1, 1, side, side)).shape[-1])  # type: ignore[operator]


def test_defaults_are_filled_in_and_nothing_else_changes() -> None:
    assert students.validate({"family": "resnet", "width": 8}) == {
        "family": "resnet",
        "width": 8,
        "depth": 1,
        "stages": 4,
        "reduction": "auto",
    }


@pytest.mark.parametrize("name", families.names())
def test_defaults_of_every_family_are_values_it_allows(name: str) -> None:
    entry = families.get(name)
    assert students.validate({"family": name}) == {"family": name, **entry.defaults()}
    assert entry.summary.endswith(".")
    assert entry.kind in {"convolutional", "hybrid", "transformer"}
    assert 8 <= entry.smallest < entry.largest


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({}, "names no family"),
        ({"family": "resnett"}, "'resnett'.*resnet"),
        ({"family": 3}, "student family"),
        ({"family": "resnet", "widht": 8}, "'widht'.*width"),
        ({"family": "resnet", "width": 1}, r"student.resnet.width is 1; allowed: 2 to 128"),
        ({"family": "resnet", "width": 8.0}, "must be a whole number from 2 to 128"),
        ({"family": "resnet", "width": True}, "must be a whole number"),
        ({"family": "convnext", "kernel": 4}, "kernel is 4; allowed: 3, 5, 7"),
        ({"family": "convnext", "grn": 1}, "grn is 1; allowed: False, True"),
        ({"family": "mobilenetv3", "variant": "mobilenetv3_smal_050"}, "Did you mean 'mobilenetv3_small_050'"),
        ({"family": "timm"}, "timm network"),
        ({"family": "timm", "model": "resnet19"}, "'resnet19'.*resnet18"),
        ({"family": "timm", "model": "resnet18", "width": 3}, "parameter of family timm"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(student: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=message):
        students.validate(student)


def test_an_image_size_the_family_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="family resnet takes images of 8 to 512 px, got 1024"):
        students.validate({"family": "resnet"}, image_size=1024)
    with pytest.raises(InfeasibleError, match="takes 8 to 512 px, not 4"):
        students.build_student({"family": "resnet"}, image_size=4, channels=1, num_classes=2)


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (students.build_student({"family": "resnet", "width": 4}, **SMALL, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    first, second, third = (next(model.parameters()) for model in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert one.training


def test_width_and_depth_have_the_parameters_of_the_papers_network() -> None:
    # The paper's ResNet-18: 64 channels, 2 blocks a stage; 11,689,512 parameters with 1000 classes.
    model = students.build_student(
        {"family": "resnet", "width": 64, "depth": 2}, image_size=224, channels=3, num_classes=1000
    )
    assert size(model) == 11_689_512


@pytest.mark.parametrize("width", [2, 5, 16, 64])
def test_every_layer_of_a_resnet_is_as_wide_as_its_stage(width: int) -> None:
    model = students.build_student({"family": "resnet", "width": width}, **SMALL)
    widths = {one.out_channels for one in model.modules() if isinstance(one, nn.Conv2d)}
    assert widths == {width * 2**stage for stage in range(4)}


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_resnet_of_fewer_stages_is_the_first_of_them_and_a_classifier(stages: int) -> None:
    model, whole = (students.build_student({"family": "resnet", "width": 4, "stages": n}, **SMALL) for n in (stages, 4))
    names = [f"layer{n}" for n in range(1, stages + 1)]
    kept = sum(size(part) for name, part in whole.named_children() if name in {"conv1", "bn1", *names})
    assert size(model) == kept + (4 * 2 ** (stages - 1) + 1) * SMALL["num_classes"]
    assert final_side({"family": "resnet", "width": 4, "stages": stages, "reduction": 4}, 32) == 8


def test_a_smaller_stride_changes_no_weight() -> None:
    shrunk, kept = (students.build_student({"family": "resnet", "reduction": r}, **SMALL) for r in (4, 32))
    assert size(shrunk) == size(kept)
    assert all(torch.equal(a, b) for a, b in zip(shrunk.parameters(), kept.parameters(), strict=True))


@pytest.mark.parametrize(("side", "reduction"), [(8, 2), (28, 8), (32, 8), (64, 16), (96, 32), (224, 32)])
def test_auto_leaves_a_final_map_of_three_pixels_or_more(side: int, reduction: int) -> None:
    assert auto_reduction(side, 32) == reduction
    for name in ("resnet", "mbconv", "convnext"):
        assert final_side({"family": name, "width": 4}, side) in {side // reduction, -(-side // reduction)}


def test_auto_never_reduces_more_than_the_network_does_by_itself() -> None:
    assert auto_reduction(224, 16) == 16
    assert final_side({"family": "resnetv2", "width": 4, "stages": 3}, 96) == 6


@pytest.mark.parametrize("reduction", [2, 4, 8, 16, 32])
def test_the_final_map_is_as_small_as_asked(reduction: int) -> None:
    assert final_side({"family": "resnet", "width": 4, "reduction": reduction}, 64) == 64 // reduction


def test_a_reduction_that_leaves_nothing_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="reduction 32 leaves nothing of 28 px"):
        students.build_student({"family": "resnet", "reduction": 32}, image_size=28, channels=1, num_classes=2)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (28, 4), (32, 4), (64, 8), (96, 12), (224, 32)])
def test_auto_patches_are_seven_a_side_or_more(side: int, patch: int) -> None:
    shape = students.Shape(side, 1, 2)
    assert patch_size("auto", shape) == patch


def test_a_patch_that_does_not_divide_the_image_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="patch 16 does not divide 28 px"):
        students.build_student({"family": "vit", "patch": 16}, image_size=28, channels=1, num_classes=2)


def test_any_timm_network_is_built_by_name_and_told_the_image_size() -> None:
    for name in ("resnet10t", "pit_ti_224"):
        model = students.build_student({"family": "timm", "model": name}, **SMALL)
        students.step(model, **SMALL)


def test_weights_of_a_family_without_any_are_refused_and_others_named() -> None:
    with pytest.raises(UsageError, match=r"family resnet has no pretrained weights; families that have: .*mobilenetv3"):
        starting_weights.source_of({"family": "resnet"}, {})


def test_a_step_of_two_images_leaves_no_gradient_and_finds_bad_networks() -> None:
    model = students.build_student({"family": "vit", "width": 16, "depth": 1}, **SMALL)
    students.step(model, **SMALL)
    assert all(one.grad is None for one in model.parameters())
    students.check_student({"family": "resnet", "width": 4}, **SMALL)
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 9))
    with pytest.raises(InfeasibleError, match=r"mine gives logits \(2, 9\), not finite \(2, 10\)"):
        students.step(wrong, **SMALL, name="mine")
    with pytest.raises(InfeasibleError, match="mine fails on 3 x 32 x 32 px"):
        students.step(nn.Linear(5, 5), **SMALL, name="mine")


@pytest.mark.parametrize(
    ("student", "text"),
    [
        ({"family": "resnet", "width": 16, "depth": 2}, "resnet w16 d2"),
        ({"family": "convnext", "width": 8, "kernel": 3, "grn": True}, "convnext w8 d1 kernel 3 grn"),
        ({"family": "mobilenetv3", "variant": "mobilenetv3_small_075"}, "mobilenetv3_small_075"),
        ({"family": "timm", "model": "tiny_vit_5m_224"}, "tiny_vit_5m_224"),
        ({"family": "mine", "size": 3}, "mine"),
        ({}, "?"),
    ],
)
def test_students_have_short_names(student: dict[str, object], text: str) -> None:
    assert students.describe(student) == text


def test_extremes_are_the_ends_of_a_range_or_of_a_list() -> None:
    assert FamilyParameter("width", 4, "width", 2, 9).extremes() == (2, 9)
    assert FamilyParameter("kernel", 3, "block", choices=(3, 5, 7)).extremes() == (3, 7)
