"""The training recipe of a student without its loss: optimizer, schedule, augmentation, weight averaging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.core.records import MULTICLASS, MULTILABEL, TaskKind
from autodistill.training.augmentation.policy import Policy
from autodistill.training.weights import licences

_RANGES: dict[str, tuple[float, float]] = {
    "lr": (1e-7, 100.0),
    "weight_decay": (0.0, 10.0),
    "batch_size": (1, 65536),
    "augment_strength": (0.0, 1.0),
    "mixup": (0.0, 10.0),
    "cutmix": (0.0, 10.0),
    "ema": (0.0, 0.999999),
    "label_smoothing": (0.0, 0.5),
    "clip": (0.0, 1e6),
    "warmup": (0.0, 0.5),
    "layer_decay": (0.1, 1.0),
    "freeze": (0, 10_000),
    "views": (0, 100_000),
    "unlabelled_ratio": (0.0, 16.0),
    "cache_mb": (1, 10_000_000),
}
_ALIASES = {
    **dict.fromkeys(("learning_rate", "lr_max", "max_lr", "peak_lr"), "lr"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("clip_grad", "grad_clip", "max_grad_norm"), "clip"),
    **dict.fromkeys(("aug", "augmentation"), "augment"),
    "opt": "optimizer",
    "smoothing": "label_smoothing",
    "ema_decay": "ema",
    "warmup_epochs": "warmup",
    **dict.fromkeys(("layerwise_decay", "llrd", "lr_decay"), "layer_decay"),
    **dict.fromkeys(("freeze_epochs", "frozen_epochs", "freeze_backbone"), "freeze"),
    "license": "licence",
}
"""Names of these settings in other tools; they are not accepted, but the error message suggests ours."""
_CHOICES: dict[str, tuple[str, ...]] = {
    "init": ("random", "pretrained", "teacher", "inherit"),
    "teacher_mode": ("cached", "online"),
    "class_weights": ("none", "balanced", "effective"),
    "sampler": ("shuffle", "balanced"),
}

_UNUSABLE = {
    "adahessian": "it needs second derivatives, which are not computed here",
    **dict.fromkeys(
        ("kron", "kronc", "kronw"), "its state is not plain tensors, so a stopped training could not be resumed"
    ),
}
"""Optimizers of timm that are refused, with the reason."""


MAX_VIEWS = 50
"""Views per image that are cached at most, unless ``views`` is set."""


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        lr: peak learning rate.
        weight_decay: weight decay of matrices and filters; biases and normalization layers have none.
        optimizer: name of an optimizer in timm; a few that cannot train or resume here are refused.
        batch_size: images per step.
        augment: name of the augmentation policy of the views.
        augment_strength: 0.5 is the named policy itself, 0 leaves only mirroring, 1 doubles its strength.
        mixup: alpha of the Beta distribution that mixes pairs of images; 0 is off.
        cutmix: the same for pasted rectangles; at most one of the two may be on.
        ema: decay of the averaged weights, which are evaluated and saved; 0 is off.
        label_smoothing: share of the label spread over all classes.
        class_weights: of the task loss: ``none``, ``balanced`` (one over the images of a class) or ``effective``,
            between the two. With several labels per image they weight the presence of each label against its absence.
        sampler: ``shuffle``: every image once an epoch; ``balanced``: images are drawn so that classes are equally
            frequent, as many as there are.
        clip: largest gradient norm; 0 is off.
        warmup: share of all steps over which the learning rate rises from zero; again, for the other layers, after
            ``freeze``.
        layer_decay: factor on the learning rate from one layer to the one before it; 1 gives all layers the same rate
            (BEiT, arXiv 2106.08254).
        freeze: epochs in which only the classifier is trained, before all layers are; for weights that are not random.
        init: initial weights: ``random``, ``pretrained`` (of timm, or those that the space names), ``teacher`` (as far
            as shapes match), or ``inherit`` (of the best finished student of the family in this study).
        licence: licences that pretrained weights may have (``apache-2.0,mit`` or a list); ``any`` accepts all.
        amp: use bfloat16 on a GPU that supports it.
        compile: compile the student; worthwhile for long trainings only. Ignored with an embedding term.
        teacher_mode: ``cached`` teacher outputs of repeatable views, or ``online`` for a new view each epoch.
        views: views per image that are cached. 0 means the number of epochs of the top rung, at most 50, and fewer if
            the teacher is slow for a time budget.
        cache_mb: largest size of the teacher cache on disk, in MiB.
        unlabelled_ratio: unlabelled images in a batch per labelled image; ``batch_size`` and epochs count labelled
            images only. Without effect for a loss without teacher, and refused without unlabelled images.
    """

    lr: float = 4e-3
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    batch_size: int = 64
    augment: str = "crop"
    augment_strength: float = 0.5
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.998
    label_smoothing: float = 0.0
    class_weights: str = "none"
    sampler: str = "shuffle"
    clip: float = 5.0
    warmup: float = 0.05
    layer_decay: float = 1.0
    freeze: int = 0
    init: str = "random"
    licence: str = "any"
    amp: bool = True
    compile: bool = False
    teacher_mode: str = "cached"
    views: int = 0
    cache_mb: int = 4096
    unlabelled_ratio: float = 1.0

    @classmethod
    def parse(cls, *layers: Mapping[str, Any], kind: TaskKind = MULTICLASS) -> Recipe:
        """Build a recipe from layers of settings; later layers override earlier ones.

        Args:
            *layers: settings by name.
            kind: task of the study: one class per image, or any number of labels.

        Raises:
            UnknownNameError: a key, policy or optimizer does not exist; the message names the nearest ones.
            UsageError: a value has the wrong type or is outside its range.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        merged: dict[str, Any] = {}
        for layer in layers:
            for name, value in layer.items():
                if name not in known:
                    raise UnknownNameError("training setting", name, tuple(known), meant=_ALIASES.get(name.lower(), ""))
                if name == "licence":
                    value = ",".join(licences.parse(value if isinstance(value, list | tuple) else str(value)))
                merged[name] = _convert(name, value, known[name])
        recipe = cls(**merged)
        if reason := recipe.why_not(kind):
            raise UsageError(reason)
        recipe.policy()
        check_optimizer(recipe.optimizer)
        return recipe

    def cached_views(self, epochs: int) -> int:
        """Return the number of cached views per image of a training of ``epochs`` epochs with random augmentation."""
        return self.views or min(epochs, MAX_VIEWS)

    def why_not(self, kind: TaskKind) -> str:
        """Return why these settings cannot serve a task; empty if they can."""
        if kind == MULTILABEL and self.sampler == "balanced":
            return (
                "training setting sampler: balanced cannot serve task: multilabel, since an image with several labels "
                "has no one class to balance by; use class_weights: balanced or effective."
            )
        return ""

    def policy(self) -> Policy:
        """Return the augmentation policy at its strength, with mixup or cutmix.

        Raises:
            UnknownNameError: the policy does not exist.
            UsageError: mixup and cutmix are both above 0.
        """
        policy = scaled(Policy.parse(self.augment), self.augment_strength)
        if self.mixup and self.cutmix:
            raise UsageError("training settings mixup and cutmix are both above 0; give one of them.")
        if self.mixup or self.cutmix:
            mix = "mixup" if self.mixup else "cutmix"
            policy = dataclasses.replace(policy, mix=mix, mix_alpha=self.mixup or self.cutmix)
        return policy


def check_optimizer(name: str) -> None:
    """Raise an error for an optimizer that timm does not have or that cannot train here.

    Raises:
        UnknownNameError: timm does not have the optimizer; the message names the nearest ones.
        UsageError: the optimizer cannot train here, or cannot resume after a stop.
    """
    from timm.optim import list_optimizers

    if name in _UNUSABLE:
        raise UsageError(f"optimizer {name!r} cannot be used: {_UNUSABLE[name]}. Choose another, such as adamw.")
    allowed = [one for one in list_optimizers() if one not in _UNUSABLE]
    if name not in allowed:
        raise UnknownNameError("optimizer", name, allowed)


def scaled(policy: Policy, strength: float) -> Policy:
    """Scale everything but mirroring of a policy by twice ``strength``; 0.5 returns the policy itself."""
    factor = 2 * strength
    smallest = max(1 - (1 - policy.min_area) * factor, 0.05)
    return dataclasses.replace(
        policy,
        padding=min(policy.padding * factor, 0.5),
        min_area=smallest,
        brightness=min(policy.brightness * factor, 1.0),
        contrast=min(policy.contrast * factor, 1.0),
        saturation=min(policy.saturation * factor, 1.0),
        erase=min(policy.erase * factor, 1.0),
        magnitude=min(policy.magnitude * factor, 1.0),
    )


def allowed(name: str) -> str:
    """Describe the allowed values of a training setting in words, e.g. ``a number from 0 to 0.5``."""
    default = getattr(Recipe, name)
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return " or ".join(_CHOICES[name]) if name in _CHOICES else "a name"
    low, high = _RANGES[name]
    return f"{'an integer' if isinstance(default, int) else 'a number'} from {low:g} to {high:g}"


def _convert(name: str, value: Any, default: Any) -> Any:
    """Convert ``value`` to the type of ``default``; raise a UsageError if its type or range is wrong."""
    if isinstance(default, bool) or isinstance(value, bool):
        good = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, str):
        good = isinstance(value, str) and value in _CHOICES.get(name, (value,))
    else:
        low, high = _RANGES[name]
        whole = isinstance(default, int)
        good = isinstance(value, int | float) and low <= value <= high and not (whole and int(value) != value)
    if not good:
        raise UsageError(f"training setting {name} is {value!r}; allowed: {allowed(name)}.")
    return type(default)(value)
