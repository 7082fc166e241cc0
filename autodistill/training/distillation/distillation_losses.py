"""Distillation losses: pure functions of student logits, teacher logits and target.

Each function returns the distillation term alone; ``loss_terms.py`` adds the task loss and the weights. All follow
one convention: sum over classes, mean over the batch, times T² where a temperature T divides the logits. They are
computed in fp32 or float64, with log-softmax on both sides and the teacher detached. Two losses keep their published
scale: ``logit_mse`` is also a mean over classes, and ``dist`` compares correlations.

*Targets* are class indices (batch,), or mixed labels (batch, classes): rows of probabilities from mixup or cutmix.
For mixed labels, a loss that singles out the target class (``dkd``, ``nkd``) is evaluated for the two most probable
classes of the row and averaged with their label weights. This is exact for a mixture of two images, and equals the
published loss for a one-hot row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autodistill.core.errors import UsageError
from autodistill.core.registry import Registry
from autodistill.training.distillation.loss_info import LossFunction, LossInfo, Range, describe

losses: Registry[LossFunction] = Registry("distillation loss", "autodistill.losses")
"""Registered losses: ``fn(student_logits, teacher_logits, target, *, temperature, …) -> scalar``."""

_infos: dict[str, LossInfo] = {}

_FLAT = 1e-3
"""Spread below which a row counts as constant; it bounds the gradients of losses that divide by the spread."""


def loss_info(name: str) -> LossInfo:
    """Return keywords, ranges and published weights of a registered loss; those of a plugin come from its signature.

    Raises:
        UnknownNameError: no loss is registered as ``name``.
    """
    function = losses.get(name)
    return _infos.get(name) or describe(function, name, uses_target=True)


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast on the tensor's device: it would halve the precision of matrix products without saving time.

    If autocast is off, the context does nothing, because entering autocast costs measurable time for a small student.
    """
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def registrar(
    registry: Registry[LossFunction], infos: dict[str, LossInfo]
) -> Callable[..., Callable[[LossFunction], LossFunction]]:
    """Return a decorator that registers formulas, wrapped in the checks and casts that all distillation losses share.

    Args:
        registry: registry of the losses.
        infos: receives the description of each loss.
    """

    def named(name: str, **facts: Any) -> Callable[[LossFunction], LossFunction]:
        def decorate(formula: LossFunction) -> LossFunction:
            info = infos[name] = describe(formula, name, **facts)

            @functools.wraps(formula)
            def loss(student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None, **keywords: Any) -> Tensor:
                keywords = info.check(keywords)
                _check_shapes(name, student_logits, teacher_logits, target, info.uses_target)
                with full_precision(student_logits):
                    student = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
                    teacher = teacher_logits.detach().to(student.dtype)
                    return formula(student, teacher, target, **keywords)

            return registry.register(name)(loss)

        return decorate

    return named


_distillation_loss = registrar(losses, _infos)


@_distillation_loss("none", source="control arm: what the student reaches without a teacher")
def none(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """No distillation: zero with zero gradient for all logits; ``temperature`` has no effect."""
    del teacher, target, temperature
    return student.flatten()[:0].sum()


@_distillation_loss(
    "kd",
    source="Hinton 2015, arXiv:1503.02531",
    ranges={"temperature": Range(1, 20)},
    task_weight=0.1,
    distillation_weight=0.9,
)
def kd(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 4.0) -> Tensor:
    """Kullback-Leibler divergence from the softened teacher to the softened student."""
    del target
    return _divergence(student / temperature, teacher / temperature).mean() * temperature**2


@_distillation_loss(
    "dkd",
    source="Zhao 2022 (CVPR), arXiv:2203.08679",
    ranges={"temperature": Range(1, 10), "beta": Range(0.25, 10)},
    uses_target=True,
)
def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled kd: ``alpha`` times the target part plus ``beta`` times the part among the other classes.

    The published code takes the logarithm of a masked softmax, which is infinite for confident logits. Here the
    probability of the other classes is a log-sum-exp, and their divergence is computed without the target's logit.
    """
    student, teacher = student / temperature, teacher / temperature

    def for_label(label: Tensor) -> Tensor:
        student_target, student_others = _split(student, label)
        teacher_target, teacher_others = _split(teacher, label)
        binary = _divergence(
            torch.stack([student_target, student_others.logsumexp(1)], dim=1),
            torch.stack([teacher_target, teacher_others.logsumexp(1)], dim=1),
        )
        return alpha * binary + beta * _divergence(student_others, teacher_others)

    return _over_labels(for_label, target).mean() * temperature**2


@_distillation_loss(
    "dist",
    source="Huang 2022 (NeurIPS), arXiv:2205.10536",
    ranges={"temperature": Range(1, 5), "beta": Range(0.25, 4), "gamma": Range(0.25, 4)},
    distillation_weight=2.0,
)
def dist(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """One minus Pearson correlation of probabilities: ``beta`` over classes, ``gamma`` over images.

    For a batch of one image, the part over images is zero.
    """
    del target
    ours, theirs = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    return relations(ours, theirs, beta=beta, gamma=gamma) * temperature**2


@_distillation_loss(
    "logit_std",
    source="Sun 2024 (CVPR), arXiv:2403.01427",
    ranges={"temperature": Range(1.5, 5)},
    task_weight=0.1,
    distillation_weight=9.0,
    least_classes=3,
    why_least="two logits, standardised, are the same for every image",
)
def logit_std(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 2.0) -> Tensor:
    """Kd on logits standardised per image, so that their shape is matched but not their scale.

    Two standardised logits are plus and minus the same number for every image, so with two classes there is no
    gradient.
    """
    del target
    return _divergence(_standardise(student) / temperature, _standardise(teacher) / temperature).mean() * temperature**2


@_distillation_loss(
    "nkd",
    source="Yang 2023 (ICCV), arXiv:2303.13005",
    ranges={"temperature": Range(1, 4), "gamma": Range(0.5, 5)},
    uses_target=True,
)
def nkd(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float = 1.0, gamma: float = 1.5) -> Tensor:
    """Normalised kd: the target, weighted by its teacher probability, plus ``gamma`` times the other classes.

    Both parts are cross-entropies, so the loss is not zero where student and teacher agree. For a mixed row, the
    published code uses only the label of largest weight; here both labels count by their weight.
    """
    log_student, log_teacher = student.log_softmax(1), teacher.log_softmax(1)

    def for_label(label: Tensor) -> Tensor:
        column = label[:, None]
        own = -(log_teacher.gather(1, column).exp() * log_student.gather(1, column)).squeeze(1)
        _, student_others = _split(student / temperature, label)
        _, teacher_others = _split(teacher / temperature, label)
        others = -(teacher_others.softmax(1) * student_others.log_softmax(1)).sum(1)
        return own + gamma * temperature**2 * others

    return _over_labels(for_label, target).mean()


@_distillation_loss("hard", source="Touvron 2021, arXiv:2012.12877", task_weight=0.5, distillation_weight=0.5)
def hard(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy with the teacher's predicted class as the label; ``temperature`` has no effect."""
    del target, temperature
    return F.cross_entropy(student, teacher.argmax(1))


@_distillation_loss("logit_mse", source="Ba 2014, arXiv:1312.6184")
def logit_mse(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """Mean squared difference of the logits, over batch and classes; ``temperature`` has no effect."""
    del target, temperature
    return F.mse_loss(student, teacher)


@_distillation_loss(
    "soft_ce",
    source="label-free form of kd, as in Wu 2022 (TinyViT), arXiv:2207.10666",
    ranges={"temperature": Range(1, 10)},
    task_weight=0.0,
)
def soft_ce(student: Tensor, teacher: Tensor, target: Tensor | None, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy with the softened teacher probabilities as the label: kd plus the teacher's entropy."""
    del target
    teacher_probabilities = (teacher / temperature).softmax(1)
    return -(teacher_probabilities * (student / temperature).log_softmax(1)).sum(1).mean() * temperature**2


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(softmax(teacher) ‖ softmax(student)) per row; both inputs are (batch, classes)."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True).sum(1)


def _split(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label's logit (batch,) and the others (batch, classes - 1), in cyclic order after the label."""
    classes = logits.shape[1]
    others = (label[:, None] + torch.arange(1, classes, device=label.device)) % classes
    return logits.gather(1, label[:, None]).squeeze(1), logits.gather(1, others)


def _over_labels(for_label: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """Return ``for_label`` of the class; of a mixed row, its weighted mean over the two most probable classes."""
    if target.ndim == 1:
        return for_label(target)
    weight, label = target.topk(2, dim=1)
    weight = weight / weight.sum(1, keepdim=True)
    first, second = for_label(label[:, 0]), for_label(label[:, 1])
    return weight[:, 0].to(first.dtype) * first + weight[:, 1].to(first.dtype) * second


def relations(ours: Tensor, theirs: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Return one minus the correlation of probabilities ``(batch, classes)`` over classes, and over images."""
    loss = beta * (1 - _correlation(ours, theirs)).mean()
    return loss + gamma * (1 - _correlation(ours.T, theirs.T)).mean() if len(ours) > 1 else loss


def _correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the Pearson correlation per row, with the published eps of 1e-8 on the product of the norms.

    The norms have a lower bound relative to the row. Without it, a student with a zero-initialised classifier, whose
    probabilities are all equal, would start with a gradient of order 1e8.
    """
    norms = []
    for row in (ours, theirs):
        squares = (row - row.mean(1, keepdim=True)).square().sum(1)
        floor = (_FLAT**2 * row.detach().square().sum(1)).clamp_min(1e-24)
        norms.append(torch.maximum(squares, floor).sqrt())
    centred = (ours - ours.mean(1, keepdim=True)) * (theirs - theirs.mean(1, keepdim=True))
    return centred.sum(1) / (norms[0] * norms[1] + 1e-8)


def _standardise(logits: Tensor) -> Tensor:
    """Scale rows to zero mean and unit (unbiased) standard deviation; nearly constant rows stay nearly constant."""
    centred = logits - logits.mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (logits.shape[1] - 1)
    return centred / (variance.clamp_min(_FLAT**2).sqrt() + 1e-7)


def _check_shapes(name: str, student: Tensor, teacher: Tensor, target: Tensor | None, uses_target: bool) -> None:
    if student.ndim != 2 or student.shape[1] < 2 or teacher.shape != student.shape:
        raise UsageError(
            f"loss {name!r} got student logits {tuple(student.shape)} and teacher logits "
            f"{tuple(teacher.shape)}; both must be (batch, classes) with the same number of classes, at least 2. "
            "Check the teacher's class count."
        )
    if target is None and not uses_target:
        return
    shape = None if target is None else tuple(target.shape)
    indices = target is not None and shape == (len(student),) and not target.is_floating_point()
    mixed = target is not None and shape == tuple(student.shape) and target.is_floating_point()
    if not indices and not mixed:
        raise UsageError(
            f"loss {name!r} got a target of shape {shape}; it must be class indices ({len(student)},) or "
            f"mixed labels {tuple(student.shape)} as floating-point probabilities."
        )
