"""Losses for several labels per image, against torch's distributions, NumPy's correlations and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, kl_divergence

from autodistill.core.errors import UsageError
from autodistill.core.records import MULTILABEL
from autodistill.training.distillation.class_weights import class_weights, positive_weights
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.loss_terms import LossTerms, binary_task_loss
from autodistill.training.distillation.multilabel_losses import multilabel_losses


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(6, 4, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    return student, teacher, (torch.rand(6, 4, generator=generator) > 0.6).double()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_divergence_of_bernoulli_distributions_summed_over_labels(batch, temperature) -> None:
    student, teacher, _ = batch
    found = multilabel_losses.get("kd")(student, teacher, None, temperature=temperature)
    theirs, ours = (Bernoulli(logits=logits / temperature) for logits in (teacher, student))
    assert found.item() == pytest.approx(kl_divergence(theirs, ours).sum(1).mean().item() * temperature**2, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_ce_is_kd_plus_the_entropy_of_the_teacher(batch, temperature) -> None:
    student, teacher, _ = batch
    kd, soft = (
        multilabel_losses.get(name)(student, teacher, None, temperature=temperature) for name in ("kd", "soft_ce")
    )
    entropy = Bernoulli(logits=teacher / temperature).entropy().sum(1).mean() * temperature**2
    assert soft.item() == pytest.approx((kd + entropy).item(), rel=1e-12)


def test_hard_is_binary_cross_entropy_with_the_labels_of_the_teacher(batch) -> None:
    student, teacher, _ = batch
    wanted = F.binary_cross_entropy(student.sigmoid(), (teacher.sigmoid() > 0.5).double(), reduction="sum") / 6
    assert multilabel_losses.get("hard")(student, teacher, None).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_dist_correlates_sigmoids_over_labels_and_over_images(batch) -> None:
    student, teacher, _ = batch
    ours, theirs = (1 / (1 + np.exp(-logits.numpy() / 2)) for logits in (student, teacher))
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)]
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, theirs.T, strict=True)]
    wanted = 4 * (0.5 * np.mean(rows) + 3 * np.mean(columns))
    found = multilabel_losses.get("dist")(student, teacher, None, temperature=2, beta=0.5, gamma=3)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_the_task_loss_is_binary_cross_entropy_summed_over_labels(batch) -> None:
    student, _, target = batch
    wanted = torch.nn.BCEWithLogitsLoss(reduction="sum")(student, target) / len(student)
    assert binary_task_loss(student, target).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_weights_are_those_of_present_labels(batch) -> None:
    student, _, target = batch
    weights = torch.tensor([1.0, 2.0, 5.0, 0.5], dtype=torch.float64)
    wanted = torch.nn.BCEWithLogitsLoss(reduction="sum", pos_weight=weights)(student, target) / len(student)
    assert binary_task_loss(student, target, weights=weights).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_label_smoothing_moves_presences_towards_one_half() -> None:
    logits = torch.zeros(1, 2, dtype=torch.float64)
    assert binary_task_loss(logits, torch.tensor([[1.0, 0.0]]), 0.2).item() == pytest.approx(2 * math.log(2))
    tilted = torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    p = 1 / (1 + math.exp(-2))
    wanted = -(0.9 * math.log(p) + 0.1 * math.log(1 - p)) - (0.1 * math.log(p) + 0.9 * math.log(1 - p))
    assert binary_task_loss(tilted, torch.tensor([[1.0, 0.0]]), 0.2).item() == pytest.approx(wanted)


def test_balanced_weights_let_presence_and_absence_pull_alike() -> None:
    labels = torch.zeros(100, 3, dtype=torch.int64)
    labels[:2, 0] = 1
    labels[:50, 1] = 1
    weights = positive_weights("balanced", labels)
    assert weights.tolist() == pytest.approx([49.0, 1.0, 1.0])  # the last label has no image
    logits = torch.zeros(100, 3, requires_grad=True)
    binary_task_loss(logits, labels, weights=weights).backward()
    assert logits.grad is not None
    assert logits.grad[:, :2].sum(0).abs().max() < 1e-6


def test_effective_weights_lie_between_balanced_ones_and_none() -> None:
    labels = torch.zeros(1000, 2, dtype=torch.int64)
    labels[:10, 0] = 1
    effective, balanced = (class_weights(kind, labels, 2) for kind in ("effective", "balanced"))
    assert effective is not None
    assert balanced is not None
    base = 1 - 1 / 1000
    assert effective[0].item() == pytest.approx((1 - base**990) / (1 - base**10), rel=1e-5)
    assert 1 < effective[0] < balanced[0]
    assert class_weights("none", labels, 2) is None


@pytest.mark.parametrize("name", ["dkd", "nkd", "logit_std"])
def test_a_mix_with_a_loss_for_one_class_per_image_is_refused(name) -> None:
    with pytest.raises(UsageError, match=f"'{name}' cannot serve task: multilabel; allowed: dist, hard, kd"):
        LossMix.parse({"loss": name}, kind=MULTILABEL)


def test_a_mix_adds_the_scaled_kd_to_the_task_loss(batch) -> None:
    student, teacher, target = batch
    mix = LossMix.parse({"loss": "kd", "alpha": 0.25, "temperature": 2, "calibration_batches": 1}, kind=MULTILABEL)
    at = student.clone().requires_grad_()
    found = LossTerms(mix)(at, target, teacher)
    task, kd = binary_task_loss(student, target), multilabel_losses.get("kd")(student, teacher, None, temperature=2.0)
    pulls = []
    for term in (
        lambda x: binary_task_loss(x, target),
        lambda x: multilabel_losses.get("kd")(x, teacher, None, temperature=2.0),
    ):
        leaf = student.clone().requires_grad_()
        pulls.append(torch.autograd.grad(term(leaf), leaf)[0].norm())
    scale = pulls[0] / pulls[1]
    assert found.total.item() == pytest.approx((0.75 * task + 0.25 * scale * kd).item(), rel=1e-9)
