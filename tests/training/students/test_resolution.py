"""A student that sees smaller images than its study: costs, building, training and evaluation at its own side."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autodistill.core.errors import InfeasibleError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec, LatencyTarget
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.costs.counts import known_costs
from autodistill.training.data import datasets
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer
from autodistill.training.students import build as students
from autodistill.training.students.resolution import own_shape, side_of
from autodistill.training.students.student_input import StudentInput
from autodistill.training.survey.predicted_costs import UnsurveyedCosts
from autodistill.training.survey.space_check import family_range
from autodistill.training.survey.survey import survey

SMALL = {"family": "mobilenetv3", "variant": "mobilenetv3_small_050", "resolution": 96}
FULL = {"family": "mobilenetv3", "variant": "mobilenetv3_small_050"}
METRICS = ("params", "macs", "activations", "peak_memory_mb", "onnx_bytes")


def test_costs_are_those_of_the_same_student_on_images_of_that_size():
    target, memory = LatencyTarget(), CostMemory(None)
    rows = survey([SMALL, FULL], image_size=192, channels=3, num_classes=5, metrics=METRICS, target=target)
    model = students.build_student(FULL, image_size=96, channels=3, num_classes=5)
    alone = known_costs(model, image_size=96, channels=3, metrics=METRICS)
    assert rows[0].costs == alone
    assert rows[0].costs["params"] == rows[1].costs["params"]
    # convolutions of a quarter of the pixels; the layers after the pooling stay
    assert 0.24 < rows[0].costs["macs"] / rows[1].costs["macs"] < 0.3
    assert rows[0].costs["activations"] < 0.3 * rows[1].costs["activations"]
    predicted = UnsurveyedCosts(METRICS, {"image_size": 192, "channels": 3}, 5, target=target, memory=memory)
    assert {name: predicted(SMALL)[name] for name in METRICS} == alone


def test_latency_is_measured_on_images_of_that_size(monkeypatch):
    from autodistill.training.survey import surveyor

    sides = []
    real = surveyor.prepare_run
    monkeypatch.setattr(
        surveyor, "prepare_run", lambda model, target, **shape: sides.append(shape) or real(model, target, **shape)
    )
    row = survey(
        [SMALL], image_size=128, channels=3, num_classes=5, metrics=("params", "latency_ms"), target=LatencyTarget()
    )[0]
    assert sides == [{"image_size": 96, "channels": 3}]
    assert row.costs["latency_ms"] > 0


def test_stored_costs_are_shared_with_studies_of_smaller_images():
    memory = CostMemory(None)
    small = memory.key(SMALL, {"image_size": 128, "channels": 3}, 5)
    assert small == memory.key(FULL, {"image_size": 96, "channels": 3}, 5)
    assert small != memory.key(FULL, {"image_size": 128, "channels": 3}, 5)


def test_a_transformer_has_the_positions_of_its_own_side():
    vit = {"family": "vit", "width": 32, "depth": 2, "patch": 8, "resolution": 32}
    model = students.build_student(vit, image_size=64, channels=3, num_classes=4)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(AssertionError):
        model(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("student", "error", "message"),
    [
        ({**FULL, "resolution": 20}, UsageError, r"takes images of 28 to \d+ px, got 20; .*student\.resolution"),
        ({**FULL, "resolution": 96.5}, UsageError, r"student\.resolution is 96\.5; allowed: a whole number from 4"),
        ({**FULL, "resolution": 160}, InfeasibleError, r"resolution is 160 px, but the images have 128 px"),
        ({**FULL, "resolutoin": 96}, UnknownNameError, "did you mean 'resolution'"),
    ],
)
def test_a_resolution_that_cannot_be_is_refused(student, error, message):
    check = students.build_student if error is InfeasibleError else students.validate
    more = {"channels": 3, "num_classes": 4} if error is InfeasibleError else {}
    with pytest.raises(error, match=message):
        check(student, image_size=128, **more)


def test_a_family_refuses_a_resolution_below_its_least_when_its_space_is_checked():
    found = family_range("lcnet", [{"family": "lcnet", "resolution": 32}], image_size=64, channels=3, num_classes=4)
    assert found.built == 1
    with pytest.raises(UsageError, match="takes images of 28"):
        family_range("lcnet", [{"family": "lcnet", "resolution": 16}], image_size=64, channels=3, num_classes=4)


def test_the_name_of_a_student_tells_its_resolution():
    assert students.describe(SMALL) == "mobilenetv3_small_050 96 px"
    assert students.describe({"family": "timm", "model": "resnet18", "resolution": 96}) == "resnet18 96 px"


def test_shapes_keep_the_side_of_images_without_a_resolution():
    assert side_of({"family": "resnet"}, 96) == 96
    assert own_shape({"family": "resnet", "resolution": 32}, {"image_size": 96, "channels": 3}) == {
        "image_size": 32,
        "channels": 3,
    }


class Seen(nn.Module):
    """Remembers its input."""

    def __init__(self, side):
        super().__init__()
        self.inputs, self.head = [], nn.Linear(3 * side * side, 4)

    def forward(self, images):
        self.inputs.append(images.detach().clone())
        return self.head(images.flatten(1))


def test_training_and_evaluation_resize_views_and_images_as_torch_does():
    data = datasets.load_images(DataSpec("synthetic", options={"classes": 4, "count": 64, "size": 32}))
    given = StudentInput(20, data.mean, data.std)
    model = Seen(20)
    recipe = Recipe.parse({"batch_size": 16, "augment": "flip_crop"})
    trainer = Trainer(model, Feed.of(data), Distillation(LossMix()), recipe, epochs=1, seed=0, student_input=given)
    rows = trainer._order(0)[:16]
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (data.mean, data.std))
    views = trainer.batch(rows, 0).views
    assert views.shape[-1] == 32  # the teacher sees these
    trainer.run(1)
    wanted = (F.interpolate(views, (20, 20), mode="bilinear", antialias=True).clamp(0, 1) - mean) / std
    assert torch.allclose(model.inputs[0], wanted, atol=1e-6)

    images = data.val.images[:8]
    model.inputs.clear()
    logits = trainer.predict(model, torch.from_numpy(images))
    pixels = torch.from_numpy(images).float() / 255
    wanted = (F.interpolate(pixels, (20, 20), mode="bilinear", antialias=True).clamp(0, 1) - mean) / std
    assert torch.allclose(model.inputs[0], wanted, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(logits, model(torch.from_numpy(given.of_images(images))), atol=1e-5)
        assert torch.allclose(logits, model(given.of_pixels(pixels)), atol=1e-5)


def test_images_of_the_right_size_are_normalized_only():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    given = StudentInput(8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    shape = (1, 3, 1, 1)
    expected = (images / 255 - np.reshape(given.mean, shape)) / np.reshape(given.std, shape)
    np.testing.assert_allclose(given.of_images(images), expected, atol=1e-6)
