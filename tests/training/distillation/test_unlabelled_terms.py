"""Losses of batches with unlabelled images against sums written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autodistill.core.records import MULTILABEL
from autodistill.training.distillation.distillation_losses import losses
from autodistill.training.distillation.embedding_losses import embedding_losses
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.loss_terms import LossTerms

LABELLED, ALL, CLASSES, WIDTH = 6, 10, 5, 7


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = numbers(ALL, CLASSES, seed=0), numbers(ALL, CLASSES, seed=1)
TARGET = torch.arange(LABELLED) % CLASSES


def test_labels_of_labelled_images_and_the_teacher_for_all_of_them():
    mix = LossMix.parse({"loss": "kd", "temperature": 3.0, "calibrate": False, **RAW})
    found = LossTerms(mix)(STUDENT, TARGET, TEACHER, labelled=LABELLED)
    task = F.cross_entropy(STUDENT[:LABELLED], TARGET)
    kd = 9 * F.kl_div(
        (STUDENT / 3).log_softmax(1), (TEACHER / 3).log_softmax(1), reduction="batchmean", log_target=True
    )
    assert found.task.item() == pytest.approx(task.item(), rel=1e-12)
    assert found.distillation.item() == pytest.approx(kd.item(), rel=1e-12)
    assert found.total.item() == pytest.approx(0.75 * task.item() + 0.25 * kd.item(), rel=1e-12)


RAW = {"task_weight": 0.75, "distillation_weight": 0.25}


@pytest.mark.parametrize("loss", [name for name in losses.names() if name != "none"])
def test_a_loss_with_labels_takes_the_teachers_most_likely_class_in_their_place(loss):
    mix = LossMix.parse({"loss": loss, "calibrate": False})
    target = torch.cat([TARGET, TEACHER[LABELLED:].argmax(1)])
    found = LossTerms(mix)(STUDENT, TARGET, TEACHER, labelled=LABELLED)
    expected = losses.get(loss)(STUDENT, TEACHER, target, **mix.keywords)
    assert found.distillation.item() == pytest.approx(expected.item(), rel=1e-12)
    mixed = F.one_hot(TARGET, CLASSES).double() * 0.7 + 0.06
    assert LossTerms(mix)(STUDENT, mixed, TEACHER, labelled=LABELLED).total.isfinite()


def test_with_several_labels_the_teachers_decision_stands_for_each_label():
    mix = replace(LossMix(), kind=MULTILABEL)
    labels = (numbers(LABELLED, CLASSES, seed=5) > 0).double()
    target = LossTerms(mix)._answered(labels, TEACHER, LABELLED)
    assert torch.equal(target, torch.cat([labels, (TEACHER[LABELLED:] > 0).double()]))


@pytest.mark.parametrize("term", embedding_losses.names())
def test_an_embedding_term_compares_all_images(term):
    mix = LossMix.parse({"loss": "none", "embedding": term, "calibrate": False})
    ours, theirs = numbers(ALL, WIDTH, seed=2), numbers(ALL, WIDTH, seed=3)
    found = LossTerms(mix)(STUDENT, TARGET, None, ours, theirs, labelled=LABELLED)
    assert found.embedding.item() == pytest.approx(embedding_losses.get(term)(ours, theirs).item(), rel=1e-12)


def test_scales_are_those_of_the_labelled_images_alone():
    """So one range of alpha serves studies with and without unlabelled images."""
    mix = LossMix.parse({"loss": "kd", "alpha": 0.5, "embedding": "embed_cosine"})
    weight = numbers(WIDTH, CLASSES, seed=4)
    scales = []
    for count, labelled in ((LABELLED, None), (ALL, LABELLED)):
        embedding = numbers(ALL, WIDTH, seed=2)[:count].requires_grad_()
        terms = LossTerms(mix)
        terms(
            embedding @ weight,
            TARGET,
            TEACHER[:count],
            embedding,
            numbers(ALL, WIDTH, seed=3)[:count],
            labelled=labelled,
        )
        scales.append(terms.scales)
    assert scales[0] == pytest.approx(scales[1], rel=1e-9)


def test_unlabelled_images_get_no_gradient_of_the_task_loss():
    student = STUDENT.clone().requires_grad_()
    mix = LossMix.parse({"loss": "kd", "calibrate": False, "task_weight": 1.0, "distillation_weight": 0.0})
    LossTerms(mix)(student, TARGET, TEACHER, labelled=LABELLED).total.backward()
    assert student.grad[:LABELLED].abs().sum() > 0
    assert student.grad[LABELLED:].abs().sum() == 0
