from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from autodistill.core.errors import UsageError
from autodistill.training.loop.measures import class_recalls, compute, confusion, load_measure, measures, softmax

RNG = np.random.default_rng(0)
LABELS = RNG.choice(7, size=400, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])
LOGITS = RNG.normal(size=(400, 7)) + 1.5 * np.eye(7)[LABELS]


def test_measures_equal_scikit_learns_on_the_same_predictions() -> None:
    found, decided, chances = compute(LOGITS, LABELS), LOGITS.argmax(1), softmax(LOGITS)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(LABELS, decided))
    assert found["worst_recall"] == pytest.approx(metrics.recall_score(LABELS, decided, average=None).min())
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(LABELS, decided, average="macro"))
    assert found["top5_accuracy"] == pytest.approx(metrics.top_k_accuracy_score(LABELS, LOGITS, k=5))
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(LABELS, chances, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(LABELS, chances))
    each = [metrics.average_precision_score(c == LABELS, chances[:, c]) for c in range(7)]
    assert found["average_precision"] == pytest.approx(np.mean(each))
    assert (confusion(LOGITS, LABELS) == metrics.confusion_matrix(LABELS, decided)).all()


def test_classes_without_images_count_for_nothing() -> None:
    labels, logits = np.array([0, 0, 2]), np.array([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 9.0, 0]])
    present, recalls = class_recalls(logits, labels)
    assert present.tolist() == [0, 2]
    assert recalls.tolist() == [0.5, 1.0]
    found = compute(logits, labels)
    assert found["balanced_accuracy"] == 0.75
    assert found["worst_recall"] == 0.5
    assert found["top5_accuracy"] == 1.0
    assert all(np.isfinite(value) for value in found.values())


def test_of_one_class_alone_every_measure_is_a_number() -> None:
    found = compute(np.eye(3)[[0, 0, 1]] * 5.0, np.zeros(3, np.int64))
    assert found.keys() == set(measures.names())
    assert found["auroc"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)


def f2(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(metrics.fbeta_score(labels, logits.argmax(1), beta=2, average="macro"))


def never(logits: np.ndarray, labels: np.ndarray) -> float:
    return float("nan")


def test_a_measure_of_the_study_s_own_is_computed_by_name() -> None:
    assert compute(LOGITS, LABELS, {"f2": "test_measures:f2"})["f2"] == pytest.approx(f2(LOGITS, LABELS))
    with pytest.raises(UsageError, match=r"'never' .* returned nan; it must return one finite number"):
        compute(LOGITS, LABELS, {"never": "test_measures:never"})


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("test_measures", "not of the form module:function"),
        ("test_measures:f3", "cannot import"),
        ("no_such_module:f", "cannot import"),
        ("test_measures:LABELS", "expected a function"),
    ],
)
def test_what_is_no_measure_is_refused_with_what_is_wrong(where: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_measure(where)
