"""Teachers of several labels per image: what they answer, and what the checks find."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from autodistill.core.errors import TeacherError
from autodistill.core.records import MULTICLASS, MULTILABEL, DataSpec, TeacherSpec
from autodistill.training.data.datasets import ImageData, load_images
from autodistill.training.teachers.checking import labels as multilabel_checks
from autodistill.training.teachers.checking.preflight import check_enough, preflight
from autodistill.training.teachers.load import check_teacher, load_teacher
from autodistill.training.trials.teach import teach


class Sees(nn.Module):
    """A teacher that reads the labels from the image: the value of pixel ``k`` of the first channel is label ``k``."""

    def __init__(
        self, end: Callable[[Tensor], Tensor] = lambda logits: logits, order: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        super().__init__()
        self.end, self.order = end, order

    def forward(self, images: Tensor) -> Tensor:
        logits = 8 * images[:, 0, 0, :3] - 4 + 0.5 * images[:, 1, 0, :3]
        return self.end(logits[:, list(self.order)])


@pytest.fixture
def data() -> ImageData:
    rng = np.random.default_rng(2)
    labels = (rng.random((300, 3)) < [0.5, 0.3, 0.1]).astype(np.int64)
    images = rng.integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
    images[:, 0, 0, :3] = 255 * labels
    module = types.ModuleType("seen")
    module.make = lambda part: (images, labels, ("cat", "dog", "cow"))  # type: ignore[attr-defined]
    sys.modules["seen"] = module
    return load_images(DataSpec("seen:make", val_fraction=0.4))


def _spec(monkeypatch, network: nn.Module, **options) -> TeacherSpec:
    module = types.ModuleType("given_teacher")
    module.make = lambda: network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "given_teacher", module)
    return TeacherSpec("given_teacher:make", options=options)


def test_a_teacher_of_labels_is_recognised_and_measured(monkeypatch, data) -> None:
    teacher = load_teacher(_spec(monkeypatch, Sees()), data)
    assert teacher.multilabel
    found = preflight(teacher, data)
    assert found.accuracy == 1.0
    assert found.values["average_precision"] == 1.0
    assert not found.weak
    assert found.merit_words == "mAP 1.0000"


def test_a_softmax_is_refused_and_sigmoids_need_the_option(monkeypatch, data) -> None:
    with pytest.raises(TeacherError, match=r"gives a softmax.*cannot serve task: multilabel"):
        preflight(load_teacher(_spec(monkeypatch, Sees(lambda z: z.softmax(1))), data), data)
    with pytest.raises(TeacherError, match=r"probabilities of labels.*outputs=sigmoid"):
        preflight(load_teacher(_spec(monkeypatch, Sees(torch.sigmoid)), data), data)
    with pytest.raises(TeacherError, match="although its option outputs is sigmoid"):
        preflight(load_teacher(_spec(monkeypatch, Sees(), outputs="sigmoid"), data), data)


def test_the_option_of_a_softmax_is_refused_by_name(monkeypatch, data) -> None:
    with pytest.raises(TeacherError, match=r"outputs=probabilities, a softmax.*multilabel.*outputs=sigmoid"):
        preflight(load_teacher(_spec(monkeypatch, Sees(torch.sigmoid), outputs="probabilities"), data), data)


def test_a_teacher_whose_labels_all_shift_with_the_batch_is_refused(monkeypatch, data) -> None:
    shifting = Sees(lambda z: z + 2 * z[0].mean())  # a softmax would not see it
    with pytest.raises(TeacherError, match="depend on the other images of the batch"):
        preflight(load_teacher(_spec(monkeypatch, shifting), data), data)


def test_probabilities_of_labels_become_their_logits(monkeypatch, data) -> None:
    plain = load_teacher(_spec(monkeypatch, Sees()), data)
    told = load_teacher(_spec(monkeypatch, Sees(torch.sigmoid), outputs="sigmoid"), data)
    images = torch.from_numpy(data.val.images[:20]).float() / 255
    assert told(images).numpy() == pytest.approx(plain(images).numpy(), abs=1e-3)
    assert preflight(told, data).accuracy == 1.0
    certain = load_teacher(_spec(monkeypatch, Sees(lambda z: (z > 0).float()), outputs="sigmoid"), data)
    assert certain(images).abs().max() < 17  # probabilities of 0 and 1 stay finite


def test_exchanged_labels_are_found_with_the_map_that_mends_them(monkeypatch, data) -> None:
    with pytest.raises(TeacherError, match=r"class_map to \[1, 2, 0\]"):
        preflight(load_teacher(_spec(monkeypatch, Sees(order=(2, 0, 1))), data), data)
    mended = load_teacher(_spec(monkeypatch, Sees(order=(2, 0, 1)), class_map=[1, 2, 0]), data)
    assert preflight(mended, data).accuracy == 1.0


def test_a_teacher_that_knows_nothing_is_refused(monkeypatch, data) -> None:
    blind = Sees(lambda z: torch.sin(1e4 * z))
    with pytest.raises(TeacherError, match=r"area under the ROC curve of 0.*guessing gives 0.5"):
        preflight(load_teacher(_spec(monkeypatch, blind), data), data)
    assert preflight(load_teacher(_spec(monkeypatch, blind), data), data, accept_weak=True).weak


def test_members_of_an_ensemble_are_averaged_label_by_label(monkeypatch, data) -> None:
    module = types.ModuleType("two_teachers")
    module.one = Sees  # type: ignore[attr-defined]
    module.other = lambda: Sees(lambda z: -z / 3)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "two_teachers", module)
    spec = TeacherSpec("ensemble", options={"members": ["two_teachers:one", "two_teachers:other"], "shares": [3, 1]})
    teacher = load_teacher(spec, data)
    images = torch.from_numpy(data.val.images[:8]).float() / 255
    first = Sees()(images)
    wanted = 0.75 * first.sigmoid() + 0.25 * (-first / 3).sigmoid()
    assert teacher(images).sigmoid().numpy() == pytest.approx(wanted.detach().numpy(), abs=1e-6)


def test_areas_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(np.int64)
    outputs = np.round(rng.normal(size=(60, 4)) + labels, 1)  # with ties
    found = multilabel_checks.areas(outputs, labels)
    for row in range(4):
        for column in range(3):
            assert found[row, column] == pytest.approx(roc_auc_score(labels[:, column], outputs[:, row]))
    assert np.isnan(found[:, 3]).all()


def test_guessing_stays_below_the_bound_and_its_standard_error_is_that_of_chance() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((200, 1)) < 0.2).astype(np.int64)
    guesses = [multilabel_checks.mean_area(rng.normal(size=labels.shape), labels) for _ in range(400)]
    assert np.std(guesses) == pytest.approx(multilabel_checks.standard_errors(labels)[0], rel=0.1)
    assert max(guesses) < multilabel_checks.least_area(labels)


def test_too_few_images_are_said_before_a_teacher_is_trained(data) -> None:
    check_enough(data)
    few = dataclasses.replace(data.val, images=data.val.images[:6], labels=data.val.labels[:6], ids=data.val.ids[:6])
    with pytest.raises(TeacherError, match="with 6 validation images, even a perfect teacher"):
        check_enough(dataclasses.replace(data, val=few))


def test_a_taught_teacher_serves_its_own_task_only(tmp_path) -> None:
    scenes = load_images(DataSpec("synthetic_scenes", options={"count": 120, "size": 8, "classes": 3}), tmp_path)
    model = {"family": "resnet", "width": 4, "depth": 1}
    spec = teach(scenes, model, directory=tmp_path / "teacher", epochs=1)
    assert load_teacher(spec, scenes).multilabel
    check_teacher(spec, kind=MULTILABEL)
    with pytest.raises(TeacherError, match="trained for task: multilabel, and the study's task is multiclass"):
        check_teacher(spec, kind=MULTICLASS)
    shapes = load_images(DataSpec("synthetic", options={"count": 60, "size": 8, "classes": 3}), tmp_path)
    with pytest.raises(TeacherError, match="task: multilabel"):
        load_teacher(spec, shapes)
