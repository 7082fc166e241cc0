import math

import numpy as np
import pytest
import torch
from torch import nn

from autodistill.core.errors import DivergedError, InfeasibleError, ResourceError, StoreError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop import trainer as trainer_module
from autodistill.training.loop.measures import measures
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.students import build as students

STUDENT = {"family": "resnetv2", "width": 4, "stages": 2}
SETTINGS = {"batch_size": 32, "lr": 5e-3, "augment": "crop"}


@pytest.fixture(scope="module")
def data():
    return datasets.load_images(DataSpec("synthetic", options={"classes": 4, "count": 160, "size": 8, "noise": 0.02}))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(data, *, seed=0, model=None, mix=LossMix(), epochs=4, student=STUDENT, **settings):  # noqa: B008
    if model is None:
        model = students.build_student(student, image_size=8, channels=3, num_classes=4, seed=seed)
    recipe = Recipe.parse(SETTINGS, settings)
    return Trainer(model, Feed.of(data), Distillation(mix), recipe, epochs=epochs, seed=seed)


def bits(trainer):
    return {name: value.clone() for name, value in trainer.state()[0].items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_learns(data):
    trainer = make(data, epochs=12, lr=3e-2, augment="none")
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (128,), generator=generator)
    noise = torch.randint(40, (128, 3, 8, 8), generator=generator)
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)  # brightness is the class
    trainer.feed = Feed(images, labels, torch.arange(128), (0.4,) * 3, (0.3,) * 3, 4)
    trainer.run(12)
    logits = trainer.predict(trainer.evaluation_model(), images)
    assert scores(logits, labels)["accuracy"] > 0.75  # chance is 0.25


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.3}, {"augment": "rand_augment", "optimizer": "sgd"}])
def test_one_seed_gives_the_same_bits_and_another_does_not(data, settings):
    first, second, third = (make(data, seed=seed, **settings) for seed in (3, 3, 4))
    for trainer in (first, second, third):
        trainer.run(2)
    assert equal(bits(first), bits(second))
    assert not equal(bits(first), bits(third))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
def test_stopping_between_any_two_steps_and_going_on_changes_nothing(data, optimizer):
    whole = make(data, optimizer=optimizer)
    whole.run(3)

    class StopError(Exception):
        pass

    parts = make(data, optimizer=optimizer)

    def stop():
        if parts.step == 6:  # inside the second epoch
            raise StopError

    with pytest.raises(StopError):
        parts.run(3, tick=stop)
    tensors, facts = parts.state()
    later = make(data, optimizer=optimizer, seed=0)
    nn.init.zeros_(next(later.model.parameters()))
    later.restore({name: value.clone() for name, value in tensors.items()}, facts)
    later.run(3)
    assert equal(bits(whole), bits(later))


def test_dropout_goes_on_where_it_stopped(data):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Dropout(0.5), nn.Linear(16, 4))

    whole, first = make(data, model=model()), make(data, model=model())
    whole.run(2)
    first.run(1)
    torch.rand(7)  # the global generator is somewhere else by then
    second = make(data, model=model())
    second.restore(*first.state())
    second.run(2)
    assert equal(bits(whole), bits(second))


def test_the_global_generator_is_left_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    trainer = make(data)
    torch.manual_seed(5)
    trainer.run(1)
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_stops_with_its_epoch(data):
    class Bursting(Hungry):
        def forward(self, images):
            self.limit += 1
            return super().forward(images) * (math.inf if self.limit > 1006 else 1.0)

    with pytest.raises(DivergedError, match=r"not finite in epoch 2 of 4 \(lr 0.005, optimizer adamw\)"):
        make(data, model=Bursting(1000)).run(4)


class Hungry(nn.Module):
    """Runs out of memory above ``limit`` images."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.head = limit, nn.Linear(192, 4)

    def forward(self, images):
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("made up")
        return self.head(images.flatten(1))


def test_out_of_memory_halves_the_parts_and_keeps_the_gradient(data):
    torch.manual_seed(0)
    small, large = Hungry(9), Hungry(1000)
    small.load_state_dict(large.state_dict())
    parts, whole = make(data, model=small, optimizer="sgd"), make(data, model=large, optimizer="sgd")
    parts.run(1)
    whole.run(1)
    assert parts.accumulate == 4
    torch.testing.assert_close(small.head.weight, large.head.weight)


def test_a_device_too_small_for_one_image_says_so(data):
    with pytest.raises(ResourceError, match="too little memory for one image"):
        make(data, model=Hungry(0)).run(1)


def test_state_of_another_model_is_refused(data):
    tensors, facts = make(data).state()
    with pytest.raises(StoreError, match="does not fit"):
        make(data, student={"family": "resnetv2", "width": 8, "stages": 2}).restore(tensors, facts)


def test_views_are_cycled_through(data):
    trainer = make(data)
    trainer.view_count = 2
    rows = torch.arange(4)
    first, second, third = (trainer.batch(rows, epoch).views for epoch in (0, 1, 2))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_every_image_is_seen_once_an_epoch(data):
    trainer = make(data, batch_size=17)
    seen = []
    original = trainer.batch
    trainer.batch = lambda rows, epoch: seen.append(rows) or original(rows, epoch)
    trainer.run(1)
    rows = torch.cat(seen)
    assert len(rows) == len(set(rows.tolist())) == trainer.steps_per_epoch * 17


def test_scores_are_those_of_the_definition():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    found = scores(logits, torch.tensor([0, 0, 0]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    expected = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(1.0)), np.log1p(np.exp(-3.0))])
    own = {name: found.pop(name) for name in measures.names()}
    assert found == pytest.approx({"accuracy": 2 / 3, "agreement": 1 / 3, "loss": expected})
    assert own["balanced_accuracy"] == pytest.approx(2 / 3)


def test_seeding_every_step_leaves_nothing_queued_for_devices_that_are_not_used() -> None:
    queued = getattr(torch.cuda, "_queued_calls", [])
    before = len(queued)
    trainer_module._seed_torch(5, torch.device("cpu"))
    drawn = torch.rand(3)
    torch.default_generator.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert len(queued) == before


def test_the_balanced_sampler_draws_every_class_equally_often_and_the_same_rows_again(data):
    trainer = make(data, sampler="balanced")
    labels = torch.tensor([0] * 100 + [1] * 15 + [2] * 5 + [3] * 8)
    trainer.feed = Feed(
        torch.zeros(128, 3, 8, 8, dtype=torch.uint8), labels, torch.arange(128), (0.0,) * 3, (1.0,) * 3, 4
    )
    drawn = torch.cat([labels[trainer._order(epoch)] for epoch in range(50)])
    assert (torch.bincount(drawn) / len(drawn)).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert torch.equal(trainer._order(3), trainer._order(3))
    assert not torch.equal(trainer._order(3), trainer._order(4))


class Normed(nn.Module):
    """A network whose BatchNorm sees one value per channel and image."""

    def __init__(self, norm):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm(3), nn.Linear(3, 4))

    def forward(self, images):
        return self.layers(images)


def test_a_batch_of_one_image_is_refused_where_a_batchnorm_needs_more(data):
    trainer = make(data, model=Normed(nn.BatchNorm1d), batch_size=1)
    with pytest.raises(
        InfeasibleError, match=r"a batch of 1 image leaves a BatchNorm layer .* batch_size to at least 2"
    ):
        trainer.run(1)
    trainer = make(data, model=Normed(nn.LayerNorm), batch_size=1)
    trainer.run(1)
    assert trainer.epoch == 1
