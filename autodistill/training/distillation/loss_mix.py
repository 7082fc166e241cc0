"""The loss mix: task loss, distillation loss and an optional embedding term, on one scale.

Published loss weights differ by seven orders of magnitude, so raw weights of different losses cannot be compared.
Each term is therefore *calibrated* first: over the first batches it is scaled until the norm of its gradient equals
that of the task loss. The gradients are taken at the student's logits (for the embedding term, at its embedding).
Then ``alpha`` is the share of the distillation term, and one range of ``alpha`` serves every loss::

    total = (1 - alpha) task + alpha scale distillation + embedding_weight scale_e embedding

``calibrate: false`` uses raw weights instead, by default the published ones. The task loss is cross-entropy; with
several labels per image it is binary cross-entropy, summed over the labels. This module holds the settings and their
parser, and calls the chosen losses with their keywords; ``loss_terms.py`` scales and adds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from torch import Tensor

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.core.records import MULTICLASS, TaskKind
from autodistill.training.distillation.embedding_losses import embedding_info, embedding_losses
from autodistill.training.distillation.loss_info import LossInfo
from autodistill.training.distillation.losses_of_task import info_of, losses_of

_PREFIX = "embedding_"
TEACHER = "teacher"

_RAW_KEYS = ("task_weight", "distillation_weight")
_CALIBRATED_KEYS = ("alpha", "calibration_batches")
_OWN_KEYS = (
    *("loss", "label_smoothing", "embedding", "embedding_weight", "calibrate"),
    *_RAW_KEYS,
    *_CALIBRATED_KEYS,
)
_TOP = {
    "alpha": 1.0,
    "label_smoothing": 1.0,
    "embedding_weight": math.inf,
    "task_weight": math.inf,
    "distillation_weight": math.inf,
}


@dataclass(frozen=True)
class LossMix:
    """Settings of the minimised loss.

    Attributes:
        loss: registered distillation loss; ``none`` is plain training, whatever ``alpha`` is.
        alpha: share of the distillation term, 0 to 1; used with calibration.
        keywords: keywords of the distillation loss, e.g. ``temperature``.
        embedding: registered embedding term, or ``none``.
        embedding_weight: weight of the embedding term.
        embedding_keywords: keywords of the embedding term.
        label_smoothing: label smoothing of the task loss.
        calibrate: scale each term to the gradient norm of the task loss; if false, use raw weights.
        calibration_batches: number of batches over which the scale is measured; it is frozen afterwards.
        task_weight: raw weight of the task loss, without calibration.
        distillation_weight: raw weight of the distillation term, without calibration.
        kind: ``multiclass``: one class per image; ``multilabel``: any number of labels.
    """

    loss: str = "none"
    alpha: float = 0.5
    keywords: Mapping[str, float] = field(default_factory=dict)
    embedding: str = "none"
    embedding_weight: float = 1.0
    embedding_keywords: Mapping[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.0
    calibrate: bool = True
    calibration_batches: int = 8
    task_weight: float = 1.0
    distillation_weight: float = 1.0
    kind: TaskKind = MULTICLASS

    @staticmethod
    def parse(mapping: Mapping[str, Any], *, kind: TaskKind = MULTICLASS) -> LossMix:
        """Parse the loss mix of ``candidate.distillation``.

        Keys are ``loss``, ``alpha``, ``label_smoothing``, ``calibrate``, ``calibration_batches``, ``embedding``,
        ``embedding_weight``, the keywords of the loss, and the keywords of the embedding term, prefixed with
        ``embedding_``. ``task_weight`` and ``distillation_weight`` need ``calibrate: false``, which takes no
        ``alpha``. ``teacher`` names the teacher and is ignored here. The keyword ``alpha`` of ``dkd`` stays 1,
        because ``beta`` already sets the ratio of its two parts.

        Args:
            mapping: settings of the candidate.
            kind: task of the study.

        Raises:
            UnknownNameError: a key, loss or term does not exist, or a keyword belongs to another loss.
            UsageError: a value is out of range, a key would have no effect, or the loss cannot serve the task.
        """
        mapping = {key: value for key, value in mapping.items() if key != TEACHER}
        info = info_of(str(mapping.get("loss", "none")), kind)
        term = str(mapping.get("embedding", "none"))
        term_info = None if term == "none" else embedding_info(term)
        own = {key: value for key, value in mapping.items() if key in _OWN_KEYS}
        keywords = _keywords(mapping, info, term_info)
        _check_values(own)
        return replace(
            LossMix(task_weight=info.task_weight, distillation_weight=info.distillation_weight, kind=kind),
            **{**own, "loss": info.name, "embedding": term},
            keywords=info.check(keywords[0]),
            embedding_keywords=term_info.check(keywords[1]) if term_info else {},
        )

    def distillation_loss(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> Tensor:
        """Return the distillation loss, unscaled and unweighted: a scalar.

        Args:
            student: logits of the student, (batch, classes).
            teacher: logits of the teacher, (batch, classes).
            target: labels, (batch,) or (batch, classes); ``None`` for a loss without labels.
        """
        return losses_of(self.kind).get(self.loss)(student, teacher, target, **self.keywords)

    def embedding_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the embedding term, unscaled and unweighted, of two embeddings (batch, width): a scalar."""
        return embedding_losses.get(self.embedding)(student, teacher, **self.embedding_keywords)

    @property
    def uses_distillation(self) -> bool:
        """Whether the distillation term is part of the total, so that the teacher's logits are needed."""
        return self.loss != "none" and self._weights()[1] > 0

    @property
    def uses_embedding(self) -> bool:
        """Whether the embedding term is part of the total, so that both embeddings are needed."""
        return self.embedding != "none" and self.embedding_weight > 0

    @property
    def uses_teacher(self) -> bool:
        """Whether any term needs a teacher."""
        return self.uses_distillation or self.uses_embedding

    @property
    def uses_target(self) -> bool:
        """Whether labels are needed; false for a label-free loss with task weight 0."""
        by_loss = self.uses_distillation and info_of(self.loss, self.kind).uses_target
        return self.task_share > 0 or by_loss

    @property
    def task_share(self) -> float:
        """Weight of the task loss in the total."""
        return self._weights()[0]

    @property
    def distillation_share(self) -> float:
        """Weight of the scaled distillation term in the total; 0 for the loss ``none``."""
        return self._weights()[1]

    def _weights(self) -> tuple[float, float]:
        if self.loss == "none":
            return 1.0, 0.0
        if self.calibrate:
            return 1 - self.alpha, self.alpha
        return self.task_weight, self.distillation_weight


def _keywords(
    mapping: Mapping[str, Any], info: LossInfo, term: LossInfo | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split off the keywords of the loss and of the embedding term; the latter without their prefix."""
    term_keys = [_PREFIX + name for name in term.defaults] if term else []
    allowed = [*_OWN_KEYS, *(name for name in info.defaults if name not in _OWN_KEYS), *term_keys]
    for key in mapping:
        if key not in allowed:
            hint = f"The loss is {info.name!r}, the embedding term {term.name if term else 'none'!r}."
            raise UnknownNameError("key of distillation", key, allowed, hint)
    rest = {key: value for key, value in mapping.items() if key not in _OWN_KEYS}
    return (
        {key: value for key, value in rest.items() if key not in term_keys},
        {key.removeprefix(_PREFIX): value for key, value in rest.items() if key in term_keys},
    )


def _check_values(own: Mapping[str, Any]) -> None:
    """Raise a UsageError for the first value out of range or key without effect."""
    calibrate = own.get("calibrate", True)
    if not isinstance(calibrate, bool):
        raise UsageError(f"distillation.calibrate is {calibrate!r}; it must be true or false.")
    useless = [key for key in (_RAW_KEYS if calibrate else _CALIBRATED_KEYS) if key in own]
    if useless:
        todo = "set calibrate: false to use raw weights" if calibrate else "set distillation_weight instead"
        raise UsageError(f"distillation.{useless[0]} has no effect with calibrate: {str(calibrate).lower()}; {todo}.")
    if "embedding_weight" in own and own.get("embedding", "none") == "none":
        raise UsageError("distillation.embedding_weight has no effect without an embedding term; name one.")
    batches = own.get("calibration_batches", 1)
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
        raise UsageError(f"distillation.calibration_batches is {batches!r}; it must be an integer of at least 1.")
    for key, top in _TOP.items():
        value = own.get(key, 0)
        number = not isinstance(value, bool) and isinstance(value, Real)
        if not number or not 0 <= value <= top or math.isinf(value):
            raise UsageError(f"distillation.{key} is {value!r}; it must be a number from 0 to {top:g}.")
