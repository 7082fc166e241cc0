"""A pretrained network whose classifier alone is fitted: its input, its features, and its linear classifier.

Features are the inputs of the classifier, whatever the network is: a convolutional network with pooled maps, a
transformer with a token, or an image tower of CLIP or SigLIP, to which timm adds a classifier if it has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autodistill.core.errors import AutodistillError, TeacherError, UsageError, WeightsError, first_lines
from autodistill.training.data.datasets import ImageData
from autodistill.training.deployed.form import deploy
from autodistill.training.students import build as students
from autodistill.training.students.embeddings import heads_of
from autodistill.training.students.starting_weights import statistics_of
from autodistill.training.teachers.teacher import Preprocessing, Teacher, fingerprint_of, freeze
from autodistill.training.weights.loading import LoadedWeights

Linear = nn.Linear | nn.Conv2d
"""A linear layer; a convolution is one on maps of one pixel."""

_STEPS = (14, 16, 32)  # patches and total strides of most networks, in pixels
_CHANNELS = 3
_TOLERANCE = 1e-2  # largest difference between the network's logits and those of its features, per unit of spread


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained network with a classifier of the data's classes, which has no meaning yet.

    Attributes:
        student: architecture, for ``build_student``.
        network: the network, in eval mode.
        input: its input.
        teacher: the same network as a frozen function of images in [0, 1].
        heads: linear layers whose mean is the output; almost always one, two in distilled transformers.
        quick: a copy in its deployed form, which computes the same features faster.
        quick_heads: the linear layers of ``quick``.
    """

    student: Mapping[str, Any]
    network: nn.Module
    input: Preprocessing
    teacher: Teacher
    heads: tuple[Linear, ...]
    quick: Teacher
    quick_heads: tuple[Linear, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return sum(_inputs(head) for head in self.heads)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features ``(n, width)``, fp32, of images in [0, 1].

        Raises:
            TeacherError: the network does not pass one vector per image to its classifier.
        """
        seen: dict[int, Tensor] = {}

        def keep(index: int) -> Any:
            def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                seen[index] = inputs[0].detach()

            return note

        hooks = [head.register_forward_pre_hook(keep(index)) for index, head in enumerate(self.quick_heads)]
        try:
            self.quick(images)
        finally:
            for hook in hooks:
                hook.remove()
        found = [seen[index].float() for index in range(len(self.heads)) if index in seen]
        if len(found) < len(self.heads) or any(one.numel() != len(images) * one.shape[1] for one in found):
            raise TeacherError(
                f"{students.describe(self.student)} has no linear classifier of one vector per image, so that it "
                "cannot be frozen; train it as a whole: leave out --freeze."
            )
        return torch.cat([one.flatten(1) for one in found], dim=1).to(images.device)

    def set_classifier(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        """Set the classifier so that the logits are ``features @ weight.T + bias``.

        Args:
            weight: ``(classes, width)``.
            bias: ``(classes,)``.
        """
        start = 0
        for head in self.heads:
            own = weight[:, start : start + _inputs(head)] * len(self.heads)  # the output is the mean of the heads
            start += _inputs(head)
            with torch.no_grad():
                head.weight.copy_(torch.from_numpy(np.ascontiguousarray(own)).view_as(head.weight))
                if head.bias is not None:
                    head.bias.copy_(torch.from_numpy(bias))

    def check(self, images: Tensor, expected: NDArray[np.float64]) -> None:
        """Compare the network's logits of images in [0, 1] with those that its features give.

        Raises:
            TeacherError: they differ: something follows the classifier.
        """
        found = self.teacher(images).cpu().double().numpy()
        if np.abs(found - expected).max() > _TOLERANCE * (np.abs(expected).max() + 1):
            raise TeacherError(
                f"the output of {students.describe(self.student)} is not that of its classifier alone; it cannot be "
                "frozen. Train it as a whole: leave out --freeze."
            )


def load_backbone(
    student: Mapping[str, Any], weights: LoadedWeights, data: ImageData, *, input_size: int | None, device: str
) -> Backbone:
    """Load a network with pretrained weights, and a classifier for the classes of ``data``.

    Args:
        student: architecture.
        weights: weights of the network.
        data: the images.
        input_size: pixels per side of the network's input; if omitted, the images' own size, rounded up to what the
            network takes.
        device: device to run on.

    Raises:
        UsageError: the network does not take this input size.
        TeacherError: the network has no linear classifier.
        WeightsError: the weights do not fit the network.
    """
    problems: list[str] = []
    unfit: list[WeightsError] = []
    channels = weights.source.channels or _CHANNELS
    own = weights.source.image_size
    for size in _sizes(student, data.image_size, own) if input_size is None else (input_size,):
        shape: dict[str, Any] = {"image_size": size, "channels": channels, "num_classes": len(data.classes)}
        try:
            network = students.build_student(student, **shape, weights=weights).eval()
            with torch.no_grad():
                network(torch.zeros(1, channels, size, size))
        except WeightsError as error:  # also if they do not fit a network of this size
            unfit.append(error)
            problems.append(f"{size} px: {error}")
            continue
        except TeacherError:
            raise
        except (RuntimeError, AssertionError, ValueError, IndexError, AutodistillError) as error:
            problems.append(f"{size} px: {first_lines(error)}")
            continue
        mean, std = statistics_of(student, weights.source, channels) or (data.mean, data.std)
        if len(mean) != channels:
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        expects = Preprocessing(size, channels, mean, std)
        heads = _heads(network, str(students.describe(student)))
        return _frozen(student, network, expects, device, heads)
    if input_size is None and len(unfit) == len(problems):
        raise unfit[0]
    raise UsageError(
        f"{students.describe(student)} cannot be run on these images ({'; '.join(problems)}). Set the side of its "
        "input: --input-size PX, a size that it was trained with."
    )


def _frozen(
    student: Mapping[str, Any],
    network: nn.Module,
    expects: Preprocessing,
    device: str,
    heads: tuple[Linear, ...],
) -> Backbone:
    with torch.no_grad():  # the fingerprint is that of the features, the same for every seed
        for head in heads:
            head.weight.zero_()
            if head.bias is not None:
                head.bias.zero_()
    print_, where = fingerprint_of(network, expects, identity=dict(student)), torch.device(device)
    teacher = Teacher(students.describe(student), print_, expects, where, freeze(network, where))
    try:
        folded = deploy(network, image_size=expects.image_size, channels=expects.channels)
        names = {id(module): name for name, module in network.named_modules()}
        quick_heads = tuple(folded.get_submodule(names[id(head)]) for head in heads)
    except Exception:  # networks of plugins may do anything; the network itself computes the same features
        return Backbone(student, network, expects, teacher, heads, teacher, heads)
    quick = replace(teacher, network=freeze(folded, where))
    return Backbone(student, network, expects, teacher, heads, quick, quick_heads)  # type: ignore[arg-type]


def _sizes(student: Mapping[str, Any], side: int, own: int | None) -> tuple[int, ...]:
    """Return input sizes to try: the images', rounded up to whole patches, and the weights' ``own``."""
    name = str(student.get("model", student.get("variant", "")))
    patch = re.search(r"patch(\d+)", name)
    first = _up(side, int(patch[1])) if patch else side
    last = [] if own is None else [own]
    return tuple(dict.fromkeys([first, *(_up(side, step) for step in _STEPS), *last]))


def _up(side: int, step: int) -> int:
    return -(-side // step) * step


def _heads(network: nn.Module, name: str) -> tuple[Linear, ...]:
    """Return the linear layers that compute the output: one, or the two of a distilled transformer.

    Raises:
        TeacherError: there is none.
    """
    try:
        heads = tuple(_last_linear(one) for one in heads_of(network))
    except UsageError:
        heads = ()
    linear = tuple(one for one in heads if one is not None)
    if linear and len(linear) == len(heads):
        return linear
    raise TeacherError(f"{name} has no linear classifier, so that it cannot be frozen; leave out --freeze.")


def _last_linear(module: nn.Module) -> Linear | None:
    linear = [one for one in module.modules() if isinstance(one, Linear)]
    return linear[-1] if linear and linear[-1].bias is not None else None


def _inputs(head: Linear) -> int:
    return head.in_features if isinstance(head, nn.Linear) else head.in_channels
