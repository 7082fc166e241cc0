"""Fits the classifier of a frozen backbone, and prepares the training of the whole network afterwards.

Fitting the classifier first keeps the pretrained features: a random one would send large gradients into them (Kumar et
al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv:2202.10054).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.core.errors import UsageError
from autodistill.training.augmentation.policy import Policy
from autodistill.training.data.datasets import ImageData
from autodistill.training.distillation.class_weights import class_weights
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed
from autodistill.training.runtime.cache_folder import teacher_caches
from autodistill.training.teachers.teacher import Preprocessing, Teacher
from autodistill.training.trials.frozen.backbone import Backbone, load_backbone
from autodistill.training.trials.frozen.features import FeatureStore
from autodistill.training.trials.frozen.head import fit_head
from autodistill.training.weights.loading import LoadedWeights

VIEWS = 1
"""Augmented views per image beside the plain one, if the policy makes different views."""

AUGMENT = "flip_crop"
"""Augmentation of the further views of photographs. Features of small crops are of other things than whole images."""

USED = ("augment", "augment_strength", "views", "class_weights", "cache_mb")
"""Training settings of a frozen backbone; the others belong to a training of the whole network."""

_CHECKED = 8  # images on which the finished network is compared with its features
_SHOWN_SECONDS = 1.0


@dataclass(frozen=True)
class FreezeOptions:
    """Options of a frozen network.

    Attributes:
        input_size: pixels per side of the network's input; ``None`` chooses it by the images and the patches.
        unfreeze: epochs for which the whole network is trained afterwards.

    Raises:
        UsageError: a value is out of range.
    """

    input_size: int | None = None
    unfreeze: int = 0

    def __post_init__(self) -> None:
        for name, value, low in (("input_size", self.input_size, 8), ("unfreeze", self.unfreeze, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
                raise UsageError(f"{name} is {value!r}; allowed: an integer of at least {low}.")

    @staticmethod
    def take_from(options: dict[str, Any], default: FreezeOptions | None) -> FreezeOptions | None:
        """Take ``freeze``, ``unfreeze`` and ``input_size`` out of the options of an ``auto`` teacher.

        Raises:
            UsageError: a value is out of range, or ``freeze`` is missing beside the other two.
        """
        names = ["unfreeze", "input_size"]
        if isinstance(options.get("freeze"), bool):  # a number is the training setting: epochs of the head alone
            names.append("freeze")
        given = {name: options.pop(name) for name in names if name in options}
        if not given:
            return default
        if given.pop("freeze", default is not None) is not True:
            if given:
                raise UsageError(f"teacher option {next(iter(given))} belongs to a frozen network; add freeze: true.")
            return None
        return replace(default or FreezeOptions(), **given)

    def views(self, recipe: Recipe) -> int:
        """Return the number of views per image whose features are computed, the plain one included."""
        return 1 + (recipe.views or VIEWS) if _policy(recipe).random else 1

    def defaults(self) -> dict[str, Any]:
        """Return training settings that differ from those of a fine-tuning."""
        return {"lr": 3e-4} if self.unfreeze else {}


def refuse_unused(settings: Mapping[str, Any], options: FreezeOptions) -> None:
    """Refuse training settings that have no effect while the whole network stays frozen.

    Raises:
        UsageError: there is one.
    """
    if options.unfreeze:
        return
    for name in settings:
        if name not in USED:
            raise UsageError(
                f"training setting {name} has no effect on a frozen network, whose classifier is fitted in one go; "
                f"allowed: {', '.join(USED)}. Add --unfreeze N to train the whole network for N epochs afterwards."
            )


def frozen_words(name: str, data: ImageData, recipe: Recipe, options: FreezeOptions) -> str:
    """Describe the teaching in one line."""
    count = options.views(recipe)
    views = "one view" if count == 1 else f"{count} views ({recipe.augment})"
    then = f", then training all of it for {options.unfreeze} epochs (lr {recipe.lr:g})" if options.unfreeze else ""
    return f"fitting a classifier to features of the frozen {name}, of {views} of {len(data.train):,} images{then}"


def _policy(recipe: Recipe) -> Policy:
    return replace(recipe.policy(), mix="none")


def fit_frozen(
    data: ImageData,
    student: Mapping[str, Any],
    weights: LoadedWeights,
    recipe: Recipe,
    options: FreezeOptions,
    *,
    seed: int,
    device: str,
    should_stop: Callable[[], bool],
    progress: Callable[[float], None],
) -> Backbone:
    """Load a pretrained network and fit its classifier on features of plain and augmented training images.

    Args:
        data: the images.
        student: architecture.
        weights: weights of the network.
        recipe: policy and number of views, class weights, size of the cache.
        options: size of the network's input.
        seed: seed of views, and of the images held out to choose the penalty.
        device: device of the network.
        should_stop: function called between batches.
        progress: function called as ``progress(views done)``, about once a second.

    Returns:
        The backbone with its fitted classifier.

    Raises:
        UsageError: the network does not take this input size.
        TeacherError: the network has no linear classifier, or its features are not finite.
        InterruptedTrialError: a stop was requested; the same call continues.
    """
    backbone = load_backbone(student, weights, data, input_size=options.input_size, device=device)
    shown = time.monotonic()

    def computed(images: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _SHOWN_SECONDS:
            shown = time.monotonic()
            progress(images / len(data.train))

    store = FeatureStore(
        backbone, data, teacher_caches(), seed=seed, megabytes=recipe.cache_mb, should_stop=should_stop,
        progress=computed,
    )  # fmt: skip
    plain = store.of(data.train, Policy(), 0)
    further = range(options.views(recipe) - 1)
    views = [plain, *(store.of(data.train, _policy(recipe), number) for number in further)]
    labels = data.train.labels
    balance = class_weights(recipe.class_weights, torch.from_numpy(labels), len(data.classes))
    head = fit_head(
        views, labels, classes=len(data.classes), seed=seed, weights=None if balance is None else balance.numpy()
    )
    backbone.set_classifier(head.weight, head.bias)
    images = torch.from_numpy(data.train.images[:_CHECKED].copy()).float().div_(255)
    backbone.check(images, head.logits(backbone.features(images).cpu().numpy()))
    return backbone


class AdaptedInput(nn.Module):
    """A network behind the conversion of images in [0, 1] to its input, for a training at the images' own size.

    Args:
        network: the network.
        expects: its input.
    """

    def __init__(self, network: nn.Module, expects: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self._expects = expects

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of images in [0, 1]."""
        found: Tensor = self.network(Teacher("", "", self._expects, images.device).prepare(images))
        return found

    def get_classifier(self) -> Any:
        """Return the network's classifier."""
        return self.network.get_classifier()  # type: ignore[operator]


def unfrozen(backbone: Backbone, feed: Feed) -> tuple[AdaptedInput, Feed]:
    """Return the network behind its own conversion of images, to be trained, and a feed that normalizes nothing."""
    channels = feed.images.shape[1]
    network = backbone.network.requires_grad_(True).train()
    plain = replace(feed, mean=(0.0,) * channels, std=(1.0,) * channels)
    return AdaptedInput(network, backbone.input), plain
