"""Measures of resampled images: their spread equals closed forms, their values those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from autodistill.training.loop.measures import compute, measures, softmax
from autodistill.training.loop.resampling import DRAWINGS, draws, ranking, resampled

RNG = np.random.default_rng(0)
LABELS = RNG.choice(5, size=600, p=[0.5, 0.2, 0.15, 0.1, 0.05])
LOGITS = 1.2 * RNG.normal(size=(600, 5)) + 2.0 * np.eye(5)[LABELS]
FOUND = resampled(LOGITS, LABELS)


def test_every_measure_is_resampled_around_its_value() -> None:
    values = {**compute(LOGITS, LABELS), "accuracy": (LOGITS.argmax(1) == LABELS).mean()}
    values["loss"] = metrics.log_loss(LABELS, softmax(LOGITS))
    assert FOUND.keys() == {*measures.names(), "accuracy", "loss"}
    for name, drawings in FOUND.items():
        assert drawings.shape == (DRAWINGS,)
        bias = 0.03 if name == "worst_recall" else 0.015  # the worst of several is lower in a drawing
        assert abs(drawings.mean() - values[name]) < 2 * drawings.std() + bias, name


def test_means_spread_by_their_standard_error() -> None:
    surprise = -np.log(softmax(LOGITS)[np.arange(600), LABELS])
    assert FOUND["loss"].std() == pytest.approx(surprise.std() / np.sqrt(600), rel=0.15)
    right = (LOGITS.argmax(1) == LABELS).mean()
    assert FOUND["accuracy"].std() == pytest.approx(np.sqrt(right * (1 - right) / 600), rel=0.15)


def test_balanced_accuracy_spreads_by_the_recalls_of_the_classes() -> None:
    recalls = metrics.recall_score(LABELS, LOGITS.argmax(1), average=None)
    images = np.bincount(LABELS)
    expected = np.sqrt((recalls * (1 - recalls) / images).sum()) / 5
    assert FOUND["balanced_accuracy"].std() == pytest.approx(expected, rel=0.15)


def test_the_area_under_the_curve_spreads_as_delong_has_it() -> None:
    """DeLong et al. 1988, for one class against the rest."""
    positive, scores = LABELS == 1, softmax(LOGITS)[:, 1]
    above = (scores[positive][:, None] > scores[~positive][None, :]).astype(float)
    variance = above.mean(1).var(ddof=1) / positive.sum() + above.mean(0).var(ddof=1) / (~positive).sum()
    area, _ = ranking(scores, positive, draws(positive.astype(np.int64), 1000, 0))
    assert area.std() == pytest.approx(np.sqrt(variance), rel=0.1)


@pytest.mark.parametrize("digits", [16, 1])
def test_weighted_rankings_equal_scikit_learns(digits: int) -> None:
    scores = softmax(LOGITS)[:, 2].round(digits)  # with one digit, many images have the same score
    positive, drawn = LABELS == 2, draws(LABELS, 5, 3)
    areas, precisions = ranking(scores, positive, drawn)
    for weights, area, precision in zip(drawn, areas, precisions, strict=True):
        assert area == pytest.approx(metrics.roc_auc_score(positive, scores, sample_weight=weights))
        assert precision == pytest.approx(metrics.average_precision_score(positive, scores, sample_weight=weights))


def test_decisions_of_a_drawing_give_scikit_learns_measures() -> None:
    drawn, decided = draws(LABELS, DRAWINGS, 1), LOGITS.argmax(1)
    for place in (0, 7):
        rows = np.repeat(np.arange(600), drawn[place])
        given = LABELS[rows], decided[rows]
        assert FOUND["balanced_accuracy"][place] == pytest.approx(metrics.balanced_accuracy_score(*given))
        assert FOUND["macro_f1"][place] == pytest.approx(metrics.f1_score(*given, average="macro"))
        assert FOUND["worst_recall"][place] == pytest.approx(metrics.recall_score(*given, average=None).min())


def test_networks_are_compared_on_the_same_drawings_in_which_no_class_is_missing() -> None:
    again, other = resampled(LOGITS, LABELS), resampled(LOGITS + 0.3 * RNG.normal(size=LOGITS.shape), LABELS)
    assert all((again[name] == FOUND[name]).all() for name in FOUND)
    assert np.corrcoef(other["loss"], FOUND["loss"])[0, 1] > 0.8
    within = draws(LABELS, 50, 1)
    assert (np.stack([within[:, c == LABELS].sum(1) for c in range(5)]) == np.bincount(LABELS)[:, None]).all()


def f2(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(metrics.fbeta_score(labels, logits.argmax(1), beta=2, average="macro"))


def fails_now_and_then(logits: np.ndarray, labels: np.ndarray) -> float:
    if logits[0, 0] == LOGITS[1, 0]:
        raise ValueError("no such image")
    return 0.5


def test_own_measures_and_agreement_are_resampled_and_one_that_fails_is_left_out() -> None:
    own = {"f2": "test_resampling:f2", "fails": "test_resampling:fails_now_and_then"}
    found = resampled(LOGITS, LABELS, LOGITS, own)
    assert found["f2"].std() > 0
    assert (found["agreement"] == 1.0).all()
    assert "fails" not in found


def test_one_class_alone_and_many_classes_of_few_images_are_no_obstacle() -> None:
    for found in (resampled(np.eye(3)[[0, 0, 1]], np.zeros(3, np.int64)), resampled(np.eye(50), np.arange(50))):
        assert all(np.isfinite(values).all() for values in found.values())
