"""Augmentation policies and views. A view is one augmentation of one image, given by (policy, seed, id, view number).

Student and teacher see the same crop, flip and colours: a view is computed at the resolution of the stored image and
then resized to the size that a model takes, so its geometry is the same at every size. Random numbers are counter-based
(``random_numbers.py``): computing a view again needs no generator, and no state of torch, NumPy or Python is read or
changed. ``mixup.py`` mixes pairs of views (mixup, cutmix).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.core.records import stable_key
from autodistill.core.registry import Registry
from autodistill.training.augmentation import operations as augment
from autodistill.training.augmentation.random_numbers import Draws

_VERSION = 1  # raise it when the same policy and seed give different pixels: cached outputs of old views become unused
CROPS = ("none", "pad", "resized")
MIXES = ("none", "mixup", "cutmix")


@dataclass(frozen=True)
class Policy:
    """The augmentations of a view and their strengths. Lengths are relative to the side, so a policy suits every size.

    Attributes:
        crop: ``none``, ``pad`` (zero padding and a crop of the original size) or ``resized`` (random resized crop).
        padding: zeros on each side for ``pad``, as a share of the side; an eighth is the usual 4 pixels at 32.
        min_area: smallest area of a ``resized`` crop, as a share of the image; the largest is 1.
        ratio: largest ratio of width to height of a ``resized`` crop, or of height to width.
        flip: mirror half of the views left to right; false by default, because a mirrored digit or letter may belong to
            another class.
        brightness: the factor is drawn from 1 ± this; the same holds for ``contrast`` and ``saturation``.
        erase: probability that a rectangle is filled with the image's mean colour.
        erase_area: largest area of that rectangle, as a share of the image.
        operations: number of RandAugment-like operations per view, drawn from affine maps and colour changes.
        magnitude: largest strength of these operations, 0 to 1.
        mix: ``none``, ``mixup`` or ``cutmix``: mix pairs of views with their labels and teacher logits.
        mix_alpha: both parameters of the Beta distribution of an image's share.
    """

    crop: str = "none"
    padding: float = 0.125
    min_area: float = 0.35
    ratio: float = 4 / 3
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.25
    operations: int = 0
    magnitude: float = 0.5
    mix: str = "none"
    mix_alpha: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            allowed_types = (int, float) if isinstance(field.default, float) else type(field.default)
            got = getattr(self, field.name)
            if not isinstance(got, allowed_types) or (isinstance(got, bool) and field.default is not False):
                raise UsageError(
                    f"{field.name} of an augmentation policy is {got!r}; it must be like {field.default!r}."
                )
        for name, allowed in (("crop", CROPS), ("mix", MIXES)):
            if getattr(self, name) not in allowed:
                raise UnknownNameError(f"{name} of an augmentation policy", getattr(self, name), allowed)
        limits = {
            "padding": 0 <= self.padding <= 0.5,
            "min_area": 0 < self.min_area <= 1,
            "ratio": self.ratio >= 1,
            **{name: 0 <= getattr(self, name) <= 1 for name in ("brightness", "contrast", "saturation")},
            **{name: 0 <= getattr(self, name) <= 1 for name in ("erase", "erase_area", "magnitude")},
            "operations": 0 <= self.operations <= 8,
            "mix_alpha": self.mix_alpha > 0,
        }
        for name, fine in limits.items():
            if not fine:
                raise UsageError(
                    f"{name} of an augmentation policy is {getattr(self, name)!r}, out of range."
                    " Fractions lie in [0, 1], padding in [0, 0.5], operations in 0 to 8, ratio is at least 1"
                    " and mix_alpha is above 0."
                )

    @property
    def random(self) -> bool:
        """Whether two views of an image can differ. If not, the teacher cache needs one view only."""
        jitter = self.brightness or self.contrast or self.saturation
        return bool(self.crop != "none" or self.flip or jitter or self.erase or self.operations)

    def view_key(self) -> str:
        """Return a key that is equal for policies that make equal views.

        The fields ``mix`` and ``mix_alpha`` do not matter, because mixing happens after the views are computed. Fields
        without effect count as their defaults, e.g. ``padding`` of a policy without a ``pad`` crop.
        """
        unused = {
            "padding": self.crop != "pad",
            "min_area": self.crop != "resized",
            "ratio": self.crop != "resized",
            "erase_area": not self.erase,
            "magnitude": not self.operations,
        }
        plain = replace(self, **{name: getattr(Policy, name) for name, idle in unused.items() if idle})
        fields_of_views = {name: value for name, value in asdict(plain).items() if not name.startswith("mix")}
        return stable_key([_VERSION, fields_of_views])

    @staticmethod
    def parse(value: str | Mapping[str, Any] | Policy) -> Policy:
        """Return a policy, given its name or a mapping such as ``{"name": "flip_crop", "magnitude": 0.3}``.

        Raises:
            UnknownNameError: The policy or a field does not exist.
            UsageError: A value is out of range.
        """
        if isinstance(value, Policy):
            return value
        if isinstance(value, str):
            return policies.get(value)
        changes: dict[str, Any] = {name: item for name, item in value.items() if name != "name"}
        known = [field.name for field in fields(Policy)]
        for name in changes:
            if name not in known:
                raise UnknownNameError("key of an augmentation policy", name, [*known, "name"])
        return replace(policies.get(value.get("name", "none")), **changes)


policies: Registry[Policy] = Registry("augmentation policy", "autodistill.policies")
"""Named policies, mildest first; ``Policy.parse`` takes a name and changed fields."""

policies.register("none")(Policy())
policies.register("crop")(Policy(crop="pad"))
policies.register("flip_crop")(Policy(crop="pad", flip=True))
policies.register("resized_crop")(Policy(crop="resized"))
policies.register("flip_resized_crop")(Policy(crop="resized", flip=True))
policies.register("colour")(Policy(crop="pad", brightness=0.4, contrast=0.4, saturation=0.4))
policies.register("rand_augment")(Policy(crop="pad", operations=2, erase=0.25))
policies.register("photo")(Policy(crop="resized", flip=True, brightness=0.4, contrast=0.4, saturation=0.4))
policies.register("rand_photo")(Policy(crop="resized", flip=True, operations=2, erase=0.25))

# Each random number has its own slot. Never renumber slots: that would change every view whose outputs are cached.
_ROW, _COLUMN, _FLIP, _AREA, _RATIO = range(5)
_BRIGHTNESS, _CONTRAST, _SATURATION = range(8, 11)
_ERASE, _ERASE_AREA, _ERASE_RATIO, _ERASE_ROW, _ERASE_COLUMN = range(16, 21)
_OPERATION = 32  # two slots per operation from here


@torch.no_grad()
def apply(
    policy: Policy,
    images: Tensor,
    ids: Tensor,
    view: int | Tensor,
    seed: int,
    *,
    size: int | None = None,
) -> Tensor:
    """Compute the views of a batch.

    Args:
        policy: the augmentations.
        images: (batch, channels, height, width), uint8.
        ids: (batch,) integers that identify the images in the whole data set.
        view: view number, or (batch,) one for each image.
        seed: seed of all views of a study.
        size: pixels per side of the result; the images' own size if omitted.

    Returns:
        Float32 (batch, channels, size, size) in [0, 1], on the device of ``images``.

    Raises:
        UsageError: The images have another dtype or number of dimensions, or ``ids`` has another length.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or ids.shape != images.shape[:1]:
        raise UsageError(
            f"views are made of uint8 images (batch, channels, height, width) with ids (batch,); "
            f"got {images.dtype} {tuple(images.shape)} with ids {tuple(ids.shape)}."
        )
    draws = Draws(seed, ids.to(images.device), view)
    views = _colour(policy, _geometry(policy, images, draws), draws)
    if policy.erase > 0:
        views = augment.erase(views, _erase_boxes(policy, draws))
    if size is None and views.shape[2] == views.shape[3]:
        return views
    return augment.resize(views, size or max(views.shape[2:]))


def _geometry(policy: Policy, images: Tensor, draws: Draws) -> Tensor:
    """Apply crop, flip and affine operations to uint8 images; return floats in [0, 1]."""
    height, width = images.shape[2:]
    flip = draws.uniform(_FLIP) < (0.5 if policy.flip else 0.0)
    resized = policy.crop == "resized"
    if policy.crop == "pad" or (policy.flip and not resized):
        share = policy.padding if policy.crop == "pad" else 0.0
        pad = (round(share * height), round(share * width))
        rows, columns = draws.integer(_ROW, 2 * pad[0] + 1), draws.integer(_COLUMN, 2 * pad[1] + 1)
        images = augment.shift_flip(images, rows, columns, flip, pad)
    views = images.to(torch.float32).div_(255)
    if not resized and not policy.operations:
        return views
    affine = augment.Affine.identity(len(images), images.device)
    for step in range(policy.operations):
        kind, amount = _operation(policy, draws, step)
        affine = affine.after(augment.geometric(kind, amount, width / height))
    if resized:
        affine = _resized_crop(policy, draws, flip).after(affine)
    return affine.sample(views).clamp_(0, 1)


def _resized_crop(policy: Policy, draws: Draws, flip: Tensor) -> augment.Affine:
    """Return the crop as a map from the view to the image; a negative width mirrors it."""
    area = draws.uniform(_AREA, policy.min_area, 1.0)
    root = (draws.uniform(_RATIO, -1, 1) * (math.log(policy.ratio) / 2)).exp()
    width, height = (area.sqrt() * root).clamp_max(1), (area.sqrt() / root).clamp_max(1)
    zero = torch.zeros_like(area)
    x, y = draws.uniform(_COLUMN, -1, 1) * (1 - width), draws.uniform(_ROW, -1, 1) * (1 - height)
    return augment.Affine(torch.where(flip, -width, width), zero, x, zero, height, y)


def _operation(policy: Policy, draws: Draws, step: int) -> tuple[Tensor, Tensor]:
    """Return kind (geometric first, then colour) and signed amount of one random operation, both (batch,)."""
    count = len(augment.GEOMETRIC_OPERATIONS) + len(augment.COLOUR_OPERATIONS)
    kind = draws.integer(_OPERATION + 2 * step, count)
    return kind, draws.uniform(_OPERATION + 2 * step + 1, -policy.magnitude, policy.magnitude)


def _colour(policy: Policy, views: Tensor, draws: Draws) -> Tensor:
    """Apply RandAugment's colour operations, then brightness, contrast and saturation."""
    for step in range(policy.operations):
        kind, amount = _operation(policy, draws, step)
        for index, operation in enumerate(augment.COLOUR_OPERATIONS, len(augment.GEOMETRIC_OPERATIONS)):
            rows = (kind == index).nonzero().squeeze(1)
            if len(rows):
                views[rows] = operation(views[rows], 1 + 0.9 * amount[rows])
    for strength, slot, operation in (
        (policy.brightness, _BRIGHTNESS, augment.brightness),
        (policy.contrast, _CONTRAST, augment.contrast),
        (policy.saturation, _SATURATION, augment.saturation),
    ):
        if strength > 0:
            views = operation(views, draws.uniform(slot, 1 - strength, 1 + strength))
    return views


def _erase_boxes(policy: Policy, draws: Draws) -> Tensor:
    """Return the boxes (batch, 4) to erase; a box is empty if nothing is erased."""
    area = draws.uniform(_ERASE_AREA, min(0.02, policy.erase_area), policy.erase_area)
    root = (draws.uniform(_ERASE_RATIO, -1, 1) * (math.log(3) / 2)).exp()
    width, height = (area.sqrt() * root).clamp_max(1), (area.sqrt() / root).clamp_max(1)
    height = torch.where(draws.uniform(_ERASE) < policy.erase, height, torch.zeros_like(height))
    top = draws.uniform(_ERASE_ROW) * (1 - height)
    left = draws.uniform(_ERASE_COLUMN) * (1 - width)
    return torch.stack([top, left, top + height, left + width], dim=1)
