"""BatchNorm statistics of the evaluated weights, against closed forms and torch's own ``update_bn``."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop import norm_statistics
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer
from autodistill.training.students import build as students

STUDENT = {"family": "mbconv", "width": 4, "depth": 1}


def feed(count=48, side=8):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randint(60, (count, 3, side, side), generator=generator) + 60 * labels[:, None, None, None]
    return Feed(images.to(torch.uint8), labels, torch.arange(count), (0.4,) * 3, (0.3,) * 3, 4)


def trainer(student=STUDENT, *, images=None, epochs=4, **settings):
    network = students.build_student(student, image_size=8, channels=3, num_classes=4)
    recipe = Recipe.parse({"batch_size": 16, "augment": "none"}, settings)
    return Trainer(network, images or feed(), Distillation(LossMix()), recipe, epochs=epochs, seed=0)


def statistics(model):
    return {name: one.clone() for name, one in model.named_buffers() if "running" in name}


def test_statistics_are_those_of_all_batches_together():
    torch.manual_seed(0)
    batches = [torch.randn(32, 3, 2, 2) * 5 + 7 for _ in range(4)]
    norm = nn.BatchNorm2d(3)
    norm.num_batches_tracked.fill_(9)
    network = nn.Sequential(norm).train()
    norm_statistics.renew(network, batches)
    assert not network.training
    assert (norm.training, norm.momentum, int(norm.num_batches_tracked)) == (False, 0.1, 9)
    together = torch.cat(batches).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, together.mean(1))
    torch.testing.assert_close(norm.running_var, together.var(1), rtol=0.02, atol=0)


def test_they_equal_those_of_torch_update_bn_where_nothing_is_dropped():
    trained = trainer()
    trained.run(1)
    wanted = copy.deepcopy(trained.model)
    trained.average.copy_to(wanted)
    images = trained.normalize(trained.feed.images.float() / 255)
    update_bn([images], wanted)
    found = statistics(trained.evaluation_model())
    for name, one in statistics(wanted).items():
        torch.testing.assert_close(found[name], one, rtol=1e-3, atol=1e-4, msg=name)


def test_dropout_is_off_while_they_are_taken():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2))
    norm_statistics.renew(network.train(), [torch.arange(8.0).view(4, 2)])
    assert network[1].running_mean.tolist() == [3, 4]


def test_layers_that_keep_their_statistics_are_left_alone():
    class Frozen(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    network = nn.Sequential(Frozen(2), nn.BatchNorm1d(2, track_running_stats=False), nn.BatchNorm1d(2))
    norm_statistics.renew(network.train(), [torch.arange(8.0).view(4, 2)])
    assert network[0].running_mean.tolist() == [0, 0]
    assert network[1].running_mean is None
    assert network[2].running_mean.tolist() != [0, 0]


def test_a_network_without_batch_norm_costs_no_batch():
    def none():
        raise AssertionError("a batch was made")
        yield

    norm_statistics.renew(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).train(), none())


@pytest.mark.parametrize(("trained", "available", "wanted"), [
    (10, 10, 10), (300, 300, 64), (6_000, 3_000, 120), (1_000_000, 50_000, 1024), (20_000, 300, 300),
])  # fmt: skip
def test_the_number_of_images_grows_with_the_training(trained, available, wanted):
    assert norm_statistics.images_for(trained, available) == wanted


def test_after_few_steps_the_report_is_that_of_the_network_that_was_trained():
    trained = trainer(epochs=30, lr=1e-2)
    trained.run(3)
    running = copy.deepcopy(trained.model)
    trained.average.copy_to(running)
    right = [
        float((trained.predict(model, trained.feed.images).argmax(1) == trained.feed.labels).float().mean())
        for model in (running.eval(), trained.evaluation_model())
    ]
    assert right[1] > right[0] + 0.2, right


def test_training_goes_on_as_if_it_had_not_been_evaluated():
    first, second = trainer(), trainer()
    first.run(1)
    first.evaluation_model()
    for one in (first, second):
        one.run(2)
    assert all(torch.equal(value, second.state()[0][name]) for name, value in first.state()[0].items())
    ends = [one.evaluation_model().state_dict() for one in (first, first, second)]
    assert all(torch.equal(ends[0][name], other[name]) for other in ends[1:] for name in ends[0])


@pytest.mark.parametrize("count", [2, 5, 17])
def test_few_images_are_enough(count):
    trained = trainer(images=feed(count), augment="crop", mixup=0.2)
    trained.run(1)
    assert all(torch.isfinite(one).all() for one in trained.evaluation_model().state_dict().values())


def test_an_untrained_network_keeps_its_statistics():
    fresh = trainer()
    wanted, found = statistics(fresh.model), statistics(fresh.evaluation_model())
    assert all(torch.equal(found[name], one) for name, one in wanted.items())
