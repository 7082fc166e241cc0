"""Layer-wise decay, frozen epochs and their warm-up, against timm and closed forms."""

import math

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autodistill.core.errors import UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.optimizers import body_share, build_optimizer, learning_rate
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer
from autodistill.training.students import build as students
from autodistill.training.students.embeddings import classifier_of

STUDENT = {"family": "resnetv2", "width": 4, "stages": 2}


@pytest.fixture(scope="module")
def data():
    return datasets.load_images(DataSpec("synthetic", options={"classes": 4, "count": 160, "size": 8, "noise": 0.02}))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(data, *, model=None, mix=LossMix(), epochs=4, **settings):  # noqa: B008
    model = model or students.build_student(STUDENT, image_size=8, channels=3, num_classes=4, seed=0)
    recipe = Recipe.parse({"batch_size": 32, "lr": 5e-3, "augment": "crop"}, settings)
    return Trainer(model, Feed.of(data), Distillation(mix), recipe, epochs=epochs, seed=0)


def rates(optimizer, model):
    """Rate and weight decay of each parameter by name; the rate as timm's schedulers would set it."""
    by_id = {
        id(parameter): (group["lr"] * group.get("lr_scale", 1.0), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "vit_tiny_patch16_224", "regnetx_002"])
@pytest.mark.parametrize("freeze", [0, 2])
def test_layer_decay_gives_every_parameter_the_rate_and_weight_decay_of_timm(name, freeze):
    model = timm.create_model(name, num_classes=3)
    ours = build_optimizer(model, Recipe(lr=0.1, layer_decay=0.75, weight_decay=0.05, freeze=freeze))
    theirs = create_optimizer_v2(model, opt="adamw", lr=0.1, layer_decay=0.75, weight_decay=0.05)
    found, wanted = rates(ours, model), rates(theirs, model)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values), name
    assert len({rate for rate, _ in found.values()}) > 3


def test_layer_decay_reaches_networks_that_do_not_name_their_layers():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(24)), nn.Linear(4, 3))  # 48 tensors: 4 layers of 12
    found = rates(build_optimizer(model, Recipe(lr=1.0, layer_decay=0.5)), model)
    assert found["24.weight"][0] == pytest.approx(1.0)
    assert [found[f"{i}.weight"][0] for i in (0, 6, 12, 18)] == pytest.approx([0.5**4, 0.5**3, 0.5**2, 0.5])


def test_without_the_two_settings_the_groups_are_those_of_timm():
    model = timm.create_model("mobilenetv3_small_050", num_classes=3)
    ours, theirs = build_optimizer(model, Recipe()), create_optimizer_v2(model, opt="adamw", lr=4e-3, weight_decay=0.05)
    assert [len(group["params"]) for group in ours.param_groups] == [len(g["params"]) for g in theirs.param_groups]


def test_the_body_warms_up_when_it_is_no_longer_frozen():
    recipe = Recipe(lr=1.0, warmup=0.1, freeze=1)
    share = [body_share(recipe, step, 100, frozen=25) for step in range(100)]
    assert share[:25] == [0.0] * 25
    assert share[25:35] == pytest.approx([(k + 1) / 11 for k in range(10)])
    assert share[35:] == [1.0] * 65
    assert [body_share(recipe, step, 100, frozen=0) for step in (0, 50)] == [1.0, 1.0]


def test_the_trainer_sets_the_rates_of_the_schedule_in_both_phases(data):
    trainer = make(data, freeze=1, layer_decay=0.5, warmup=0.2, epochs=4)
    steps, frozen = 4 * trainer.steps_per_epoch, trainer.steps_per_epoch
    seen = []

    def note():
        groups = trainer._optimizer.param_groups
        seen.append({(bool(group.get("body")), group["lr_scale"]): group["lr"] for group in groups})

    trainer.run(4, tick=note)  # before each step: the rates of the step before it
    for step, found in enumerate(seen[1:]):
        rate = learning_rate(trainer.recipe, step, steps)
        for (body, scale), lr in found.items():
            share = body_share(trainer.recipe, step, steps, frozen=frozen) if body else 1.0
            assert lr == pytest.approx(rate * scale * share)


def test_frozen_epochs_train_the_classifier_alone_and_keep_the_statistics_of_batchnorm(data):
    trainer = make(data, freeze=2, ema=0.9)
    model = trainer.model
    for layer in model.modules():  # as in weights from elsewhere
        if isinstance(layer, _BatchNorm):
            layer.running_mean.fill_(0.3)
            layer.running_var.fill_(1.7)
    trainer.average = type(trainer.average)(model, 0.9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head = {f"{n}.weight" for n, m in model.named_modules() if m is classifier_of(model)}
    trainer.run(2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert head <= changed <= head | {name.replace("weight", "bias") for name in head}
    evaluated = trainer.evaluation_model()
    kept = {n: v for n, v in evaluated.state_dict().items() if "running" in n}
    assert kept
    assert all(torch.equal(value, before[name]) for name, value in kept.items())
    assert not any(module.training for module in evaluated.modules())

    trainer.run(3)
    after = model.state_dict()
    assert all(
        not torch.equal(after[name], before[name]) for name in after if name.endswith("weight") or "running" in name
    )
    renewed = trainer.evaluation_model().state_dict()
    assert all(not torch.equal(renewed[name], before[name]) for name in kept)


def test_a_frozen_classifier_step_is_that_of_a_linear_model_on_fixed_features(data):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6))
    model = nn.Sequential(body, nn.Linear(6, 4))
    weight, bias = model[1].weight.detach().clone(), model[1].bias.detach().clone()
    trainer = make(
        data, model=model, freeze=4, optimizer="momentum", weight_decay=0.0, ema=0.0, clip=0.0, lr=0.1, warmup=0.0
    )
    batch = trainer.batch(trainer._order(0)[:32], 0)
    with torch.no_grad():
        features = body.eval()(trainer.normalize(batch.views))
    error = (features @ weight.T + bias).softmax(1) - torch.nn.functional.one_hot(batch.target, 4)
    expected = weight - 0.1 * error.T @ features / 32  # gradient of cross-entropy of a linear model

    class StopError(Exception):
        pass

    def stop():
        if trainer.step == 1:
            raise StopError

    with pytest.raises(StopError):
        trainer.run(1, tick=stop)
    assert torch.allclose(model[1].weight, expected, atol=1e-6)


@pytest.mark.parametrize("at", [2, 5, 6])
def test_a_training_that_stops_before_or_after_the_thaw_ends_with_the_same_bits(data, at):
    class StopError(Exception):
        pass

    whole = make(data, freeze=1, layer_decay=0.7)
    whole.run(3)
    parts = make(data, freeze=1, layer_decay=0.7)

    def stop():
        if parts.step == at:
            raise StopError

    with pytest.raises(StopError):
        parts.run(3, tick=stop)
    tensors, facts = parts.state()
    later = make(data, freeze=1, layer_decay=0.7)
    later.restore({name: value.clone() for name, value in tensors.items()}, facts)
    later.run(3)
    first, second = whole.state()[0], later.state()[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_both_classifiers_of_a_network_made_for_distillation_are_trained_while_the_rest_is_frozen(data):
    model = _TwoHeads()
    trainer = make(data, model=model, freeze=1)
    trainer.run(1)
    assert not torch.equal(model.head.weight, torch.ones_like(model.head.weight))
    assert not torch.equal(model.head_dist.weight, torch.ones_like(model.head_dist.weight))
    assert torch.equal(model.body.weight, torch.full_like(model.body.weight, 0.01))


class _TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head, self.head_dist = nn.Linear(192, 5), nn.Linear(5, 4), nn.Linear(5, 4)
        nn.init.constant_(self.body.weight, 0.01)
        nn.init.ones_(self.head.weight)
        nn.init.ones_(self.head_dist.weight)

    def get_classifier(self):
        return self.head, self.head_dist

    def forward(self, images):
        features = self.body(images.flatten(1))
        return (self.head(features) + self.head_dist(features)) / 2


def test_an_embedding_term_waits_for_the_thaw_with_its_calibration(data):
    class Outputs:
        def __call__(self, batch):
            return torch.zeros(len(batch.ids), 4), torch.randn(len(batch.ids), 6, generator=torch.Generator())

    mix = LossMix.parse({"loss": "none", "embedding": "embed_cosine"})
    model = students.build_student(STUDENT, image_size=8, channels=3, num_classes=4, seed=0)
    criterion = Distillation(mix, Outputs(), student=model, teacher_width=6)
    recipe = Recipe.parse({"batch_size": 32, "augment": "none", "freeze": 1})
    trainer = Trainer(model, Feed.of(data), criterion, recipe, epochs=3, seed=0)
    trainer.run(1)
    assert criterion.terms.state_dict()["embedding"][0] == 0
    trainer.run(2)
    assert criterion.terms.state_dict()["embedding"][0] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 1.2}, r"layer_decay is 1\.2; allowed: a number from 0\.1 to 1"),
        ({"freeze": 0.5}, r"freeze is 0\.5; allowed: an integer from 0"),
        ({"freeze_epochs": 1}, r"did you mean 'freeze'"),
        ({"llrd": 0.7}, r"did you mean 'layer_decay'"),
    ],
)
def test_settings_out_of_range_or_named_as_elsewhere_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Recipe.parse(settings)


def test_the_learning_rate_is_a_warm_up_and_a_half_cosine():
    recipe = Recipe(lr=2.0, warmup=0.1)
    assert learning_rate(recipe, 0, 100) == pytest.approx(2.0 / 11)
    assert learning_rate(recipe, 55, 100) == pytest.approx(1.0)
    assert learning_rate(recipe, 99, 100) == pytest.approx(1 + math.cos(math.pi * 89 / 90))
