"""Pruning: the given share is removed, the rest is unchanged, and networks that cannot be pruned are refused."""

from __future__ import annotations

import pytest
import torch

from autodistill.core.errors import InfeasibleError, UsageError
from autodistill.training.deployed.form import deploy
from autodistill.training.deployed.pruning import apply_masks, prune_channels, prune_weights
from autodistill.training.students import build as students


def student(family: str = "resnet", **params):
    return students.build_student({"family": family, **params}, image_size=32, channels=3, num_classes=10).eval()


def weights(model):
    layers = (torch.nn.Conv2d, torch.nn.Linear)
    return {f"{name}.weight": one.weight for name, one in model.named_modules() if isinstance(one, layers)}


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_the_smallest_weights_of_all_layers_together_become_zero(ratio):
    model = student(width=8)
    pruned, masks = prune_weights(model, ratio)
    before = torch.cat([one.detach().flatten() for one in weights(model).values()])
    after = torch.cat([one.detach().flatten() for one in weights(pruned).values()])
    count = round(ratio * len(before))
    assert int((after == 0).sum()) == count
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(before[after != 0], after[after != 0])
    assert sum(int((mask == 0).sum()) for mask in masks.values()) == count
    assert masks.keys() == weights(model).keys()


def test_a_pruned_network_is_an_ordinary_one_and_masks_keep_its_zeros():
    model = student(width=4)
    pruned, masks = prune_weights(model, 0.5)
    assert pruned.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        for one in pruned.parameters():
            one.add_(1.0)
    apply_masks(pruned, masks)
    shares = [(one == 0).float().mean().item() for one in weights(pruned).values()]
    assert sum(shares) > 0
    assert all(torch.equal(weights(pruned)[name] != 0, mask.bool()) for name, mask in masks.items())


@pytest.mark.parametrize(
    ("family", "params"), [("resnet", {"width": 16}), ("mbconv", {"width": 8}), ("convnext", {"width": 8})]
)
def test_half_the_channels_leave_about_a_quarter_of_the_parameters(family, params):
    model = student(family, **params)
    pruned = prune_channels(model, 0.5, image_size=32, channels=3)
    left = sum(one.numel() for one in pruned.parameters()) / sum(one.numel() for one in model.parameters())
    assert 0.2 < left < 0.35
    assert pruned(torch.zeros(3, 3, 32, 32)).shape == (3, 10)


def test_the_network_that_is_cut_stays_as_it_was():
    model = student(width=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune_channels(model, 0.5, image_size=32, channels=3)
    prune_weights(model, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_of_a_transformer_only_hidden_units_go():
    model = student("vit", width=32, depth=1)
    pruned = prune_channels(model, 0.5, image_size=32, channels=3)
    before, after = weights(model), weights(pruned)
    changed = {name.rsplit(".", 2)[1] for name in before if before[name].shape != after[name].shape}
    assert changed == {"fc1", "fc2"}


def test_a_network_that_cannot_be_cut_has_a_reason():
    with pytest.raises(InfeasibleError, match="channels"):
        prune_channels(student("inception_next"), 0.25, image_size=32, channels=3)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5])
def test_ratios_are_shares(ratio):
    with pytest.raises(UsageError, match="between 0 and 1"):
        prune_weights(student(width=4), ratio)
    with pytest.raises(UsageError, match="between 0 and 1"):
        prune_channels(student(width=4), ratio, image_size=32, channels=3)


def test_a_network_whose_branches_merge_is_merged_first_and_can_be_deployed_afterwards() -> None:
    student = {"family": "mobileone", "width": 32, "depth": 1, "branches": 1}
    model = students.build_student(student, image_size=28, channels=1, num_classes=10).eval()
    pruned = prune_channels(model, 0.3, image_size=28, channels=1)
    images = torch.rand(4, 1, 28, 28)
    assert torch.allclose(deploy(pruned, image_size=28, channels=1)(images), pruned(images), atol=1e-4)
    before, after = (sum(p.numel() for p in deploy(m, image_size=28, channels=1).parameters()) for m in (model, pruned))
    assert after < 0.8 * before
