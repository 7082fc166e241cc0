import json
import math

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.training.augmentation.policy import Policy
from autodistill.training.loop.averaging import Average
from autodistill.training.loop.optimizers import build_optimizer, learning_rate, optimizer_state, restore_optimizer
from autodistill.training.loop.recipe import Recipe, check_optimizer, scaled


def test_later_settings_go_first():
    recipe = Recipe.parse({"lr": 0.1, "ema": 0.9}, {"lr": 1})
    assert (recipe.lr, recipe.ema) == (1.0, 0.9)
    assert isinstance(recipe.lr, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.1}, "unknown training setting 'learning_rate'"),
        ({"weigth_decay": 0.1}, "did you mean 'weight_decay'"),
        ({"augment": "flipcrop"}, "did you mean 'flip_crop'"),
        ({"optimizer": "adamv"}, "did you mean 'adam"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(settings, message):
    with pytest.raises(UnknownNameError, match=message):
        Recipe.parse(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1}, "lr is -1; allowed: a number from 1e-07 to 100"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"batch_size": 2.5}, r"batch_size is 2.5; allowed: an integer"),
        ({"amp": 1}, "amp is 1; allowed: true or false"),
        ({"lr": True}, "lr is True; allowed"),
        ({"lr": math.nan}, "lr is nan"),
        ({"teacher_mode": "offline"}, "allowed: cached or online"),
        ({"mixup": 0.2, "cutmix": 1.0}, "give one of them"),
        ({"optimizer": "kron"}, "'kron' cannot be used: its state is not plain tensors.*such as adamw"),
        ({"optimizer": "adahessian"}, "'adahessian' cannot be used: it needs second derivatives"),
    ],
)
def test_impossible_values_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Recipe.parse(settings)


@pytest.mark.parametrize(
    ("name", "ours"), [("learning_rate", "lr"), ("wd", "weight_decay"), ("batch", "batch_size"), ("license", "licence")]
)
def test_names_of_other_tools_are_understood_and_refused(name, ours):
    with pytest.raises(UnknownNameError, match=rf"unknown training setting '{name}'; did you mean '{ours}'\?"):
        Recipe.parse({name: 0.1})


def test_strength_half_is_the_policy_itself_and_zero_switches_it_off():
    named = Policy.parse("rand_augment")
    assert scaled(named, 0.5) == named
    gentle = scaled(Policy.parse("resized_crop"), 0.0)
    assert gentle.min_area == 1.0
    assert scaled(named, 0.0).padding == 0.0
    assert scaled(named, 1.0).magnitude == 2 * named.magnitude


def test_mixup_is_part_of_the_policy():
    policy = Recipe.parse({"mixup": 0.4}).policy()
    assert (policy.mix, policy.mix_alpha) == ("mixup", 0.4)
    assert Recipe().policy().mix == "none"


def test_the_learning_rate_rises_and_falls_as_half_a_cosine():
    recipe = Recipe(lr=2.0, warmup=0.2)
    rates = [learning_rate(recipe, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(2.0 / 21)
    assert rates[20] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[100] == 0.0
    assert rates[:21] == sorted(rates[:21])


def test_biases_and_norms_have_no_weight_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    groups = build_optimizer(model, Recipe(weight_decay=0.3)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decayed == {id(model[0].weight), id(model[3].weight)}


def test_the_average_forgets_its_start():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.999)
    nn.init.ones_(model.weight)
    expected = 0.0
    for step in range(1, 6):
        average.update(step)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + 1 - decay
    assert average.values["weight"].item() == pytest.approx(expected)
    assert expected > 0.99


def test_without_decay_the_model_itself_is_evaluated():
    model, copy = nn.Linear(1, 1), nn.Linear(1, 1)
    Average(model, 0.0).copy_to(copy)
    assert not torch.equal(model.weight, copy.weight)


def usable(name: str) -> bool:
    try:
        check_optimizer(name)
    except UsageError:
        return False
    return not name.startswith(("bnb", "fused"))  # those need a GPU and packages of their own


@pytest.mark.parametrize("name", [name for name in list_optimizers() if usable(name)])
@pytest.mark.filterwarnings("ignore")  # timm's optimizers use what torch calls deprecated
def test_every_optimizer_that_is_not_refused_goes_on_after_a_stop_as_if_there_was_none(name):
    recipe = Recipe.parse({"optimizer": name, "lr": 1e-2})
    images, labels = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3

    def begun() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        return model, build_optimizer(model, recipe)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for step in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            torch.manual_seed(step)
            optimizer.step()

    whole, optimizer = begun()
    steps(whole, optimizer)
    parts, later = begun()
    before = parts[0].weight.clone()
    parts.load_state_dict(whole.state_dict())
    tensors, plain = optimizer_state(optimizer)
    restore_optimizer(later, {key: value.clone() for key, value in tensors.items()}, json.loads(json.dumps(plain)))
    steps(whole, optimizer)
    steps(parts, later)
    assert not torch.equal(parts[0].weight, before)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
