"""The loss mix at work: task loss, distillation term and embedding term of a batch, and their scales.

A scale is the ratio of two gradient norms, measured over the first batches and then frozen (``loss_mix.py``
says why). The measurement differentiates the losses at the logits, and the task loss once from the logits
back to the embedding; no gradient of a parameter is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.errors import UsageError
from autodistill.training.distillation.distillation_losses import full_precision, losses
from autodistill.training.distillation.embedding_losses import embedding_losses
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.runtime.distributed import BatchShare

# A student that starts as its teacher has almost no distillation gradient; no scale may blow that up.
_LIMIT = 1e3


class LossValues(NamedTuple):
    """One batch: ``total`` to differentiate; the terms detached, unscaled and unweighted, for logs."""

    total: Tensor
    task: Tensor
    distillation: Tensor
    embedding: Tensor


class LossTerms:
    """The mix at work: computes the total and measures the scales over the first batches.

    Args:
        mix: what is minimised.
        projector: what the student's embedding passes through before the embedding term; its parameters
            belong into the optimizer.
        class_weights: of the task loss, (classes,); ``None``: all 1.
    """

    def __init__(self, mix: LossMix, projector: nn.Module | None = None, class_weights: Tensor | None = None) -> None:
        self.mix, self.class_weights = mix, class_weights
        self.projector = projector if projector is not None else nn.Identity()
        self._distillation = TermScale(mix.calibration_batches)
        self._embedding = TermScale(mix.calibration_batches)

    @property
    def calibrating(self) -> bool:
        """Whether the next batch still measures; a compiled student must run uncompiled till then."""
        terms = [(self.mix.uses_distillation, self._distillation), (self.mix.uses_embedding, self._embedding)]
        return self.mix.calibrate and any(used and not scale.frozen for used, scale in terms)

    @property
    def scales(self) -> dict[str, float]:
        """Present scale of each calibrated term."""
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
    ) -> LossValues:
        """Loss of one batch.

        Args:
            student_logits: (batch, classes).
            target: class indices (batch,) or mixed labels (batch, classes); ``None`` where the mix needs
                none.
            teacher_logits: (batch, classes), needed where ``mix.uses_distillation``.
            student_embedding: (batch, width), from which ``student_logits`` were computed.
            teacher_embedding: (batch, width); both needed where ``mix.uses_embedding``.
            share: where several processes computed the batch: what this one did.

        Raises:
            UsageError: something that the mix needs is missing.
        """
        zero = student_logits.new_zeros((), dtype=torch.float32)
        if target is None and self.mix.uses_target:
            raise UsageError("this loss mix needs labels; only alpha 1 with a label-free loss does without.")
        task = zero if target is None else self._task(student_logits, target)
        parts = [] if self.mix.task_share == 0 else [_times(self.mix.task_share, task)]
        distillation = embedding = zero
        if self.mix.uses_distillation:
            teacher_logits = _given(teacher_logits, "teacher_logits", self.mix.loss)
            distillation = self._distill(student_logits, teacher_logits, target)
            scale = self._distillation_scale(student_logits, teacher_logits, target)
            parts.append(_times(self.mix.distillation_share * scale, distillation))
        if self.mix.uses_embedding:
            ours = _given(student_embedding, "student_embedding", self.mix.embedding)
            theirs = _given(teacher_embedding, "teacher_embedding", self.mix.embedding)
            embedding = self._embed(ours, theirs)
            scale = self._embedding_scale(ours, theirs, None if target is None else task, share)
            parts.append(_times(self.mix.embedding_weight * scale, embedding))
        return LossValues(
            sum(parts[1:], parts[0]) if parts else zero,
            task.detach(),
            distillation.detach(),
            embedding.detach(),
        )

    def state_dict(self) -> dict[str, list[float]]:
        """Measured gradient norms as plain numbers, for a checkpoint."""
        return {"distillation": self._distillation.state(), "embedding": self._embedding.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``: a frozen scale stays frozen."""
        self._distillation.load(state["distillation"])
        self._embedding.load(state["embedding"])

    def _task(self, logits: Tensor, target: Tensor) -> Tensor:
        return task_loss(logits, target, self.mix.label_smoothing, self.class_weights)

    def _distill(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> Tensor:
        return losses.get(self.mix.loss)(student, teacher, target, **self.mix.keywords)

    def _embed(self, student: Tensor, teacher: Tensor) -> Tensor:
        projected = self.projector(student)
        return embedding_losses.get(self.mix.embedding)(projected, teacher, **self.mix.embedding_keywords)

    def _distillation_scale(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> float:
        measuring = self.mix.calibrate and not self._distillation.frozen and student.requires_grad
        if measuring and target is not None:
            logits = _leaf(student)
            task = self._task(logits, target)
            self._distillation.measure(_norm(task, logits), _norm(self._distill(logits, teacher, target), logits))
        return self._distillation.value

    def _embedding_scale(
        self, student: Tensor, teacher: Tensor, task: Tensor | None, share: BatchShare | None
    ) -> float:
        measuring = self.mix.calibrate and not self._embedding.frozen and student.requires_grad
        if measuring and task is not None:
            leaf = _leaf(student)
            self._embedding.measure(_task_norm(task, student, share), _norm(self._embed(leaf, teacher), leaf))
        return self._embedding.value


class TermScale:
    """Ratio of two gradient norms, each a mean over the first batches, then frozen.

    Args:
        batches: batches that count; 0 keeps the scale at 1.
    """

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._count, self._task, self._term = 0, 0.0, 0.0

    @property
    def frozen(self) -> bool:
        """Whether all batches are measured."""
        return self._count >= self._batches

    @property
    def value(self) -> float:
        """Task norm over term norm within [1/1000, 1000]; 1 before the first usable batch."""
        if self._count == 0:
            return 1.0
        return min(max(self._task / self._term, 1 / _LIMIT), _LIMIT)

    def measure(self, task: float, term: float) -> None:
        """Count one batch; norms that are zero or not finite (zero-initialised classifier) do not count."""
        if math.isfinite(task) and math.isfinite(term) and task > 0 and term > 0:
            self._count, self._task, self._term = self._count + 1, self._task + task, self._term + term

    def state(self) -> list[float]:
        """Count and both sums."""
        return [float(self._count), self._task, self._term]

    def load(self, state: list[float]) -> None:
        """Go on from ``state()``."""
        self._count, self._task, self._term = int(state[0]), float(state[1]), float(state[2])


def task_loss(
    student_logits: Tensor, target: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with class indices (batch,) or mixed labels (batch, classes), in fp32 at least.

    Args:
        student_logits: (batch, classes).
        target: labels.
        label_smoothing: share of the label spread over all classes.
        weights: of the classes, (classes,); the mean stays one over images, not over their weights.
    """
    with full_precision(student_logits):
        logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
        labels = target.to(logits.dtype) if target.is_floating_point() else target
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        weights = weights.to(logits)
        total = F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing, reduction="sum")
        return total / len(logits)


def _times(weight: float, term: Tensor) -> Tensor:
    # A weight of 1 leaves the graph as it is: alpha 0 is plain cross-entropy bit for bit.
    return term if weight == 1 else weight * term


def _leaf(tensor: Tensor) -> Tensor:
    """A copy outside the graph, in fp32 at least, to differentiate by."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).requires_grad_()


def _norm(loss: Tensor, at: Tensor, keep: bool = False) -> float:
    """Length of the gradient of ``loss`` at ``at``."""
    (gradient,) = torch.autograd.grad(loss, at, retain_graph=keep, allow_unused=True)
    if gradient is None:
        raise UsageError(
            "the logits were not computed from the embedding that came with them, so the embedding term "
            "cannot be calibrated. Run a compiled student uncompiled while LossTerms.calibrating is true, or "
            "set calibrate: false."
        )
    return float(torch.linalg.vector_norm(gradient.double()))


def _task_norm(task: Tensor, embedding: Tensor, share: BatchShare | None) -> float:
    """Length of the gradient of the task loss at the embedding; of several processes each has its rows' part."""
    if share is None:
        return _norm(task, embedding, keep=True)
    return share.team.length(_norm(task, share.embedding, keep=True))


def _given(value: Tensor | None, name: str, loss: str) -> Tensor:
    if value is None:
        raise UsageError(f"loss {loss!r} needs {name}; LossMix.uses_distillation, uses_embedding say when.")
    return value
