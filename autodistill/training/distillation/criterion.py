"""The criterion of a distilled student: connects the loss mix and the teacher's outputs to the training loop."""

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

TeacherOutputs = Callable[[Batch], tuple[Tensor, Tensor | None]]
"""A function that returns teacher logits ``(b, classes)`` and embedding ``(b, width)`` or None for a batch's views."""


class Distillation:
    """Criterion of the training loop: a loss mix and the source of its teacher's outputs.

    Args:
        mix: settings of the loss; ``LossMix()`` is plain cross-entropy.
        teacher_outputs: source of the teacher's outputs; not called if the mix needs no teacher.
        student: network whose embedding is projected, if the mix has an embedding term.
        teacher_width: width of the teacher's embedding.
        seed: seed of the projector's weights.
        class_weights: of the task loss, ``(classes,)``.
    """

    def __init__(
        self,
        mix: LossMix,
        teacher_outputs: TeacherOutputs | None = None,
        *,
        student: nn.Module | None = None,
        teacher_width: int | None = None,
        seed: int = 0,
        class_weights: Tensor | None = None,
    ) -> None:
        self.mix, self._teacher_outputs = mix, teacher_outputs
        projection: nn.Module = nn.Identity()
        if mix.uses_embedding and student is not None and teacher_width is not None:
            projection = projector(mix.embedding, embedding_width(student), teacher_width, seed=seed)
        self.terms = LossTerms(mix, projection, class_weights)

    @property
    def wants_embedding(self) -> bool:
        """Whether the mix has an embedding term."""
        return self.mix.uses_embedding

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the projector."""
        return list(self.terms.projector.parameters())

    def to(self, device: Any) -> Distillation:
        """Move the projector to ``device`` and return this criterion."""
        self.terms.projector.to(device)
        return self

    def add_teacher_outputs(self, batch: Batch) -> Batch:
        """Return the batch with the teacher's outputs, if the mix needs them."""
        if self._teacher_outputs is None or not self.mix.uses_teacher:
            return batch
        logits, embedding = self._teacher_outputs(batch)
        return replace(batch, teacher=logits, teacher_embedding=embedding)

    def loss(self, logits: Tensor, embedding: Tensor | None, batch: Batch) -> Tensor:
        """Return the total loss of the mix."""
        given = logits, batch.target, batch.teacher, embedding, batch.teacher_embedding
        return self.terms(*given, share=batch.share, labelled=batch.labelled).total

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the projector's weights and the measured gradient norms."""
        return dict(self.terms.projector.state_dict()), dict(self.terms.state_dict())

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore the values of ``state``."""
        self.terms.projector.load_state_dict(dict(tensors))
        self.terms.load_state_dict(facts)
