"""What a teacher's answers must be like: consistent, logits, in the order of the classes, and better than guessing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.errors import TeacherError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.checking.chance import above_chance, balanced_accuracy, enough_images
from autodistill.training.teachers.checking.class_order import exchanged
from autodistill.training.teachers.checking.consistency import FOLDER
from autodistill.training.teachers.checking.preflight import check_enough, preflight
from autodistill.training.teachers.teacher import Preprocessing, Teacher, freeze, logits_of
from autodistill.training.trials.teach import teach

RNG = np.random.default_rng(0)


def colours(counts: list[int], *, held_out: str = "") -> ImageData:
    """Colour images whose red channel is their class times ten, with noise in the others."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = RNG.integers(0, 255, (len(labels), 3, 8, 8), dtype=np.uint8)
    images[:, 0] = 10 * labels[:, None, None]
    split = Split(images, labels.astype(np.int64), np.arange(len(labels)))
    names = tuple(f"class {number}" for number in range(len(counts)))
    return ImageData(split, split, names, 8, 3, (0.0,) * 3, (1.0,) * 3, "fingerprint", len(labels), held_out=held_out)


def seen(images: Tensor) -> Tensor:
    """The class that :func:`colours` painted into an image."""
    return (images[:, 0, 0, 0] * 25.5).round().long()


def teacher_of(network: Callable[[Tensor], Tensor], outputs: str = "") -> Teacher:
    return Teacher("own", "0123456789abcdef", Preprocessing(8, 3, outputs=outputs), network=network)


def knowing(classes: int, scale: float = 9.0) -> Callable[[Tensor], Tensor]:
    return lambda images: scale * F.one_hot(seen(images), classes).float() - 1


# -- consistent -------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Right everywhere, with a layer whose answers depend on its mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return knowing(4)(images) + self.layer(images[:, 1:, :4, :4].flatten(1))[:, :4]


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 4), nn.Dropout(0.2))


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (dropout, r"other logits when it is asked the same images again \(largest difference .* call \.eval\(\) on it"),
        (batch_norm, r"in batches of 6 and of 16 \(largest .* depend on the other images of the batch.* training mode"),
    ],
)
def test_a_closure_over_a_network_in_training_mode_is_refused(layer: Callable[[], nn.Module], said: str) -> None:
    torch.manual_seed(0)
    network, data = Noisy(layer()), colours([20] * 4)
    closure = teacher_of(lambda images: network(images))
    network.train()
    with pytest.raises(TeacherError, match=said):
        preflight(closure, data, accept_weak=True)
    network.eval()
    assert preflight(closure, data).accuracy == 1.0
    frozen = replace(closure, network=freeze(Noisy(layer()), torch.device("cpu")))
    assert preflight(frozen, data).accuracy == 1.0


def test_a_member_of_an_ensemble_that_depends_on_chance_is_named() -> None:
    shaky = replace(teacher_of(lambda x: knowing(4)(x) + torch.rand(len(x), 4)), name="shaky")
    both = Teacher("both", "1", Preprocessing(8, 3), members=((0.5, teacher_of(knowing(4))), (0.5, shaky)))
    with pytest.raises(TeacherError, match="teacher shaky gives other logits"):
        preflight(both, colours([20] * 4))


@pytest.mark.parametrize("scale", [0.05, 1.0, 1000.0])
def test_rounding_is_no_inconsistency(scale: float) -> None:
    def rounded(images: Tensor) -> Tensor:
        noise = 0.004 * scale * torch.sin(torch.arange(len(images))[:, None] + torch.arange(4)[None, :])
        return scale * knowing(4, 2.0)(images) + noise  # of bf16, other in another place of a batch

    assert preflight(teacher_of(rounded), colours([20] * 4)).accuracy == 1.0


def test_a_teacher_that_passed_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def network(images: Tensor) -> Tensor:
        asked.append(len(images))
        return knowing(4)(images)

    data, teacher = colours([20] * 4), teacher_of(network)
    preflight(teacher, data, memory=tmp_path)
    consistent = [16, 16, 6, 6, 4]
    assert asked[: len(consistent)] == consistent
    once = asked[len(consistent) :]
    asked.clear()
    preflight(teacher, data, memory=tmp_path)
    assert asked == once
    preflight(replace(teacher, fingerprint="other"), data, memory=tmp_path)
    assert asked == [*once, *consistent, *once]
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["0123456789abcdef", "other"]


# -- logits -----------------------------------------------------------------------------------------------------------


def test_outputs_of_a_sigmoid_are_recognised_and_their_log_odds_are_distilled() -> None:
    data = colours([20] * 4)
    plain = knowing(4, 3.0)
    with pytest.raises(
        TeacherError, match=r"outputs of a sigmoid: .*--set teacher\.options\.outputs=sigmoid .*log-odds"
    ):
        preflight(teacher_of(lambda images: plain(images).sigmoid()), data, accept_weak=True)
    mended = teacher_of(lambda images: plain(images).sigmoid(), "sigmoid")
    assert preflight(mended, data).accuracy == 1.0
    images = torch.from_numpy(data.val.images[::7]).float() / 255
    torch.testing.assert_close(mended(images), plain(images), atol=1e-5, rtol=1e-5)
    assert preflight(teacher_of(lambda images: plain(images).sigmoid(), "logits"), data).accuracy == 1.0


def test_the_log_odds_of_certain_outputs_are_finite_and_other_numbers_have_none() -> None:
    certain = teacher_of(lambda images: F.one_hot(seen(images), 4).float(), "sigmoid")
    logits = certain(torch.from_numpy(colours([3] * 4).val.images).float() / 255)
    assert bool(torch.isfinite(logits).all())
    assert logits.max() == pytest.approx(23 * math.log(2))
    with pytest.raises(TeacherError, match=r"no log-odds for 80 of 80 .* option outputs is sigmoid"):
        preflight(teacher_of(knowing(4), "sigmoid"), colours([20] * 4))


def test_one_logit_for_two_classes_is_said_to_need_both() -> None:
    with pytest.raises(
        TeacherError, match=r"gives 1 logits per image; the data has 2 classes.*torch\.cat\(\[-z, z\], 1\)"
    ):
        preflight(teacher_of(lambda images: images.mean((1, 2, 3))[:, None]), colours([20, 20]))


class ImageClassifierOutput(OrderedDict[str, Tensor]):
    """As that of Hugging Face's transformers: a mapping with attributes, whose first value may be the loss."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Wrapped(nn.Module):
    """A network that answers as those of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 4)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        features = pixel_values.mean((2, 3))
        return ImageClassifierOutput(hidden_states=features, logits=self.classifier(features))


def test_the_output_of_a_hugging_face_classifier_is_unwrapped() -> None:
    torch.manual_seed(0)
    network, images = Wrapped().eval(), torch.rand(5, 3, 8, 8)
    logits = network.classifier(images.mean((2, 3)))
    module = teacher_of(freeze(network, torch.device("cpu")))
    for teacher in (module, teacher_of(lambda x: network(x)), teacher_of(lambda x: dict(network(x)))):
        torch.testing.assert_close(teacher(images), logits)
    found, embedding = module.embedding(images)
    torch.testing.assert_close(found, logits)
    torch.testing.assert_close(embedding, images.mean((2, 3)))
    assert isinstance(module.network(images), Tensor)  # type: ignore[misc]  # its costs are measured on it


def test_a_transformers_network_is_a_teacher() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=4,
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config).eval()
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        expected = network(images).logits
    torch.testing.assert_close(teacher_of(freeze(network, torch.device("cpu")))(images), expected)
    assert logits_of(network(images)).shape == (3, 4)


# -- in the order of the classes --------------------------------------------------------------------------------------


def test_two_exchanged_classes_of_ten_are_found_where_the_teacher_is_right_on_most_images() -> None:
    data = colours([20] * 10)
    places = torch.tensor([0, 1, 7, 3, 4, 5, 6, 2, 8, 9])
    teacher = teacher_of(lambda images: 9 * F.one_hot(places[seen(images)], 10).float() - 1)
    said = r"exchanges classes: 100% of the images of 'class 2' are called 'class 7', 100% .* 'class 7' .*'class 2'"
    with pytest.raises(TeacherError, match=said) as refused:
        preflight(teacher, data)
    order = [0, 1, 7, 3, 4, 5, 6, 2, 8, 9]
    assert f"class_map to {order}" in str(refused.value)
    mended = replace(teacher, preprocessing=replace(teacher.preprocessing, class_map=tuple(order)))
    assert preflight(mended, data).accuracy == 1.0
    assert preflight(teacher, data, accept_weak=True).accuracy == pytest.approx(0.8)


def noisy_decisions(labels: np.ndarray, right: float, classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, classes, len(labels)))


def test_an_exchange_is_found_under_errors_and_in_circles_of_three() -> None:
    labels = np.repeat(np.arange(12), 30)
    decided = noisy_decisions(labels, 0.8, 12)
    assert exchanged(decided, labels, 12) == []
    order = np.arange(12)
    order[[1, 4, 9]] = [4, 9, 1]
    assert exchanged(order[decided], labels, 12) == order.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_weak_teacher_that_confuses_classes_is_not_said_to_exchange_them(seed: int) -> None:
    labels = np.repeat(np.arange(100), 4)
    assert exchanged(noisy_decisions(labels, 0.1, 100, seed), labels, 100) == []
    both = np.repeat(np.arange(10), 40)
    confused = noisy_decisions(both, 0.9, 10, seed)
    confused[(both == 3)] = np.where(np.arange(40) < 28, 5, 3)  # most of 3 are called 5, but not the other way round
    assert exchanged(confused, both, 10) == []


# -- better than guessing ---------------------------------------------------------------------------------------------


def test_a_perfect_teacher_of_a_rare_class_is_not_refused() -> None:
    data = colours([190, 10])  # accuracy cannot exceed 95 % by four standard errors: that would be 101 %
    check_enough(data)
    found = preflight(teacher_of(knowing(2)), data)
    assert (found.accuracy, found.weak, found.measures["balanced_accuracy"]) == (1.0, False, 1.0)


def test_guessing_is_refused_however_rare_a_class_is() -> None:
    data = colours([190, 10])
    generator = torch.Generator().manual_seed(1)
    table = torch.rand(256, generator=generator) < 0.05
    guesses = teacher_of(lambda images: 9 * F.one_hot(table[(images[:, 1, 0, 0] * 255).long()].long(), 2).float() - 1)
    for one in (guesses, teacher_of(lambda images: torch.tensor([[1.0, -1.0]]).expand(len(images), 2))):
        with pytest.raises(TeacherError, match=r"gives 95\.0%\. Its balanced accuracy .*; guessing gives 50\.0%"):
            preflight(one, data)


def test_one_image_of_a_class_proves_nothing() -> None:
    labels = np.repeat([0, 1], [199, 1])
    assert not above_chance(labels, labels)
    with pytest.raises(TeacherError, match=r"with 200 validation images, even a perfect .* at least \d+ are needed"):
        check_enough(colours([199, 1]))


@pytest.mark.parametrize("counts", [[8, 8], [199, 1], [60, 3, 3], [5] * 5])
def test_as_many_images_as_are_said_to_be_enough_are(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    needed = enough_images(labels)
    several = np.repeat(
        np.arange(len(counts)), np.maximum(np.round(np.array(counts) * needed / len(labels)), 1).astype(int)
    )
    assert above_chance(several, several)
    assert enough_images(np.repeat([0, 1], [8, 8])) == 18


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.95, 0.05], [0.6, 0.3, 0.05, 0.05], [0.1] * 10])
def test_decisions_that_know_nothing_are_practically_never_above_chance(shares: list[float]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(len(shares), 300, p=shares)
    assert not any(above_chance(rng.permutation(labels), labels) for _ in range(500))
    assert not any(above_chance(rng.integers(0, len(shares), 300), labels) for _ in range(500))


def test_balanced_accuracy_equals_scikit_learns() -> None:
    from sklearn.metrics import balanced_accuracy_score

    labels = RNG.choice(5, 200, p=[0.5, 0.2, 0.2, 0.05, 0.05])
    decided = noisy_decisions(labels, 0.6, 7)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert balanced_accuracy(decided, labels) == pytest.approx(balanced_accuracy_score(labels, decided))


def test_classes_that_a_teacher_never_names_are_said() -> None:
    data = colours([40, 40, 10, 6])
    found = preflight(
        teacher_of(lambda images: knowing(4)(images)[:, [0, 1, 2, 2]] - torch.tensor([0, 0, 0, 0.1])), data
    )
    assert found.notes == (
        "the teacher own never names 1 of 4 classes (class 3), which have 6 validation images: students will hardly "
        "learn them from it",
    )


# -- not flattered ----------------------------------------------------------------------------------------------------


def test_that_a_teacher_may_have_seen_the_validation_images_is_said_where_they_come_from_the_training_images() -> None:
    own, split = colours([20] * 4), colours([20] * 4, held_out="abc")
    teacher = teacher_of(knowing(4))
    assert preflight(teacher, own).notes == ()
    (said,) = preflight(teacher, split).notes
    assert "if the teacher own was trained on all of them, its accuracy is flattered; give validation images" in said


def test_a_teacher_taught_on_the_same_split_has_not_seen_them_and_on_another_split_has(tmp_path: Path) -> None:
    network = {"family": "resnetv2", "width": 4, "stages": 2}
    spec = DataSpec("digits", train_size=200)
    data, other = (datasets.load_images(replace(spec, seed=seed)) for seed in (0, 1))
    taught = teach(data, network, directory=tmp_path / "teacher", epochs=1, recipe={"augment": "none"})
    teacher = teachers.load_teacher(TeacherSpec(taught.source), data)
    assert not any("split" in note for note in preflight(teacher, data, accept_weak=True).notes)
    notes = preflight(teacher, other, accept_weak=True).notes
    assert any("was trained with another split of the same images: it has seen some of them" in note for note in notes)
