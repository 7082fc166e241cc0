"""Mixup and cutmix: pairs of finished views, mixed together with their labels and their teacher's logits.

Pairs are made within a batch: the images are put in an order given by (seed, id, view) and each is mixed with
the next one, so nobody is paired with itself and the same set of images pairs alike in any order. The
teacher's logits of both views can come from the cache; the mixed target is then an approximation of what the
teacher would say to the mixed image (``teacher: online`` asks it).
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

_ORDER, _SHARE, _ROW, _COLUMN = range(256, 260)  # slots of pairing; views.py uses those below 256
_KNOTS = 4096


@dataclass(frozen=True)
class MixedPairs:
    """Who is mixed with whom, and how much of each remains.

    Attributes:
        partner: (batch,) position in the batch of each image's partner.
        share: (batch,) weight of the image itself, float32 in [0, 1]; the partner has the rest.
        boxes: (batch, 4) top, left, bottom, right in [0, 1] of what is pasted from the partner (cutmix);
            ``None`` where whole images are blended (mixup).
    """

    partner: Tensor
    share: Tensor
    boxes: Tensor | None

    def images(self, images: Tensor) -> Tensor:
        """Mixed images; ``images`` (batch, channels, height, width) may be the views at any size."""
        partners = images[self.partner]
        if self.boxes is not None:
            return torch.where(inside(self.boxes, images.shape[2], images.shape[3]), partners, images)
        share = self.share.to(images.dtype)[:, None, None, None]
        return share * images + (1 - share) * partners

    def labels(self, target: Tensor, classes: int) -> Tensor:
        """Mixed labels (batch, classes) of indices (batch,) or of probabilities (batch, classes)."""
        rows = target if target.ndim == 2 else F.one_hot(target, classes)
        return self.blend(rows.to(torch.promote_types(rows.dtype, torch.float32)))

    def logits(self, logits: Tensor) -> Tensor:
        """Teacher logits (batch, classes) whose softmax is the mixture of both softmaxes.

        The probabilities are mixed and not the logits, so that each image's own class keeps its share; the
        result can be divided by any temperature. Rows keep the level (log-sum-exp) of their logits, mixed
        linearly, and a share of 1 gives the row itself.
        """
        logits = logits.float()
        level = logits.logsumexp(1, keepdim=True)
        own, other = logits - level, (logits - level)[self.partner]
        share = self.share[:, None]
        # log(0) = -inf is what logaddexp expects of a part without weight.
        mixed = torch.logaddexp(own + share.log(), other + (1 - share).log())
        return mixed + self.blend(level)

    def blend(self, rows: Tensor) -> Tensor:
        """Linear mixture of ``rows`` (batch, …), e.g. of teacher embeddings."""
        share = self.share.to(rows.dtype).view(-1, *[1] * (rows.ndim - 1))
        return share * rows + (1 - share) * rows[self.partner]


def pair(policy: Policy, ids: Tensor, view: int | Tensor, seed: int, *, size: int) -> MixedPairs | None:
    """The pairing of a batch, or ``None`` where the policy mixes nothing.

    Args:
        policy: ``mix`` and ``mix_alpha`` count.
        ids: (batch,) integer ids; the result lives on their device.
        view: view number, or (batch,) one for each image.
        seed: seed of all views of a study.
        size: pixels per side of the student's images; a pasted box has whole pixels of these, so that its
            area and the share of the label agree exactly.
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
    """Mixed views of a batch, and the pairing that mixes their labels, logits and other sizes alike.

    Args:
        policy: ``mix`` and ``mix_alpha`` count.
        views: (batch, channels, size, size) of ``views.apply``.
        ids: (batch,) integer ids.
        view: view number, or (batch,) one for each image.
        seed: seed of all views of a study.
    """
    pairing = pair(policy, ids.to(views.device), view, seed, size=views.shape[-1])
    return (views, None) if pairing is None else (pairing.images(views), pairing)


def _boxes(draws: Draws, share: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Square boxes on whole pixels, of about the partner's share; and the share that they leave."""
    side = ((1 - share).sqrt() * size).round()
    top = (draws.uniform(_ROW) * (size - side + 1)).floor()
    left = (draws.uniform(_COLUMN) * (size - side + 1)).floor()
    boxes = torch.stack([top, left, top + side, left + side], dim=1) / size
    return boxes, 1 - side.square() / size**2


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Quantiles of Beta(alpha, alpha) at ``uniform`` (batch,), from a table by linear interpolation."""
    if alpha == 1.0:
        return uniform
    table = torch.from_numpy(_beta_table(alpha)).to(uniform.device)
    place = uniform * _KNOTS
    index = place.long().clamp_max(_KNOTS - 1)
    return torch.lerp(table[index], table[index + 1], place - index)


@lru_cache(maxsize=16)
def _beta_table(alpha: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    from scipy.special import betaincinv  # only here: scipy takes longer to load than the table to compute

    quantiles = betaincinv(alpha, alpha, np.linspace(0, 1, _KNOTS + 1))
    return np.asarray(quantiles, dtype=np.float32)
