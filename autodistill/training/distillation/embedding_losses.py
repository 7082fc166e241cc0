"""Embedding terms: losses of the vectors before the classifier, addable to any distillation loss.

``fn(student_embedding, teacher_embedding, **keywords) -> scalar``, both (batch, width). Relations between
images (``rkd``) compare embeddings of any two widths; the others need equal widths, and ``projector`` gives
the linear map that is trained with the student and thrown away with the teacher. Computed in fp32 at least,
teacher detached.
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

_SMALL = 1e-3  # floor of norms and distances: zero vectors get a bounded gradient
_GROUP = 64  # rkd takes angles within groups of so many images: memory batch x 64 x width, not batch² x width


def embedding_info(name: str) -> LossInfo:
    """Keywords and ranges of a registered embedding term.

    Raises:
        UnknownNameError: nobody registered ``name``.
    """
    function = embedding_losses.get(name)
    return _infos.get(name) or describe(function, name)


def projector(name: str, student_width: int, teacher_width: int, *, seed: int) -> nn.Module:
    """What the student's embedding passes through before the term ``name``; it is not part of the student.

    Args:
        name: registered embedding term.
        student_width: width of the student's embedding.
        teacher_width: width of the teacher's.
        seed: seed of the initial weights; the global generator is not used.

    Returns:
        A linear map without bias where the term needs equal widths and they differ, the identity otherwise.
        Its parameters must go to the optimizer together with the student's.
    """
    if student_width == teacher_width or name in _any_width:
        return nn.Identity()
    # Built on the meta device, because the constructor would draw from the global generator.
    linear = nn.Linear(student_width, teacher_width, bias=False, device="meta").to_empty(device="cpu")
    nn.init.normal_(linear.weight, std=student_width**-0.5, generator=torch.Generator().manual_seed(seed))
    return linear


def _embedding_loss(name: str, *, any_width: bool = False, **facts: Any) -> Callable[[LossFunction], LossFunction]:
    """File a formula under ``name``, with the checks and casts that all share around it."""

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
    """Relations between images: their distances, over the mean distance, and the angles of triples.

    Angles are taken within groups of 64 neighbours in the batch, where the published code takes all triples
    and memory grows with the square of the batch. A batch of one has no relations and gives zero.
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
    """Contrast: each student embedding must pick its own teacher embedding in the batch, and back.

    Negatives are the other images of the batch; the paper's memory bank of 16,384 is not kept, so the batch
    size is the number of negatives plus one. A batch of one gives zero.
    """
    similarity = _unit(student) @ _unit(teacher).T / temperature
    own = torch.arange(len(student), device=student.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def _unit(vectors: Tensor) -> Tensor:
    """Rows of length one; rows shorter than 1e-3 are divided by that."""
    return vectors / vectors.square().sum(-1, keepdim=True).clamp_min(_SMALL**2).sqrt()


def _distances(embedding: Tensor) -> Tensor:
    """Euclidean distances (batch, batch) over their mean between distinct images; the diagonal is zero.

    By differences, not by ‖a‖² + ‖b‖² - 2ab, which loses all digits of close embeddings in fp32.
    """
    distances = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp_min(1)
    return distances / mean.clamp_min(_SMALL)


def _angles(embedding: Tensor) -> Tensor:
    """Cosines (groups, size, size, size) of the angle at image i between images j and k."""
    size = min(len(embedding), _GROUP)
    groups = embedding[: len(embedding) // size * size].view(-1, size, embedding.shape[1])
    directions = _unit(groups[:, None, :, :] - groups[:, :, None, :])
    return directions @ directions.transpose(2, 3)


def _check_shapes(name: str, student: Tensor, teacher: Tensor, any_width: bool) -> None:
    two = student.ndim == teacher.ndim == 2 and len(student) == len(teacher)
    if not two or (student.shape[1] != teacher.shape[1] and not any_width):
        widths = "of any two widths" if any_width else "of the same width; projector() makes them so"
        raise UsageError(
            f"embedding loss {name!r} got {tuple(student.shape)} from the student and {tuple(teacher.shape)} "
            f"from the teacher; both must be (batch, width), {widths}."
        )
