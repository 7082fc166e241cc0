"""The loss mix: task loss, distillation loss and an optional embedding term, on one scale.

Published loss weights differ by seven orders of magnitude, so a search over raw weights compares nothing.
Here each term is first *calibrated*: over the first batches it is scaled until its gradient is as long as the
gradient of the task loss, at the student's logits (at its embedding for the embedding term). Then ``alpha``
is the share of the distillation term, and one range of it serves every loss::

    total = (1 - alpha) task + alpha scale distillation + embedding_weight scale_e embedding

``calibrate: false`` gives raw weights, the published ones by default. The task loss is cross-entropy. This
module is the value and its parser; ``loss_terms.py`` computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.training.distillation.distillation_losses import loss_info
from autodistill.training.distillation.embedding_losses import embedding_info
from autodistill.training.distillation.loss_info import LossInfo

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
    """What is minimised, as a value.

    Attributes:
        loss: registered distillation loss; ``none`` is plain training, whatever ``alpha`` says.
        alpha: share of the distillation term, 0 to 1, where calibrated.
        keywords: the loss's own, e.g. ``temperature``.
        embedding: registered embedding term, or ``none``.
        embedding_weight: weight of that term.
        embedding_keywords: its own keywords.
        label_smoothing: of the task loss.
        calibrate: scale each term to the task loss's gradient; raw weights otherwise.
        calibration_batches: batches over which that is measured; the scale is frozen afterwards.
        task_weight: raw weight of the task loss, without calibration.
        distillation_weight: raw weight of the distillation term, without calibration.
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

    @staticmethod
    def parse(mapping: Mapping[str, Any]) -> LossMix:
        """The mix of ``candidate.distillation``.

        Keys: ``loss``, ``alpha``, ``label_smoothing``, ``calibrate``, ``calibration_batches``,
        ``task_weight`` and ``distillation_weight`` (only with ``calibrate: false``, which takes no
        ``alpha``), ``embedding``, ``embedding_weight``, the loss's own keywords, and the embedding term's
        with ``embedding_`` before them; ``teacher`` says whose logits these are, which is not this module's
        business. dkd's own ``alpha`` stays 1: the ratio of its parts is ``beta``.

        Raises:
            UnknownNameError: a key, loss or term that does not exist, or a keyword of another loss.
            UsageError: a value out of range, or a key that would have no effect.
        """
        mapping = {key: value for key, value in mapping.items() if key != TEACHER}
        info = loss_info(str(mapping.get("loss", "none")))
        term = str(mapping.get("embedding", "none"))
        term_info = None if term == "none" else embedding_info(term)
        own = {key: value for key, value in mapping.items() if key in _OWN_KEYS}
        keywords = _keywords(mapping, info, term_info)
        _check_values(own)
        return replace(
            LossMix(task_weight=info.task_weight, distillation_weight=info.distillation_weight),
            **{**own, "loss": info.name, "embedding": term},
            keywords=info.check(keywords[0]),
            embedding_keywords=term_info.check(keywords[1]) if term_info else {},
        )

    @property
    def uses_distillation(self) -> bool:
        """Whether the teacher's logits count."""
        return self.loss != "none" and self._weights()[1] > 0

    @property
    def uses_embedding(self) -> bool:
        """Whether the embeddings of student and teacher count."""
        return self.embedding != "none" and self.embedding_weight > 0

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher is needed at all."""
        return self.uses_distillation or self.uses_embedding

    @property
    def uses_target(self) -> bool:
        """Whether labels are needed: not for a label-free loss without the task loss."""
        by_loss = self.uses_distillation and loss_info(self.loss).uses_target
        return self.task_share > 0 or by_loss

    @property
    def task_share(self) -> float:
        """Weight of the task loss in the total."""
        return self._weights()[0]

    @property
    def distillation_share(self) -> float:
        """Weight of the (scaled) distillation term in the total; 0 for ``none``."""
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
    """The loss's and the embedding term's own keywords, the latter without their prefix."""
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
    """Raise a UsageError for the first value out of range, or key without effect."""
    calibrate = own.get("calibrate", True)
    if not isinstance(calibrate, bool):
        raise UsageError(f"distillation.calibrate is {calibrate!r}; it must be true or false.")
    useless = [key for key in (_RAW_KEYS if calibrate else _CALIBRATED_KEYS) if key in own]
    if useless:
        todo = "say calibrate: false to set raw weights" if calibrate else "set distillation_weight instead"
        raise UsageError(f"distillation.{useless[0]} has no effect with calibrate: {str(calibrate).lower()}; {todo}.")
    if "embedding_weight" in own and own.get("embedding", "none") == "none":
        raise UsageError("distillation.embedding_weight has no effect without an embedding term; name one.")
    batches = own.get("calibration_batches", 1)
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
        raise UsageError(f"distillation.calibration_batches is {batches!r}; it must be an integer from 1 on.")
    for key, top in _TOP.items():
        value = own.get(key, 0)
        number = not isinstance(value, bool) and isinstance(value, Real)
        if not number or not 0 <= value <= top or math.isinf(value):
            raise UsageError(f"distillation.{key} is {value!r}; it must be a number from 0 to {top:g}.")
