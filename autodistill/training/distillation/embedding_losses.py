"""Embedding terms: losses on the vectors before the classifier, which can be added to any distillation loss.

A term is a function ``fn(student_embedding, teacher_embedding, **keywords) -> scalar`` of two (batch, width) tensors.
``rkd`` compares relations between images, so the two widths may differ. The other terms need equal widths;
``projector`` returns the linear map for that, which is trained with the student and discarded after training. Terms
are computed in fp32 or float64, with the teacher detached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.errors import UsageError
from autodistill.core.registry import Registry
from autodistill.training.distillation.loss_info import LossFunction, LossInfo, Range, describe

embedding_losses: Registry[LossFunction] = Registry("embedding loss", "autodistill.embedding_losses")
"""Registered embedding terms: ``fn(student_embedding, teacher_embedding, **keywords) -> scalar``."""

_infos: dict[str, LossInfo] = {}
_any_width: set[str] = set()

_SMALL = 1e-3  # lower bound of norms and distances, so that zero vectors get a bounded gradient
_GROUP = 64  # images per group for the angles of rkd: memory is batch x 64 x width instead of batch² x width


def embedding_info(name: str) -> LossInfo:
    """Return keywords and ranges of a registered embedding term.

    Raises:
        UnknownNameError: no term is registered as ``name``.
    """
    function = embedding_losses.get(name)
    return _infos.get(name) or describe(function, name)


def projector(name: str, student_width: int, teacher_width: int, *, seed: int) -> nn.Module:
    """Build the module that maps the student's embedding to the teacher's width; it is not part of the student.

    Args:
        name: registered embedding term.
        student_width: width of the student's embedding.
        teacher_width: width of the teacher's embedding.
        seed: seed of the initial weights; the global generator is not used.

    Returns:
        A linear map without bias if the term needs equal widths and they differ, otherwise the identity. Its
        parameters must go to the optimizer together with the student's.
    """
    if student_width == teacher_width or name in _any_width:
        return nn.Identity()
    # The meta device keeps the constructor from drawing from the global generator.
    linear = nn.Linear(student_width, teacher_width, bias=False, device="meta").to_empty(device="cpu")
    nn.init.normal_(linear.weight, std=student_width**-0.5, generator=torch.Generator().manual_seed(seed))
    return linear


def _embedding_loss(name: str, *, any_width: bool = False, **facts: Any) -> Callable[[LossFunction], LossFunction]:
    """Register a formula as ``name``, wrapped in the checks and casts that all embedding terms share."""

    def decorate(formula: LossFunction) -> LossFunction:
        _infos[name] = describe(formula, name, **facts)
        if any_width:
            _any_width.add(name)

        @functools.wraps(formula)
        def loss(student_embedding: Tensor, teacher_embedding: Tensor, **keywords: Any) -> Tensor:
            keywords = _infos[name].check(keywords)
            _check_shapes(name, student_embedding, teacher_embedding, any_width)
            with torch.autocast(student_embedding.device.type, enabled=False):
                student = student_embedding.to(torch.promote_types(student_embedding.dtype, torch.float32))
                return formula(student, teacher_embedding.detach().to(student.dtype), **keywords)

        return embedding_losses.register(name)(loss)

    return decorate


@_embedding_loss("embed_cosine", source="cosine form of Romero 2015 (FitNets), arXiv:1412.6550")
def embed_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine between student and teacher embedding, mean over the batch."""
    return (1 - (_unit(student) * _unit(teacher)).sum(1)).mean()


@_embedding_loss(
    "rkd",
    any_width=True,
    source="Park 2019 (CVPR), arXiv:1904.05068",
    ranges={"distance_weight": Range(2.5, 250), "angle_weight": Range(5, 500)},
)
def rkd(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Relations between images: their distances, divided by the mean distance, and the angles of triples.

    Angles are taken within groups of 64 consecutive images of the batch. The published code takes all triples, so
    its memory grows with the square of the batch. The loss of a batch of one image is zero.
    """
    if len(student) < 2:
        return student.flatten()[:0].sum()
    distance = F.smooth_l1_loss(_distances(student), _distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance_weight * distance + angle_weight * angle


@_embedding_loss(
    "crd",
    source="in-batch form of Tian 2020 (ICLR), arXiv:1910.10699",
    ranges={"temperature": Range(0.03, 0.5)},
)
def crd(student: Tensor, teacher: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Contrastive: matches each student embedding to the teacher embedding of the same image, and vice versa.

    Negatives are the other images of the batch, so their number is the batch size minus one; the paper's memory bank
    of 16,384 is not kept. The loss of a batch of one image is zero.
    """
    similarity = _unit(student) @ _unit(teacher).T / temperature
    own = torch.arange(len(student), device=student.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def _unit(vectors: Tensor) -> Tensor:
    """Divide each row by its norm, or by 1e-3 if its norm is smaller."""
    return vectors / vectors.square().sum(-1, keepdim=True).clamp_min(_SMALL**2).sqrt()


def _distances(embedding: Tensor) -> Tensor:
    """Return Euclidean distances (batch, batch), divided by their mean without zeros; the diagonal is zero.

    They are computed from differences: ‖a‖² + ‖b‖² - 2ab loses all digits of close embeddings in fp32.
    """
    distances = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp_min(1)
    return distances / mean.clamp_min(_SMALL)


def _angles(embedding: Tensor) -> Tensor:
    """Return the cosines (groups, size, size, size) of the angles at image i between images j and k."""
    size = min(len(embedding), _GROUP)
    groups = embedding[: len(embedding) // size * size].view(-1, size, embedding.shape[1])
    directions = _unit(groups[:, None, :, :] - groups[:, :, None, :])
    return directions @ directions.transpose(2, 3)


def _check_shapes(name: str, student: Tensor, teacher: Tensor, any_width: bool) -> None:
    two = student.ndim == teacher.ndim == 2 and len(student) == len(teacher)
    if not two or (student.shape[1] != teacher.shape[1] and not any_width):
        widths = "of any two widths" if any_width else "of the same width; apply projector() to the student's first"
        raise UsageError(
            f"embedding loss {name!r} got {tuple(student.shape)} from the student and {tuple(teacher.shape)} "
            f"from the teacher; both must be (batch, width), {widths}."
        )
