"""Mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899): mixes pairs of views, their labels and teacher logits.

Pairs are formed within a batch. The images are sorted by a random number that depends on (seed, id, view), and each is
mixed with the next. So no image of a batch of two or more is paired with itself, and the same set of images gives the
same pairs in any order. The teacher's logits of both views can come from the cache; the mixed target then approximates
the teacher's output for the mixed image. With ``teacher_mode: online`` the teacher runs on the mixed image itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autodistill.training.augmentation.operations import inside
from autodistill.training.augmentation.policy import Policy
from autodistill.training.augmentation.random_numbers import Draws

_ORDER, _SHARE, _ROW, _COLUMN = range(256, 260)  # slots of random numbers; policy.py uses those below 256
_KNOTS = 4096  # intervals of the table of quantiles


@dataclass(frozen=True)
class MixedPairs:
    """The partner of each image of a batch, and the weight of each of the two.

    Attributes:
        partner: (batch,) position in the batch of each image's partner.
        share: (batch,) weight of the image itself, float32 in [0, 1]; the partner has weight 1 - ``share``.
        boxes: (batch, 4) top, left, bottom, right in [0, 1] of the area pasted from the partner (cutmix);
            ``None`` if whole images are blended (mixup).
    """

    partner: Tensor
    share: Tensor
    boxes: Tensor | None

    def images(self, images: Tensor) -> Tensor:
        """Return the mixed images; ``images`` (batch, channels, height, width) may be the views at any size."""
        partners = images[self.partner]
        if self.boxes is not None:
            return torch.where(inside(self.boxes, images.shape[2], images.shape[3]), partners, images)
        share = self.share.to(images.dtype)[:, None, None, None]
        return share * images + (1 - share) * partners

    def labels(self, target: Tensor, classes: int) -> Tensor:
        """Return mixed labels (batch, classes) of class indices (batch,), or of probabilities (batch, classes).

        Presences of several labels per image are mixed alike: a label is present with the weight of its image.
        """
        rows = target if target.ndim == 2 else F.one_hot(target, classes)
        return self.blend(rows.to(torch.promote_types(rows.dtype, torch.float32)))

    def logits(self, logits: Tensor) -> Tensor:
        """Return teacher logits (batch, classes) whose softmax is the mixture of both softmaxes.

        The probabilities are mixed instead of the logits, so that each image's class keeps its share. The result can be
        divided by any temperature. The level (log-sum-exp) of the result is the linear mixture of both levels. A share
        of 1 gives the row itself.
        """
        logits = logits.float()
        level = logits.logsumexp(1, keepdim=True)
        own, other = logits - level, (logits - level)[self.partner]
        share = self.share[:, None]
        # A part without weight has log(0) = -inf, which logaddexp ignores.
        mixed = torch.logaddexp(own + share.log(), other + (1 - share).log())
        return mixed + self.blend(level)

    def label_logits(self, logits: Tensor) -> Tensor:
        """Return teacher logits (batch, labels) whose sigmoids are the mixture of both sigmoids, label by label."""
        logits = logits.float()
        return self._mixed_log(F.logsigmoid(logits)) - self._mixed_log(F.logsigmoid(-logits))

    def _mixed_log(self, logs: Tensor) -> Tensor:
        """Return the logarithm of the mixture of ``exp(logs)``, (batch, labels)."""
        share = self.share[:, None]
        return torch.logaddexp(logs + share.log(), logs[self.partner] + (1 - share).log())

    def blend(self, rows: Tensor) -> Tensor:
        """Return the linear mixture of ``rows`` (batch, …), e.g. of teacher embeddings."""
        share = self.share.to(rows.dtype).view(-1, *[1] * (rows.ndim - 1))
        return share * rows + (1 - share) * rows[self.partner]


def pair(policy: Policy, ids: Tensor, view: int | Tensor, seed: int, *, size: int) -> MixedPairs | None:
    """Pair the images of a batch; return ``None`` if the policy mixes nothing.

    Args:
        policy: only ``mix`` and ``mix_alpha`` matter.
        ids: (batch,) integer ids; the result is on their device.
        view: view number, or (batch,) one for each image.
        seed: seed of all views of a study.
        size: pixels per side of the student's images. A pasted box covers whole pixels of this grid, so that its area
            and the share of the label agree exactly.
    """
    if policy.mix == "none":
        return None
    draws = Draws(seed, ids, view)
    order = draws.bits(_ORDER).argsort(stable=True)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    share = _beta(draws.uniform(_SHARE), policy.mix_alpha)
    if policy.mix == "mixup":
        return MixedPairs(partner, share, None)
    boxes, share = _boxes(draws, share, size)
    return MixedPairs(partner, share, boxes)


def mix(policy: Policy, views: Tensor, ids: Tensor, view: int | Tensor, seed: int) -> tuple[Tensor, MixedPairs | None]:
    """Mix the views of a batch in pairs.

    Args:
        policy: only ``mix`` and ``mix_alpha`` matter.
        views: (batch, channels, size, size), from :func:`autodistill.training.augmentation.policy.apply`.
        ids: (batch,) integer ids.
        view: view number, or (batch,) one for each image.
        seed: seed of all views of a study.

    Returns:
        The mixed views, and the pairs, which mix labels, logits and views of other sizes in the same way; the views
        themselves and ``None`` if the policy mixes nothing.
    """
    pairing = pair(policy, ids.to(views.device), view, seed, size=views.shape[-1])
    return (views, None) if pairing is None else (pairing.images(views), pairing)


def _boxes(draws: Draws, share: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return square boxes (batch, 4) of about the partner's share of the area, and the images' exact shares (batch,).

    The boxes cover whole pixels, so the shares change by rounding.
    """
    side = ((1 - share).sqrt() * size).round()
    top = (draws.uniform(_ROW) * (size - side + 1)).floor()
    left = (draws.uniform(_COLUMN) * (size - side + 1)).floor()
    boxes = torch.stack([top, left, top + side, left + side], dim=1) / size
    return boxes, 1 - side.square() / size**2


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Return quantiles of Beta(alpha, alpha) at ``uniform`` (batch,), interpolated linearly from a table."""
    if alpha == 1.0:
        return uniform
    table = torch.from_numpy(_beta_table(alpha)).to(uniform.device)
    place = uniform * _KNOTS
    index = place.long().clamp_max(_KNOTS - 1)
    return torch.lerp(table[index], table[index + 1], place - index)


@lru_cache(maxsize=16)
def _beta_table(alpha: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    from scipy.special import betaincinv  # imported on use: loading scipy takes longer than computing the table

    quantiles = betaincinv(alpha, alpha, np.linspace(0, 1, _KNOTS + 1))
    return np.asarray(quantiles, dtype=np.float32)
