"""Batches with unlabelled images: which ones, in what order, and with which targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Batch, Feed, Trainer
from autodistill.training.loop.unlabelled_feed import UnlabelledFeed, UnlabelledRows
from autodistill.training.students import build as students

SIDE, CLASSES, LABELLED, FURTHER = 12, 4, 40, 30


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def colours(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def feed(further: int = FURTHER) -> Feed:
    ids = torch.arange(LABELLED)
    unlabelled = UnlabelledFeed(colours(further, 1), LABELLED + torch.arange(further)) if further else None
    return Feed(colours(LABELLED, 0), ids % CLASSES, ids, (0.5,) * 3, (0.25,) * 3, CLASSES, unlabelled)


def answers(batch: Batch) -> tuple[Tensor, None]:
    """A teacher whose logits say which image it saw, mixed like the images."""
    logits = torch.sin(batch.ids[:, None] * torch.arange(1.0, CLASSES + 1)) * 4
    return (logits if batch.mixed is None else batch.mixed.logits(logits)), None


def trainer(mix=None, *, further=FURTHER, epochs=3, seed=0, **settings) -> Trainer:
    network = students.build_student(
        {"family": "resnet", "width": 4, "depth": 1}, image_size=SIDE, channels=3, num_classes=CLASSES, seed=seed
    )
    mix = LossMix.parse(mix or {"loss": "kd", "alpha": 0.5})
    recipe = Recipe.parse({"batch_size": 8, "augment": "crop", "ema": 0.0, **settings})
    return Trainer(network, feed(further), Distillation(mix, answers), recipe, epochs=epochs, seed=seed)


@pytest.mark.parametrize(("ratio", "size"), [(0.25, 2), (1.0, 8), (2.5, 20), (16.0, 30), (0.01, 1)])
def test_the_ratio_gives_the_unlabelled_images_per_labelled_one(ratio, size):
    one = trainer(unlabelled_ratio=ratio)
    batch = one.batch(torch.arange(8), 0)
    assert (batch.labelled, len(batch.ids)) == (8, 8 + size)
    assert batch.ids[:8].tolist() == list(range(8))
    assert (batch.ids[8:] >= LABELLED).all()
    assert len(batch.target) == 8
    assert len(batch.views) == len(batch.teacher) == 8 + size
    assert one.steps_per_epoch == 5  # an epoch counts labelled images


def test_ratio_0_is_the_training_without_unlabelled_images():
    plain, none = trainer(further=0), trainer(unlabelled_ratio=0.0)
    for one in (plain, none):
        one.run(2)
    state = plain.state()[0]
    assert all(torch.equal(value, none.state()[0][name]) for name, value in state.items())


def test_every_pass_takes_each_image_once_in_an_order_of_its_own():
    rows = UnlabelledRows(30, 1.25, batch_size=8, seed=3)
    assert rows.size == 10
    passes = [torch.cat([rows.at(step)[0] for step in range(3 * number, 3 * number + 3)]) for number in range(3)]
    assert [rows.at(step)[1] for step in (0, 2, 3, 8)] == [0, 0, 1, 2]
    assert all(sorted(one.tolist()) == list(range(30)) for one in passes)
    assert not torch.equal(passes[0], passes[1])
    again = UnlabelledRows(30, 1.25, batch_size=8, seed=3)
    assert torch.equal(again.at(7)[0], rows.at(7)[0])  # without the steps before: a resumed training
    assert not torch.equal(UnlabelledRows(30, 1.25, batch_size=8, seed=4).at(0)[0], rows.at(0)[0])


def test_a_training_resumed_between_two_steps_ends_with_the_same_bits():
    whole, first = trainer(unlabelled_ratio=1.5), trainer(unlabelled_ratio=1.5)
    whole.run(3)

    def tick():
        if first.step == 7:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.run(3, tick=tick)
    second = trainer(unlabelled_ratio=1.5)
    second.restore(*first.state())
    second.run(3)
    assert all(torch.equal(value, second.state()[0][name]) for name, value in whole.state()[0].items())


def test_mixing_stays_within_labelled_and_within_unlabelled_images():
    batch = trainer(mixup=0.4).batch(torch.arange(8), 0)
    assert batch.target.shape == (8, CLASSES)  # mixed labels of labelled images only
    alone = trainer(mixup=0.4, further=0).batch(torch.arange(8), 0)
    assert torch.equal(batch.views[:8], alone.views)
    assert torch.equal(batch.target, alone.target)
    assert torch.equal(batch.teacher[:8], alone.teacher)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_parts_for_gradient_accumulation_hold_equal_shares_and_give_the_whole_gradient(ratio):
    one = trainer({"loss": "kd", "calibrate": False}, unlabelled_ratio=ratio)
    one.model.eval()  # BatchNorm statistics of a part differ from those of the whole
    batch = one.batch(torch.arange(8), 0)
    parts = batch.parts(4)
    assert [part.labelled for part in parts] == [2] * 4
    assert [len(part.ids) for part in parts] == [2 + int(2 * ratio)] * 4
    assert sorted(torch.cat([part.ids for part in parts]).tolist()) == sorted(batch.ids.tolist())
    gradients = []
    for one.accumulate in (1, 4):
        one._gradients(batch)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in one.model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_batchnorm_statistics_of_the_evaluated_network_are_those_of_labelled_images():
    one = trainer()
    one.run(1)
    seen = [len(pixels) for pixels in one._unmixed()]
    assert sum(seen) == LABELLED
