"""Images with several labels: sources, checks and splits."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from autodistill.core.errors import DataError, UsageError
from autodistill.core.records import MULTICLASS, MULTILABEL, DataSpec
from autodistill.training.data.datasets import check_task, data_sources, load_images, load_test
from autodistill.training.data.sources.base import label_kinds
from autodistill.training.data.sources.splits import choose_rows, hold_out

SCENES = DataSpec("synthetic_scenes", options={"count": 240, "size": 16, "classes": 4})


def test_scenes_have_none_to_three_labels_and_colour(tmp_path) -> None:
    data = load_images(SCENES, tmp_path)
    assert data.kind == MULTILABEL
    assert data.classes == ("disc", "square", "triangle", "ring")
    labels = np.concatenate([data.train.labels, data.val.labels])
    assert labels.shape == (240, 4)
    assert labels.dtype == np.int64
    assert set(labels.sum(1)) == {0, 1, 2, 3}
    assert data.channels == 3
    again = load_images(SCENES, tmp_path)
    assert np.array_equal(again.train.images, data.train.images)
    assert again.fingerprint == data.fingerprint
    test = load_test(SCENES, tmp_path)
    assert len(test) == 60
    assert not np.array_equal(test.images[:20], data.train.images[:20])


def test_scenes_of_the_same_labels_differ_and_a_label_is_seen(tmp_path) -> None:
    data = load_images(DataSpec("synthetic_scenes", options={"count": 240, "size": 32, "noise": 0.0}), tmp_path)
    empty = data.train.images[data.train.labels.sum(1) == 0]
    shown = data.train.images[data.train.labels.sum(1) == 3]
    assert empty.reshape(len(empty), 3, -1).std(2).max() == 0  # nothing but paper
    assert shown.reshape(len(shown), 3, -1).std(2).max(1).min() > 10


@pytest.mark.parametrize("count", [15, 40, 100])
def test_chosen_rows_keep_the_share_of_every_label(count) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((200, 6)) < [0.5, 0.4, 0.2, 0.1, 0.05, 0.02]).astype(np.int64)
    mask = choose_rows(labels, count, seed=0, stream="x")
    assert mask.sum() == count
    wanted = labels.sum(0) * count / 200
    assert np.abs(labels[mask].sum(0) - wanted).max() <= 1.5
    assert np.array_equal(mask, choose_rows(labels, count, seed=0, stream="x"))
    assert not np.array_equal(mask, choose_rows(labels, count, seed=1, stream="x"))


def test_a_label_of_two_images_is_in_both_parts() -> None:
    labels = np.zeros((100, 3), dtype=np.int64)
    labels[:50, 0] = 1
    labels[[3, 70], 1] = 1
    labels[[4, 71, 72], 2] = 1
    for seed in range(5):
        mask = hold_out(labels, 0.15, seed=seed, stream="validation")
        assert mask.sum() == 15
        assert labels[mask].any(0).all()
        assert labels[~mask].any(0).all()


def test_a_label_of_one_image_is_refused_by_name_and_one_of_none_is_not() -> None:
    labels = np.zeros((20, 3), dtype=np.int64)
    labels[:9, 0] = 1
    assert hold_out(labels, 0.2, seed=0, stream="validation").sum() == 4
    labels[0, 2] = 1
    with pytest.raises(DataError, match="label 'rare' has 1 image; at least 2"):
        hold_out(labels, 0.2, seed=0, stream="validation", classes=["a", "b", "rare"])


def _factory(monkeypatch, labels: np.ndarray, classes: tuple[str, ...] | None = None) -> DataSpec:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 8, 8), dtype=np.uint8)
    module = types.ModuleType("labelled_pool")
    made = (images, labels) if classes is None else (images, labels, classes)
    module.make = lambda part: made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "labelled_pool", module)
    return DataSpec("labelled_pool:make")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_a_function_may_return_presences(monkeypatch, tmp_path, dtype) -> None:
    labels = (np.arange(120).reshape(40, 3) % 4 < 2).astype(dtype)
    data = load_images(_factory(monkeypatch, labels, ("cat", "dog", "cow")), tmp_path)
    assert data.kind == MULTILABEL
    assert data.train.labels.dtype == np.int64
    assert data.classes == ("cat", "dog", "cow")
    assert len(data.train) + len(data.val) == 40


def test_presences_other_than_0_and_1_or_without_a_name_are_refused(monkeypatch, tmp_path) -> None:
    labels = np.arange(120).reshape(40, 3) % 3
    with pytest.raises(DataError, match="labels from 0 to 2; with several labels per image each is 0"):
        load_images(_factory(monkeypatch, labels), tmp_path)
    with pytest.raises(DataError, match=r"\(40, 3\) and 2 classes"):
        load_images(_factory(monkeypatch, labels % 2, ("a", "b")), tmp_path)


def test_validation_images_on_which_nothing_varies_are_refused(monkeypatch, tmp_path) -> None:
    with pytest.raises(DataError, match="no label is both present and absent"):
        load_images(_factory(monkeypatch, np.tile([1, 0], (40, 1))), tmp_path)


def test_a_subset_of_the_training_images_keeps_the_labels(tmp_path) -> None:
    from dataclasses import replace

    whole, part = load_images(SCENES, tmp_path), load_images(replace(SCENES, train_size=100), tmp_path)
    assert len(part.train) == 100
    assert np.abs(part.train.labels.mean(0) - whole.train.labels.mean(0)).max() < 0.02


def test_labels_that_serve_the_other_task_are_refused_before_images_are_read(tmp_path) -> None:
    with pytest.raises(UsageError, match="'digits' gives one class per image, but task: multilabel"):
        check_task(DataSpec("digits"), MULTILABEL)
    with pytest.raises(UsageError, match="set task: multilabel"):
        check_task(SCENES, MULTICLASS)
    check_task(DataSpec("my_module:factory"), MULTILABEL)  # only its images can tell
    with pytest.raises(UsageError, match="set task: multilabel"):
        check_task(DataSpec("my_module:factory"), MULTICLASS, load_images(SCENES, tmp_path))


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar10", "cifar100", "image_folder", "synthetic"])
def test_built_in_sources_say_what_their_labels_serve(name: str) -> None:
    assert name in data_sources
    assert label_kinds.get(name) == MULTICLASS
