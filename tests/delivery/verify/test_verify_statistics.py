from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, norm
from sklearn import metrics

from autodistill.delivery.verify.statistics import (
    accuracy_figure,
    difference,
    half_width,
    mean_precisions,
    mean_recalls,
    measure_figure,
    over_seeds,
    student_quantile,
    summed_confusion,
)
from autodistill.training.loop.measures import calibration_error, compute
from autodistill.training.loop.resampling import resampled


def test_quantiles_are_those_of_the_printed_table_of_student() -> None:
    assert student_quantile(2) == pytest.approx(4.3027, abs=1e-4)
    assert student_quantile(4) == pytest.approx(2.7764, abs=1e-4)
    assert student_quantile(1e9) == pytest.approx(1.9600, abs=1e-4)


def test_mean_and_deviation_over_seeds_have_n_minus_one_below() -> None:
    figure = over_seeds([0.90, 0.92, 0.97])
    assert figure.mean == pytest.approx(0.93)
    assert figure.std == pytest.approx(math.sqrt((0.0009 + 0.0001 + 0.0016) / 2))


def test_one_seed_has_no_deviation() -> None:
    assert over_seeds([0.5]).std is None


def columns(*counts: int, images: int) -> np.ndarray:
    """Right answers of seeds that have the first ``count`` images right."""
    return np.array([[index < count for index in range(images)] for count in counts])


def test_one_seed_gives_the_interval_of_agresti_and_coull_around_the_plain_mean() -> None:
    figure = accuracy_figure(columns(80, images=100))
    p = 82 / 104  # two right and two wrong images are added
    variance = p * (1 - p) / 103  # n p (1 - p) / (n - 1), over n
    half = student_quantile(103) * math.sqrt(variance)
    assert figure.std is None
    assert figure.mean == pytest.approx(0.8)
    assert figure.low == pytest.approx(0.8 - half)
    assert figure.high == pytest.approx(0.8 + half)


def test_with_very_many_images_the_interval_is_the_t_interval_over_seeds() -> None:
    images = 1_000_000
    shares = (0.90, 0.92, 0.97)
    figure = accuracy_figure(columns(*(int(share * images) for share in shares), images=images))
    half = 4.3027 * np.std(shares, ddof=1) / math.sqrt(3)
    assert figure.mean == pytest.approx(0.93)
    assert (figure.high or 0) - figure.mean == pytest.approx(min(half, 0.07), rel=1e-2)
    assert figure.mean - (figure.low or 0) == pytest.approx(half, rel=1e-2)


def test_equal_seeds_leave_the_choice_of_images_as_the_only_doubt() -> None:
    three, one = accuracy_figure(columns(80, 80, 80, images=100)), accuracy_figure(columns(80, images=100))
    assert (three.low, three.high) == pytest.approx((one.low, one.high))


def test_a_student_without_an_error_is_not_thought_to_be_certain() -> None:
    figure = accuracy_figure(np.ones((3, 50), dtype=bool))
    assert figure.mean == 1.0
    assert figure.high == 1.0
    assert 0.85 < (figure.low or 0) < 0.98


def test_the_interval_covers_the_truth_about_as_often_as_its_level() -> None:
    rng = np.random.default_rng(0)
    inside, trials = 0, 400
    for _ in range(trials):
        hard = rng.beta(8, 1, size=200)  # how easy each image is; the mean over all images is 8/9
        shift = rng.normal(0, 0.3, size=3)  # what a seed adds, in logits
        odds = np.log(hard / (1 - hard))
        chances = 1 / (1 + np.exp(-(odds[None] + shift[:, None])))
        figure = accuracy_figure(rng.random(chances.shape) < chances)
        inside += (figure.low or 0) <= 8 / 9 <= (figure.high or 0)
    assert 0.93 <= inside / trials <= 1.0


def spread(variance: float, count: int) -> np.ndarray:
    """Numbers of mean zero with this variance."""
    ends = np.linspace(-1.0, 1.0, count)
    return ends * math.sqrt(variance / ends.var(ddof=1))


def covered(seeds: int, share: float) -> float:
    """How often the interval holds the truth where seeds make ``share`` of the variance of the mean, the rest images.

    Exact for normal seeds: the estimated variance of the seeds takes every quantile of its distribution once.
    """
    images, steps = 1000, 400
    found = []
    for chance in (np.arange(steps) + 0.5) / steps:
        estimated = share * chi2.ppf(chance, seeds - 1) / (seeds - 1)
        half = half_width(spread(estimated * seeds, seeds), spread((1 - share) * images, images))
        found.append(2 * norm.cdf(half) - 1)
    return float(np.mean(found))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_holds_the_truth_in_95_cases_of_100_whatever_seeds_and_images_each_contribute(seeds: int) -> None:
    found = [covered(seeds, share) for share in (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)]
    assert min(found) >= 0.949
    assert found[0] == pytest.approx(0.95, abs=0.002)  # no wider than needed where only the images count
    assert found[-1] == pytest.approx(0.95, abs=0.002)  # or only the seeds


@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_students_are_called_different_in_5_cases_of_100_at_most(seeds: int) -> None:
    rng = np.random.default_rng(0)
    images, trials, called, inside = 1000, 1000, 0, 0
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    truth = float((weights / (1 + np.exp(-(2 + np.hypot(2, 0.3) * nodes)))).sum() / weights.sum())
    for _ in range(trials):
        ease = rng.normal(2, 2, images)  # of each image, in logits; a seed moves all of them by 0.3 up or down
        chances = 1 / (1 + np.exp(-(ease + rng.normal(0, 0.3, (2, seeds, 1)))))
        one, other = rng.random(chances.shape) < chances
        gap = difference(dict(enumerate(one)), dict(enumerate(other)))
        figure = accuracy_figure(one)
        called += gap is not None and gap.certain
        inside += (figure.low or 0) <= truth <= (figure.high or 0)
    assert called / trials <= 0.05
    assert inside / trials >= 0.95


def test_a_difference_is_paired_image_by_image() -> None:
    rng = np.random.default_rng(1)
    base = rng.random((3, 2000)) < 0.7
    better = base.copy()
    better[:, :60] = True  # right wherever the other one is, and on 60 images besides
    gap = difference(dict(enumerate(better)), dict(enumerate(base)))
    assert gap is not None
    assert gap.mean == pytest.approx(better.mean() - base.mean())
    assert gap.certain
    assert gap.high - gap.low < 0.02
    apart = accuracy_figure(better)
    assert (apart.high or 0) - (apart.low or 0) > 0.02  # unpaired, the two intervals would overlap


def test_only_common_seeds_are_compared_and_one_is_never_certain() -> None:
    right, wrong = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
    gap = difference({1: right, 2: right}, {2: wrong, 3: wrong})
    assert gap is not None
    assert gap.seeds == 1
    assert not gap.certain
    assert difference({1: right}, {2: wrong}) is None


def test_equal_answers_do_not_differ() -> None:
    answers = {1: np.arange(50) % 3 > 0, 2: np.arange(50) % 4 > 0}
    gap = difference(answers, answers)
    assert gap is not None
    assert gap.mean == 0.0
    assert not gap.certain


def sure(confidence: float) -> list[float]:
    """Logits of two classes whose first has this probability."""
    return [math.log(confidence / (1 - confidence)), 0.0]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    logits = [sure(0.8)] * 10
    assert calibration_error(logits, [0] * 8 + [1] * 2) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(logits, [0] * 5 + [1] * 5, bins=1) == pytest.approx(0.3)


def test_bins_hold_equally_many_images_by_confidence() -> None:
    logits = [sure(0.6)] * 4 + [sure(0.9)] * 4
    labels = [0, 0, 1, 1, 0, 0, 0, 0]  # accuracy 0.5 at 0.6, and 1.0 at 0.9
    assert calibration_error(logits, labels, bins=2) == pytest.approx((0.1 + 0.1) / 2)
    assert calibration_error(logits, labels, bins=1) == pytest.approx(0.0, abs=1e-12)  # the gaps cancel


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 10_000))
def test_calibration_error_is_a_fraction_whatever_the_logits(images: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    error = calibration_error(rng.normal(0, 50, (images, classes)), rng.integers(0, classes, images))
    assert 0.0 <= error <= 1.0


@given(st.integers(1, 4), st.integers(2, 60), st.integers(0, 10_000))
def test_an_interval_holds_its_mean_inside_zero_and_one(seeds: int, images: int, seed: int) -> None:
    figure = accuracy_figure(np.random.default_rng(seed).random((seeds, images)) < 0.7)
    assert figure.low is not None
    assert figure.high is not None
    assert 0.0 <= figure.low <= figure.mean + 1e-12
    assert figure.mean - 1e-12 <= figure.high <= 1.0


def test_the_interval_of_a_measure_has_both_parts_of_that_of_accuracy() -> None:
    drawings = [np.random.default_rng(seed).normal(0.7, 0.02, 200) for seed in range(3)]
    figure = measure_figure("own", [0.69, 0.70, 0.72], drawings, [500, 500])
    of_images = student_quantile(199) ** 2 * np.mean(drawings, axis=0).var(ddof=1)
    of_seeds = student_quantile(2) ** 2 * np.var([0.69, 0.70, 0.72], ddof=1) / 3
    assert figure.high == pytest.approx(figure.mean + math.sqrt(of_images + of_seeds))
    assert figure.low == pytest.approx(figure.mean - math.sqrt(of_images + of_seeds))
    one = measure_figure("own", [0.69], drawings[:1], [500, 500])
    assert (one.high or 0) - one.mean == pytest.approx(student_quantile(199) * drawings[0].std(ddof=1))
    assert measure_figure("own", [0.69, 0.70], [], [500, 500]) == over_seeds([0.69, 0.70])


@pytest.mark.parametrize(
    "name", ["balanced_accuracy", "worst_recall", "macro_f1", "auroc", "top5_accuracy", "agreement"]
)
def test_a_fraction_without_errors_has_an_interval_that_ends_at_one(name: str) -> None:
    figure = measure_figure(name, [1.0, 1.0], [np.ones(200)] * 2, [190, 10])
    assert figure.high == 1.0
    assert figure.low is not None
    rarest = name == "worst_recall"  # 10 images of 10: the lower end by Wilson is 0.72
    assert (0.72 if rarest else 0.85) < figure.low < 0.995
    none = measure_figure("log_loss", [0.001], [np.abs(np.random.default_rng(0).normal(0, 0.01, 200))], [190, 10])
    assert none.low == 0.0
    assert (none.high or 0) > 0.001


def test_loss_and_agreement_of_one_seed_have_the_interval_of_the_mean_of_images() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    logits = rng.normal(size=(900, 3)) + 2 * np.eye(3)[labels]
    found = resampled(logits, labels)
    loss = compute(logits, labels)["log_loss"]
    figure = measure_figure("loss", [loss], [found["loss"]], np.bincount(labels).tolist())
    each = -np.log(np.exp(logits)[np.arange(900), labels] / np.exp(logits).sum(1))
    assert (figure.high or 0) - loss == pytest.approx(1.97 * each.std() / 30, rel=0.15)


def test_intervals_of_balanced_accuracy_cover_the_truth() -> None:
    """Two classes, 120 and 30 images, true recalls 0.9 and 0.7: the truth is inside at least 93 of 100 intervals."""
    rng, images, truth = np.random.default_rng(1), np.array([120, 30]), np.array([0.9, 0.7])
    labels = np.repeat([0, 1], images)
    inside = 0
    for _ in range(200):
        right = rng.random(150) < truth[labels]
        logits = np.eye(2)[np.where(right, labels, 1 - labels)]
        drawn = resampled(logits, labels)["balanced_accuracy"]
        figure = measure_figure("balanced_accuracy", [compute(logits, labels)["balanced_accuracy"]], [drawn], [120, 30])
        inside += (figure.low or 0) <= 0.8 <= (figure.high or 0)
    assert inside >= 186


def test_class_figures_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    decided = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 4, 300))
    matrix = metrics.confusion_matrix(labels, decided).tolist()
    assert mean_recalls([matrix]) == pytest.approx(tuple(metrics.recall_score(labels, decided, average=None)))
    assert mean_precisions([matrix]) == pytest.approx(tuple(metrics.precision_score(labels, decided, average=None)))
    assert sum(images for _, _, images in summed_confusion([matrix, matrix])) == 600
    assert (mean_recalls([]), mean_precisions([]), summed_confusion([])) == ((), (), ())


def test_the_precision_of_a_class_is_over_the_seeds_that_decide_it() -> None:
    never, once = [[5, 0], [5, 0]], [[4, 1], [2, 3]]
    assert mean_precisions([never, once]) == pytest.approx(((0.5 + 4 / 6) / 2, 0.75))
    assert mean_precisions([never]) == (0.5, None)
