"""Distillation losses for several labels per image: each logit is that of one label, present or absent by itself.

The functions have the contract of ``distillation_losses.py`` with sigmoids instead of the softmax: sum over labels,
mean over the batch, times T² where a temperature T divides the logits, fp32 or float64, with the teacher detached.
*Targets* are presences (batch, labels), from 0 to 1. The names are those of the losses for one class per image that
they correspond to. A loss that singles out the one class of an image (``dkd``, ``nkd``), or that compares logits over
the classes of a softmax (``logit_std``), has no form here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from autodistill.core.registry import Registry
from autodistill.training.distillation.distillation_losses import none, registrar, relations
from autodistill.training.distillation.loss_info import LossFunction, LossInfo, Range

multilabel_losses: Registry[LossFunction] = Registry("multi-label distillation loss", "autodistill.multilabel_losses")
"""Registered losses: ``fn(student_logits, teacher_logits, target, *, temperature, …) -> scalar``."""

infos: dict[str, LossInfo] = {}
"""Descriptions of the losses of this module, by name."""

_multilabel_loss = registrar(multilabel_losses, infos)


_multilabel_loss("none", source="control arm: what the student reaches without a teacher")(none)


@_multilabel_loss(
    "kd",
    source="Hinton 2015, arXiv:1503.02531, label by label as in Yang 2023 (ICCV), arXiv:2308.06453",
    ranges={"temperature": Range(1, 20)},
    task_weight=0.1,
    distillation_weight=0.9,
)
def binary_kd(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 4.0) -> Tensor:
    """Divergence of presence and absence of each label, from the softened teacher to the softened student.

    With ``p = sigmoid(teacher / T)`` and ``q = sigmoid(student / T)``, the sum over labels of
    ``p log(p / q) + (1 - p) log((1 - p) / (1 - q))``, mean over the batch, times T².
    """
    del target
    soft, theirs = student / temperature, teacher / temperature
    shares = theirs.sigmoid()
    present = shares * (F.logsigmoid(theirs) - F.logsigmoid(soft))
    absent = (1 - shares) * (F.logsigmoid(-theirs) - F.logsigmoid(-soft))
    return (present + absent).sum(1).mean() * temperature**2


@_multilabel_loss(
    "soft_ce",
    source="label-free form of kd, as in Wu 2022 (TinyViT), arXiv:2207.10666, label by label",
    ranges={"temperature": Range(1, 10)},
    task_weight=0.0,
)
def binary_soft_ce(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """Binary cross-entropy with the softened teacher probabilities as the labels: kd plus the teacher's entropy."""
    del target
    shares = (teacher / temperature).sigmoid()
    return _binary_cross_entropy(student / temperature, shares) * temperature**2


@_multilabel_loss(
    "dist",
    source="Huang 2022 (NeurIPS), arXiv:2205.10536, with sigmoids",
    ranges={"temperature": Range(1, 5), "beta": Range(0.25, 4), "gamma": Range(0.25, 4)},
    distillation_weight=2.0,
)
def dist_over_labels(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """One minus Pearson correlation of probabilities: ``beta`` over labels, ``gamma`` over images.

    The probabilities are ``sigmoid(logit / T)`` instead of a softmax. For a batch of one image, the part over images
    is zero.
    """
    del target
    ours, theirs = (student / temperature).sigmoid(), (teacher / temperature).sigmoid()
    return relations(ours, theirs, beta=beta, gamma=gamma) * temperature**2


@_multilabel_loss(
    "hard", source="Touvron 2021, arXiv:2012.12877, label by label", task_weight=0.5, distillation_weight=0.5
)
def binary_hard(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """Binary cross-entropy with the labels that the teacher decides for; ``temperature`` has no effect."""
    del target, temperature
    return _binary_cross_entropy(student, (teacher > 0).to(student.dtype))


@_multilabel_loss("logit_mse", source="Ba 2014, arXiv:1312.6184")
def logit_mse(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """Mean squared difference of the logits, over batch and labels; ``temperature`` has no effect."""
    del target, temperature
    return F.mse_loss(student, teacher)


def _binary_cross_entropy(student: Tensor, shares: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(student, shares, reduction="none").sum(1).mean()
