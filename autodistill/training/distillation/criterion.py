"""Brings the loss mix, the teacher and the training loop together: the criterion of a distilled student."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from autodistill.training.distillation.embedding_losses import projector
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.loss_terms import LossTerms
from autodistill.training.loop.trainer import Batch
from autodistill.training.students.embeddings import embedding_width

Guide = Callable[[Batch], tuple[Tensor, Tensor | None]]
"""Teacher logits ``(b, classes)`` and embedding ``(b, width)`` of the views of a batch."""


class Distillation:
    """Criterion of the training loop: a loss mix and where its teacher's answers come from.

    Args:
        mix: what is minimised; ``LossMix()`` is plain cross-entropy.
        guide: the teacher's answers; not asked where the mix needs no teacher.
        student: whose embedding is projected, where the mix has an embedding term.
        teacher_width: width of the teacher's embedding.
        seed: seed of the projector's weights.
        class_weights: of the task loss, ``(classes,)``.
    """

    def __init__(
        self,
        mix: LossMix,
        guide: Guide | None = None,
        *,
        student: nn.Module | None = None,
        teacher_width: int | None = None,
        seed: int = 0,
        class_weights: Tensor | None = None,
    ) -> None:
        self.mix, self._guide = mix, guide
        projection: nn.Module = nn.Identity()
        if mix.uses_embedding and student is not None and teacher_width is not None:
            projection = projector(mix.embedding, embedding_width(student), teacher_width, seed=seed)
        self.terms = LossTerms(mix, projection, class_weights)

    @property
    def wants_embedding(self) -> bool:
        """Whether the mix has an embedding term."""
        return self.mix.uses_embedding

    def parameters(self) -> list[nn.Parameter]:
        """The projector's."""
        return list(self.terms.projector.parameters())

    def to(self, device: Any) -> Distillation:
        """Itself, with the projector on ``device``."""
        self.terms.projector.to(device)
        return self

    def guide(self, batch: Batch) -> Batch:
        """The batch with the teacher's answers, where the mix needs them."""
        if self._guide is None or not self.mix.uses_teacher:
            return batch
        logits, embedding = self._guide(batch)
        return replace(batch, teacher=logits, teacher_embedding=embedding)

    def loss(self, logits: Tensor, embedding: Tensor | None, batch: Batch) -> Tensor:
        """The mix's total."""
        given = logits, batch.target, batch.teacher, embedding, batch.teacher_embedding
        return self.terms(*given, share=batch.share).total

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The projector's weights, and the measured scales."""
        return dict(self.terms.projector.state_dict()), dict(self.terms.state_dict())

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""
        self.terms.projector.load_state_dict(dict(tensors))
        self.terms.load_state_dict(facts)
