"""Task loss, distillation term and embedding term of a batch, their scales, and the weighted total.

A scale is the ratio of two gradient norms, measured over the first batches and then frozen; ``loss_mix.py`` gives
the reason. The measurement differentiates the losses at the logits, and the task loss once from the logits back to
the embedding. It changes no gradient of a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.errors import UsageError
from autodistill.core.records import MULTILABEL
from autodistill.training.distillation.distillation_losses import full_precision
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.runtime.distributed import BatchShare

_LIMIT = 1e3
"""Largest scale: a student that starts as a copy of its teacher has almost no distillation gradient."""


class LossValues(NamedTuple):
    """Losses of one batch: ``total`` is differentiable; the terms are detached, unscaled and unweighted, for logs."""

    total: Tensor
    task: Tensor
    distillation: Tensor
    embedding: Tensor


class LossTerms:
    """The total loss of a mix, with scales measured over the first batches.

    Args:
        mix: settings of the loss.
        projector: module applied to the student's embedding before the embedding term; the optimizer must train
            its parameters. Identity if omitted.
        class_weights: weights of the classes in the task loss, (classes,); with several labels per image, weights of
            the presence of each label. All 1 if omitted.
    """

    def __init__(self, mix: LossMix, projector: nn.Module | None = None, class_weights: Tensor | None = None) -> None:
        self.mix, self.class_weights = mix, class_weights
        self.projector = projector if projector is not None else nn.Identity()
        self._distillation = TermScale(mix.calibration_batches)
        self._embedding = TermScale(mix.calibration_batches)

    @property
    def calibrating(self) -> bool:
        """Whether the next batch is still used for calibration; until then a compiled student must run uncompiled."""
        terms = [(self.mix.uses_distillation, self._distillation), (self.mix.uses_embedding, self._embedding)]
        return self.mix.calibrate and any(used and not scale.frozen for used, scale in terms)

    @property
    def scales(self) -> dict[str, float]:
        """Current scale of each calibrated term."""
        return {"distillation": self._distillation.value, "embedding": self._embedding.value}

    def __call__(
        self,
        student_logits: Tensor,
        target: Tensor | None,
        teacher_logits: Tensor | None = None,
        student_embedding: Tensor | None = None,
        teacher_embedding: Tensor | None = None,
        *,
        share: BatchShare | None = None,
        labelled: int | None = None,
    ) -> LossValues:
        """Compute the losses of one batch.

        Unlabelled images are part of the means of distillation and embedding term, like labelled ones. A loss that
        uses the label takes the teacher's decision in its place. Scales are measured on labelled images only, so they
        are those of a training without unlabelled images.

        Args:
            student_logits: (batch, classes).
            target: class indices (batch,), mixed labels (batch, classes) or presences of labels (batch, classes);
                ``None`` if ``mix.uses_target`` is false.
            teacher_logits: (batch, classes); needed if ``mix.uses_distillation``.
            student_embedding: (batch, width), from which ``student_logits`` were computed; needed if
                ``mix.uses_embedding``.
            teacher_embedding: (batch, width); needed if ``mix.uses_embedding``.
            share: part of the batch that this process computed, if several processes share it.
            labelled: number of labelled images, the first of the batch, to which ``target`` belongs; ``None``: all.

        Raises:
            UsageError: an input that the mix needs is missing.
        """
        zero = student_logits.new_zeros((), dtype=torch.float32)
        if target is None and self.mix.uses_target:
            raise UsageError("this loss mix needs labels; only alpha 1 with a label-free loss works without labels.")
        task = zero if target is None else self._task(_first(student_logits, labelled), target)
        parts = [] if self.mix.task_share == 0 else [_times(self.mix.task_share, task)]
        distillation = embedding = zero
        if self.mix.uses_distillation:
            teacher_logits = _given(teacher_logits, "teacher_logits", self.mix.loss)
            distillation = self._distill(
                student_logits, teacher_logits, self._answered(target, teacher_logits, labelled)
            )
            own = _first(student_logits, labelled), _first(teacher_logits, labelled)
            scale = self._distillation_scale(*own, target)
            parts.append(_times(self.mix.distillation_share * scale, distillation))
        if self.mix.uses_embedding:
            ours = _given(student_embedding, "student_embedding", self.mix.embedding)
            theirs = _given(teacher_embedding, "teacher_embedding", self.mix.embedding)
            embedding = self._embed(ours, theirs)
            scale = self._embedding_scale(ours, theirs, None if target is None else task, share, labelled)
            parts.append(_times(self.mix.embedding_weight * scale, embedding))
        return LossValues(
            sum(parts[1:], parts[0]) if parts else zero,
            task.detach(),
            distillation.detach(),
            embedding.detach(),
        )

    def state_dict(self) -> dict[str, list[float]]:
        """Return the measured gradient norms as plain numbers, for a checkpoint."""
        return {"distillation": self._distillation.state(), "embedding": self._embedding.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the norms of ``state_dict()``; a frozen scale stays frozen."""
        self._distillation.load(state["distillation"])
        self._embedding.load(state["embedding"])

    def _task(self, logits: Tensor, target: Tensor) -> Tensor:
        compute = binary_task_loss if self.mix.kind == MULTILABEL else task_loss
        return compute(logits, target, self.mix.label_smoothing, self.class_weights)

    def _distill(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> Tensor:
        return self.mix.distillation_loss(student, teacher, target)

    def _embed(self, student: Tensor, teacher: Tensor) -> Tensor:
        with full_precision(student):  # under autocast the embedding has half precision, the projector's weights never
            projected = self.projector(student.to(torch.promote_types(student.dtype, torch.float32)))
        return self.mix.embedding_loss(projected, teacher)

    def _answered(self, target: Tensor | None, teacher_logits: Tensor, labelled: int | None) -> Tensor | None:
        """Return the labels, and the teacher's decision for unlabelled images."""
        if target is None or labelled is None:
            return target
        theirs = teacher_logits[labelled:]
        if self.mix.kind == MULTILABEL:
            return torch.cat([target, (theirs > 0).to(target.dtype)])
        if target.ndim == 2:  # mixed labels
            return torch.cat([target, F.one_hot(theirs.argmax(1), target.shape[1]).to(target.dtype)])
        return torch.cat([target, theirs.argmax(1)])

    def _distillation_scale(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> float:
        measuring = self.mix.calibrate and not self._distillation.frozen and student.requires_grad
        if measuring and target is not None:
            logits = _leaf(student)
            task = self._task(logits, target)
            self._distillation.measure(_norm(task, logits), _norm(self._distill(logits, teacher, target), logits))
        return self._distillation.value

    def _embedding_scale(
        self, student: Tensor, teacher: Tensor, task: Tensor | None, share: BatchShare | None, labelled: int | None
    ) -> float:
        measuring = self.mix.calibrate and not self._embedding.frozen and student.requires_grad
        if measuring and task is not None:
            leaf = _leaf(_first(student, labelled))
            term = _norm(self._embed(leaf, _first(teacher, labelled)), leaf)
            self._embedding.measure(_task_norm(task, student, share), term)
        return self._embedding.value


class TermScale:
    """Ratio of two gradient norms, each averaged over the first batches and then frozen.

    Args:
        batches: number of batches to average over; 0 keeps the scale at 1.
    """

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._count, self._task, self._term = 0, 0.0, 0.0

    @property
    def frozen(self) -> bool:
        """Whether all batches have been measured."""
        return self._count >= self._batches

    @property
    def value(self) -> float:
        """Task norm divided by term norm, clipped to [1/1000, 1000]; 1 before the first usable batch."""
        if self._count == 0:
            return 1.0
        return min(max(self._task / self._term, 1 / _LIMIT), _LIMIT)

    def measure(self, task: float, term: float) -> None:
        """Add the norms of one batch; ignore it if one is zero (zero-initialised classifier) or not finite."""
        if math.isfinite(task) and math.isfinite(term) and task > 0 and term > 0:
            self._count, self._task, self._term = self._count + 1, self._task + task, self._term + term

    def state(self) -> list[float]:
        """Return the number of batches and both sums."""
        return [float(self._count), self._task, self._term]

    def load(self, state: list[float]) -> None:
        """Restore the values of ``state()``."""
        self._count, self._task, self._term = int(state[0]), float(state[1]), float(state[2])


def task_loss(
    student_logits: Tensor, target: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Compute cross-entropy with class indices (batch,) or mixed labels (batch, classes), in fp32 or float64.

    Args:
        student_logits: (batch, classes).
        target: labels.
        label_smoothing: share of the label spread over all classes.
        weights: weights of the classes, (classes,). The mean is over images, not over their weights.
    """
    with full_precision(student_logits):
        logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
        labels = target.to(logits.dtype) if target.is_floating_point() else target
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        weights = weights.to(logits)
        total = F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing, reduction="sum")
        return total / len(logits)


def binary_task_loss(
    student_logits: Tensor, target: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Compute binary cross-entropy, summed over labels, mean over images, in fp32 or float64.

    Args:
        student_logits: (batch, labels).
        target: presence of each label, (batch, labels), from 0 to 1.
        label_smoothing: share by which every presence moves towards one half.
        weights: weights of presence, (labels,); absence has weight 1.
    """
    with full_precision(student_logits):
        logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
        presence = target.to(logits.dtype)
        presence = presence * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else presence
        weights = None if weights is None else weights.to(logits)
        losses = F.binary_cross_entropy_with_logits(logits, presence, pos_weight=weights, reduction="none")
        return losses.sum(1).mean()


def _times(weight: float, term: Tensor) -> Tensor:
    # Multiplying by 1 is skipped, so that alpha 0 is bit for bit plain cross-entropy.
    return term if weight == 1 else weight * term


def _first(rows: Tensor, labelled: int | None) -> Tensor:
    """Return the rows of the labelled images."""
    return rows if labelled is None else rows[:labelled]


def _leaf(tensor: Tensor) -> Tensor:
    """Return a detached copy in fp32 or float64 that losses can be differentiated at."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).requires_grad_()


def _norm(loss: Tensor, at: Tensor, keep: bool = False) -> float:
    """Return the norm of the gradient of ``loss`` at ``at``."""
    (gradient,) = torch.autograd.grad(loss, at, retain_graph=keep, allow_unused=True)
    if gradient is None:
        raise UsageError(
            "the student's logits were not computed from the given embedding, so the embedding term cannot be "
            "calibrated. Run a compiled student uncompiled while LossTerms.calibrating is true, or "
            "set calibrate: false."
        )
    return float(torch.linalg.vector_norm(gradient.double()))


def _task_norm(task: Tensor, embedding: Tensor, share: BatchShare | None) -> float:
    """Return the norm of the task loss's gradient at the embedding, combined over processes that share the batch."""
    if share is None:
        return _norm(task, embedding, keep=True)
    return share.team.length(_norm(task, share.embedding, keep=True))


def _given(value: Tensor | None, name: str, loss: str) -> Tensor:
    if value is None:
        raise UsageError(
            f"loss {loss!r} needs {name}, got None; pass it if LossMix.uses_distillation or uses_embedding is true."
        )
    return value
