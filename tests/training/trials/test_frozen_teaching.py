"""Teachers of frozen backbones: features once per view, a fitted classifier, and training of the whole afterwards."""

from __future__ import annotations

import json

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from hub_cache import lay_hub_cache
from PIL import Image

from autodistill.core.errors import InterruptedTrialError, UsageError, WeightsError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.runtime.cache_folder import teacher_caches
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.answers import answers
from autodistill.training.teachers.cache.folders import list_caches
from autodistill.training.trials.frozen import backbone
from autodistill.training.trials.frozen import head as heads
from autodistill.training.trials.frozen.backbone import Backbone
from autodistill.training.trials.teach import teach

TINY = ("test_vit", "test_vit3", "test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet")


@pytest.fixture(scope="module", autouse=True)
def _hub(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        lay_hub_cache(patch, tmp_path_factory.mktemp("hub"), *TINY)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # timm's own calls in these tests
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Colour pictures whose class is the colour of a disc."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for number in range(40):
            pixels = rng.integers(0, 120, (40, 40, 3))
            rows, columns = np.mgrid[:40, :40]
            top, left = rng.integers(12, 28, 2)
            disc = (rows - top) ** 2 + (columns - left) ** 2 < rng.integers(60, 140)
            pixels[disc, label] += 130
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return datasets.load_images(DataSpec("image_folder", root=str(root), image_size=48, val_fraction=0.3))


@pytest.fixture
def counted(monkeypatch):
    """Count the images that a backbone runs on."""
    seen = []
    features = Backbone.features

    def counting(self, images):
        seen.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Backbone, "features", counting)
    return seen


@pytest.mark.parametrize("name", TINY)
def test_any_backbone_gets_a_classifier_of_its_own_input(data, tmp_path, name):
    said, shown = [], []
    spec = teach(
        data, name, directory=tmp_path / "t", freeze=True, announce=said.append, progress=lambda *one: shown.append(one)
    )
    assert said[-1].startswith(f"fitting a classifier to features of the frozen {name}, of 2 views")
    assert shown[-1][0] == shown[-1][1] == 2
    facts = json.loads((tmp_path / "t" / "teacher.json").read_bytes())
    config = timm.get_pretrained_cfg(name)
    assert (facts["mean"], facts["std"]) == (list(config.mean), list(config.std))
    assert facts["frozen"] is True
    teacher = teachers.load_teacher(spec, data)
    assert teacher.preprocessing.mean == config.mean
    accuracy = float((answers(teacher, data.val).argmax(1).numpy() == data.val.labels).mean())
    assert accuracy == pytest.approx(facts["metrics"]["accuracy"])
    assert accuracy > 0.6  # chance is a third; features of random networks suffice for colours
    _, embedding = teacher.embedding(torch.rand(2, 3, 48, 48))
    assert embedding.shape == (2, teacher.embedding_width())


def test_the_backbone_keeps_every_weight_but_those_of_its_classifier(data, tmp_path):
    spec = teach(data, "test_resnet", directory=tmp_path / "t", freeze=True)
    network = teachers.load_teacher(spec, data).network.network
    original = timm.create_model("test_resnet", pretrained=True, num_classes=3)
    for key, value in original.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(network.state_dict()[key], value), key


def test_features_are_computed_once_per_view_and_kept_on_disk(data, tmp_path, counted):
    images = len(data.train)
    teach(data, "test_byobnet", directory=tmp_path / "one", freeze=True, seed=3)
    assert sum(counted) == 2 * images + 8  # plain and one augmented view, and the check of the finished network
    counted.clear()
    teach(data, "test_byobnet", directory=tmp_path / "two", freeze=True, seed=3, recipe={"views": 2})
    assert sum(counted) == images + 8  # the second augmented view is new
    counted.clear()
    teach(data, "test_byobnet", directory=tmp_path / "three", freeze=True, seed=3, recipe={"class_weights": "balanced"})
    assert sum(counted) == 8
    assert any(info.key.data != data.fingerprint for info in list_caches(teacher_caches()))


def test_a_stopped_run_continues_where_it_was(data, tmp_path, counted):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(InterruptedTrialError, match="they are kept"):
        teach(data, "test_convnext", directory=tmp_path / "t", freeze=True, seed=5, should_stop=should_stop)
    before = sum(counted)
    assert before > 0
    teach(data, "test_convnext", directory=tmp_path / "t", freeze=True, seed=5)
    assert sum(counted) == 2 * len(data.train) + 8
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_the_same_call_keeps_the_teacher_and_another_is_named(data, tmp_path):
    first = teach(data, "test_resnet", directory=tmp_path / "t", freeze=True)
    assert teach(data, "test_resnet", directory=tmp_path / "t", freeze=True) == first
    with pytest.raises(UsageError, match=r"it differs in: epochs\)"):
        teach(data, "test_resnet", directory=tmp_path / "t", freeze=True, unfreeze=2)
    with pytest.raises(UsageError, match=r"it differs in: .*frozen"):
        teach(data, {"family": "resnet", "width": 4, "depth": 1}, directory=tmp_path / "t", epochs=1)


def test_the_whole_network_may_be_trained_afterwards_and_resumed(data, tmp_path):
    torch.set_num_threads(1)
    shown = []
    spec = teach(
        data, "test_resnet", directory=tmp_path / "whole", freeze=True, unfreeze=2, recipe={"lr": 1e-4, "ema": 0.0},
        progress=lambda *one: shown.append(one[:2]),
    )  # fmt: skip
    assert shown[-1] == (4, 4)
    network = teachers.load_teacher(spec, data).network.network
    original = timm.create_model("test_resnet", pretrained=True, num_classes=3).state_dict()
    assert any(not torch.equal(value, original[key]) for key, value in network.named_parameters() if "fc" not in key)
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 7  # within the training: the features take 4 batches

    call = {"freeze": True, "unfreeze": 2, "recipe": {"lr": 1e-4, "ema": 0.0}}
    with pytest.raises(InterruptedTrialError, match="teaching stopped after"):
        teach(data, "test_resnet", directory=tmp_path / "parts", should_stop=should_stop, **call)
    again = teach(data, "test_resnet", directory=tmp_path / "parts", **call)
    one, two = (teachers.load_teacher(each, data) for each in (spec, again))
    assert torch.equal(answers(one, data.val), answers(two, data.val))


def test_another_input_size_is_taken_where_the_network_has_it(data, tmp_path):
    spec = teach(data, "test_vit", directory=tmp_path / "t", freeze=True, input_size=64)
    assert teachers.load_teacher(spec, data).image_size == 64
    with pytest.raises(UsageError, match=r"cannot be run on these images \(8 px: .*--input-size"):
        teach(data, "test_vit", directory=tmp_path / "small", freeze=True, input_size=8)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vit_small_patch14_dinov2", 98),
        ("vit_base_patch16_siglip_224", 96),
        ("resnet18", 90),
        ("vit_tiny_patch16_224", 96),
    ],
)
def test_patches_that_do_not_divide_the_image_size_round_it_up(name, first):
    sizes = backbone._sizes({"family": "timm", "model": name}, 90, 224)
    assert sizes[0] == first
    assert sizes[-1] == 224


def test_grey_images_are_shown_to_a_colour_network(tmp_path):
    digits = datasets.load_images(DataSpec("digits", train_size=200))
    spec = teach(digits, "test_efficientnet", directory=tmp_path / "t", freeze=True, input_size=32)
    teacher = teachers.load_teacher(spec, digits)
    assert teacher.preprocessing.channels == 3
    assert float((answers(teacher, digits.val).argmax(1).numpy() == digits.val.labels).mean()) > 0.5


def test_options_of_an_automatic_teacher_freeze_it_too(data, tmp_path):
    options = {"model": "test_resnet", "freeze": True, "input_size": 64}
    spec = teach(data, TeacherSpec("auto", options=options), directory=tmp_path / "t")
    assert teachers.load_teacher(spec, data).image_size == 64
    with pytest.raises(UsageError, match="input_size belongs to a frozen network; add freeze: true"):
        teach(data, TeacherSpec("auto", options={"model": "test_resnet", "input_size": 64}), directory=tmp_path / "u")


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("test_resnet", {"unfreeze": 1}, "add --freeze"),
        (None, {"freeze": True}, "--freeze --model NAME"),
        ("test_resnet", {"freeze": True, "epochs": 3}, "--unfreeze N"),
        ("test_resnet", {"freeze": True, "recipe": {"lr": 0.1}}, "training setting lr has no effect on a frozen"),
        ("test_resnet", {"freeze": True, "unfreeze": -1}, "unfreeze is -1"),
    ],
)
def test_what_would_have_no_effect_is_refused(data, tmp_path, model, keys, message):
    with pytest.raises(UsageError, match=message):
        teach(data, model, directory=tmp_path / "t", **keys)
    assert not list(tmp_path.iterdir())


def test_a_network_without_weights_or_hub_is_refused_in_seconds(data, tmp_path):
    with pytest.raises(WeightsError, match="vit_tiny_patch16_224"):
        teach(data, "vit_tiny_patch16_224", directory=tmp_path / "t", freeze=True)


def test_weights_of_a_folder_of_teach_can_be_frozen(data, tmp_path):
    """Their network, size, channels and normalization are read from the folder."""
    digits = datasets.load_images(DataSpec("digits", train_size=200))
    teach(digits, {"family": "resnet", "width": 8, "depth": 1}, directory=tmp_path / "first", epochs=1)
    spec = teach(data, directory=tmp_path / "second", weights=str(tmp_path / "first"), freeze=True)
    facts = json.loads((tmp_path / "second" / "teacher.json").read_bytes())
    assert facts["architecture"]["family"] == "resnet"
    assert (facts["channels"], facts["mean"]) == (1, list(digits.mean))
    assert answers(teachers.load_teacher(spec, data), data.val).shape[1] == 3


# the classifier


def clouds(count=300, width=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, width)) * 3
    features = (rng.normal(size=(count, width)) + centres[labels]) * np.logspace(-2, 2, width) + 7
    return features.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_folded_classifier_equals_scikit_learns_on_standardised_features(classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, labels = clouds(classes=classes)
    head = heads.fit_head([features], labels, classes=classes, seed=0)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    model = LogisticRegression(C=head.strength, max_iter=2000, tol=1e-8).fit(scaled, labels)
    logits = head.logits(features)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(chances - model.predict_proba(scaled)).max() < 0.02


def test_the_penalty_is_chosen_without_validation_images_by_cross_entropy():
    features, labels = clouds()
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(300, 200)).astype(np.float32)
    wrong = np.where(rng.random(300) < 0.2, (labels + 1) % 3, labels)
    strong = heads.fit_head([np.concatenate([features, noise], axis=1)], wrong, classes=3, seed=0)
    weak = heads.fit_head([features], labels, classes=3, seed=0)
    assert strong.strength < weak.strength
    assert weak.held_out > 0.9


def test_several_labels_are_one_regression_each():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, classes = clouds()
    labels = np.stack([classes == 0, classes != 2, np.zeros(300), np.ones(300)], axis=1).astype(np.int64)
    head = heads.fit_head([features], labels, classes=4, seed=0)
    logits = head.logits(features)
    assert ((logits > 0) == labels).mean() > 0.95
    assert (logits[:, 2] < 0).all()
    assert (logits[:, 3] > 0).all()
    weighted = heads.fit_head([features], labels, classes=4, seed=0, weights=np.array([9.0, 1.0, 1.0, 1.0]))
    assert weighted.logits(features)[:, 0].mean() > logits[:, 0].mean()
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    model = LogisticRegression(C=heads.STRENGTHS[0], max_iter=2000, tol=1e-8).fit(scaled, labels[:, 0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "STRENGTHS", heads.STRENGTHS[:1])
        found = heads.fit_head([features], labels[:, :1], classes=1, seed=0).logits(features)[:, 0]
    assert np.abs(found - model.decision_function(scaled)).max() < 0.02


def test_a_class_without_images_and_constant_features_do_no_harm():
    features, labels = clouds()
    dead = np.concatenate([features, np.full((300, 1), 4.0, np.float32)], axis=1)
    head = heads.fit_head([dead], labels, classes=5, seed=0)
    assert np.isfinite(head.weight).all()
    assert set(head.logits(dead).argmax(1)) == {0, 1, 2}


def test_views_of_an_image_count_as_one_image():
    features, labels = clouds()
    once = heads.fit_head([features], labels, classes=3, seed=0)
    twice = heads.fit_head([features, features], labels, classes=3, seed=0)
    assert once.strength == twice.strength
    assert np.abs(once.logits(features) - twice.logits(features)).max() < 0.2
