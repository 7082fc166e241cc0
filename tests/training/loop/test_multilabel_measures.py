"""Measures for several labels per image, against scikit-learn and by exhaustion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from autodistill.search.objectives.objectives import objectives
from autodistill.training.loop import decisions
from autodistill.training.loop import multilabel_measures as measures
from autodistill.training.loop.measures import measures as of_classes
from autodistill.training.loop.multilabel_resampling import resampled_labels
from autodistill.training.loop.resampling import DRAWINGS, draws, rows_of
from autodistill.training.loop.trainer import scores


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = (rng.random((200, 5)) < [0.5, 0.3, 0.1, 0.05, 0.0]).astype(np.int64)  # nobody has the last label
    return rng.normal(size=(200, 5)) + 1.5 * labels - 0.5, labels


def test_mean_average_precision_is_that_of_scikit_learn_over_labels_that_occur(answers) -> None:
    logits, labels = answers
    wanted = np.mean([metrics.average_precision_score(labels[:, k], logits[:, k]) for k in range(4)])
    found = measures.multilabel_measures.get("average_precision")(logits, labels)
    assert found == pytest.approx(wanted, rel=1e-12)


def test_area_under_the_roc_curve_is_that_of_scikit_learn(answers) -> None:
    logits, labels = answers
    wanted = np.mean([metrics.roc_auc_score(labels[:, k], logits[:, k]) for k in range(4)])
    assert measures.auroc(logits, labels) == pytest.approx(wanted, rel=1e-12)


def test_f1_and_recall_are_those_of_scikit_learn(answers) -> None:
    logits, labels = answers
    every = metrics.f1_score(labels, logits > 0, average=None, zero_division=0.0)[:4]
    recalls = metrics.recall_score(labels, logits > 0, average=None, zero_division=0.0)[:4]
    found = {
        name: measures.multilabel_measures.get(name)(logits, labels) for name in measures.multilabel_measures.names()
    }
    assert found["macro_f1"] == pytest.approx(every.mean())
    assert found["worst_f1"] == pytest.approx(every.min())
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(labels, logits > 0, average="micro"))
    assert found["macro_recall"] == pytest.approx(recalls.mean())
    assert found["worst_recall"] == pytest.approx(recalls.min())
    assert measures.label_recalls(logits, labels)[:4] == pytest.approx(recalls)


def test_counts_are_the_confusion_matrices_of_scikit_learn(answers) -> None:
    logits, labels = answers
    wanted = metrics.multilabel_confusion_matrix(labels, logits > 0)  # (labels, 2, 2): absent and present
    found = measures.label_counts(logits, labels)
    assert np.array_equal(found, wanted[:, [1, 0, 1, 0], [1, 1, 0, 0]])


def test_the_calibration_error_of_honest_probabilities_is_small_and_of_shifted_ones_the_shift() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    labels = (rng.random(logits.shape) < measures.sigmoid(logits)).astype(np.int64)
    assert measures.calibration_error(logits, labels) < 0.01
    never = np.full((50, 2), np.log(0.3 / 0.7))
    assert measures.calibration_error(never, np.zeros((50, 2), dtype=np.int64)) == pytest.approx(0.3)


def test_thresholds_reach_the_best_f1_of_all_thresholds(answers) -> None:
    logits, labels = answers
    found = measures.best_thresholds(logits, labels)
    reached = measures.label_f1(logits, labels, found)
    for label in range(4):
        tried = [-np.inf, *np.sort(logits[:, label])]
        every = [metrics.f1_score(labels[:, label], logits[:, label] > cut, zero_division=0.0) for cut in tried]
        assert reached[label] == pytest.approx(max(every))
    assert found[4] == 0.0  # a label that nobody has keeps one half


def test_a_threshold_of_one_half_stays_where_it_is_as_good() -> None:
    logits = np.array([[3.0], [1.0], [-1.0], [-2.0]])
    assert measures.best_thresholds(logits, np.array([[1], [1], [0], [0]])) == pytest.approx([0.0])
    low = measures.best_thresholds(logits - 2.0, np.array([[1], [1], [0], [0]]))
    assert low == pytest.approx([-2.0])  # halfway between -1 and -3


def test_equal_logits_are_decided_together() -> None:
    logits = np.array([[1.0], [1.0], [1.0], [0.0]])
    labels = np.array([[1], [0], [1], [0]])
    cut = measures.best_thresholds(logits, labels)
    assert measures.label_f1(logits, labels, cut)[0] == pytest.approx(0.8)


def test_scores_of_several_labels_are_subset_accuracy_and_binary_cross_entropy(answers) -> None:
    logits, labels = answers
    teacher = torch.from_numpy(np.where(labels > 0, 2.0, -2.0))
    found = scores(torch.from_numpy(logits), torch.from_numpy(labels), teacher)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, logits > 0))
    assert found["agreement"] == pytest.approx(1 - metrics.hamming_loss(labels, logits > 0))
    wanted = np.logaddexp(0, logits) - labels * logits
    assert found["loss"] == pytest.approx(wanted.sum(1).mean())
    assert set(measures.multilabel_measures.names()) <= set(found)
    assert "balanced_accuracy" not in found


def test_decisions_about_classes_are_as_before() -> None:
    logits, labels = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([1, 1])
    assert decisions.is_right(logits, labels).tolist() == [True, False]
    assert decisions.agreement(logits, -logits, several=False) == 0.0


@pytest.mark.parametrize("name", measures.multilabel_measures.names())
def test_every_measure_is_an_objective(name: str) -> None:
    assert objectives.get(name).stage == "trained"
    assert objectives.get(name).direction == ("minimize" if name in ("ece", "log_loss") else "maximize")


def test_measures_of_both_tasks_have_one_meaning_each() -> None:
    shared = {*of_classes.names()} & {*measures.multilabel_measures.names()}
    assert {"average_precision", "auroc", "macro_f1", "worst_recall", "ece"} <= shared


def test_measures_of_resampled_images_are_those_of_the_drawn_rows(answers) -> None:
    logits, labels = answers
    teacher = logits[::-1].copy()
    found = resampled_labels(logits, labels, teacher)
    drawn = draws(np.zeros(len(labels), dtype=np.int64), DRAWINGS, 0)
    assert set(measures.multilabel_measures.names()) | {"accuracy", "loss", "agreement"} == set(found)
    for place, rows in enumerate(list(rows_of(drawn))[:5]):
        wanted = scores(*(torch.from_numpy(array[rows].copy()) for array in (logits, labels, teacher)))
        for name, values in found.items():
            assert values[place] == pytest.approx(wanted[name], rel=1e-9), name


def test_a_label_that_is_missing_in_a_drawing_is_left_out_of_its_mean() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 2), dtype=np.int64)
    labels[:20, 0], labels[3, 1] = 1, 1  # one image has the second label: a third of the drawings lack it
    found = resampled_labels(rng.normal(size=(40, 2)), labels)
    assert np.isfinite(found["average_precision"]).all()
    assert len(found["macro_f1"]) == DRAWINGS
