from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from autodistill.training.distillation.class_weights import class_weights
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.loss_terms import task_loss

LABELS = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)


def test_balanced_weights_are_scikit_learns_and_their_mean_over_images_is_one() -> None:
    weights = class_weights("balanced", LABELS, 4)
    assert weights is not None
    assert weights[:3].tolist() == pytest.approx([100 / (3 * 80), 100 / (3 * 15), 100 / (3 * 5)])
    assert weights[3] == 0.0  # no image
    assert weights[LABELS].mean().item() == pytest.approx(1.0)


def test_effective_weights_lie_between_none_and_balanced() -> None:
    balanced, effective = class_weights("balanced", LABELS, 3), class_weights("effective", LABELS, 3)
    assert balanced is not None
    assert effective is not None
    ratio = 1 - 1 / 100
    expected = torch.tensor([(1 - ratio) / (1 - ratio**n) for n in (80, 15, 5)])
    assert (effective / effective[0]).tolist() == pytest.approx((expected / expected[0]).tolist(), rel=1e-4)
    assert 1.0 < effective[2] / effective[0] < balanced[2] / balanced[0]
    assert class_weights("none", LABELS, 3) is None


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_the_weighted_mean_over_images(mixed: bool) -> None:
    logits, weights = torch.randn(100, 3), torch.tensor([0.5, 2.0, 4.0])
    target = F.one_hot(LABELS, 3).float() if mixed else LABELS
    each = F.cross_entropy(logits, LABELS, reduction="none") * weights[LABELS]
    assert task_loss(logits, target, 0.0, weights).item() == pytest.approx(each.mean().item(), rel=1e-5)
    terms = Distillation(LossMix(), class_weights=weights).terms
    assert terms(logits, target).total.item() == pytest.approx(each.mean().item(), rel=1e-5)
