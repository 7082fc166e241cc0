"""Checks a teacher before any trial is paid for: does it know these classes, on images as they will be shown?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodistill.core.errors import TeacherError
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.teachers.teacher import LOGITS, PROBABILITIES, Teacher

Ints = np.ndarray[Any, np.dtype[np.int64]]
Ask = Callable[[Teacher, Split], Tensor]
"""A teacher's logits ``(n, classes)`` of some images."""

_FEED = (
    "it was fed {}. Say what it was trained on: --set teacher.options.image_size=N, "
    "--set 'teacher.options.mean=[R, G, B]', --set 'teacher.options.std=[R, G, B]' (docs/how_to/own_teacher.md)."
)
_NORMALIZATIONS: tuple[dict[str, Any], ...] = (
    {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},  # ImageNet's, of most of timm
    {"mean": [0.5], "std": [0.5]},
    {"mean": [0.0], "std": [1.0]},
)
"""What networks are mostly trained with."""

_LOOKED_AT = 256  # images; enough to tell a teacher from chance, and a second or two even for a large one
_FEW = 32  # images; enough to tell probabilities from logits
_ROUNDED = 1e-3
"""How far from 1 probabilities may sum to, of 16 bits or written with a few digits."""

_SIGMAS = 4.0
"""Standard errors above the most frequent class that an accuracy must reach, so that luck does not pass."""


@dataclass(frozen=True)
class Preflight:
    """What the check found.

    Attributes:
        name: what the teacher was loaded from.
        accuracy: on the validation images, as a fraction.
        chance: share of the most frequent class.
        classes: number of classes.
        image_size: pixels per side that the teacher sees.
        images: validation images that were looked at.
        images_per_second: speed of the answers, whether the teacher was asked or they were remembered.
        weak: accepted although it is no better than chance.
    """

    name: str
    accuracy: float
    chance: float
    classes: int
    image_size: int
    images: int
    images_per_second: float
    weak: bool = False

    @property
    def values(self) -> dict[str, float]:
        """The teacher's metrics, by the names that students' metrics have."""
        return {"accuracy": self.accuracy}

    def to_json(self) -> dict[str, Any]:
        """As stored with the study."""
        return asdict(self)


def preflight(
    teacher: Teacher, data: ImageData, *, accept_weak: bool = False, batch_size: int = 256, ask: Ask | None = None
) -> Preflight:
    """Look at all validation images with ``teacher``.

    Args:
        teacher: what will be distilled.
        data: the images.
        accept_weak: go on with an accuracy at the level of chance, or with classes that seem to be in another order.
        batch_size: images per forward pass.
        ask: gives a teacher's logits of some images; by default it is asked anew.

    Raises:
        TeacherError: wrong class count, output that is not finite or has been through a softmax, a network that
            fails on these images, an accuracy at the level of chance, or one that another order of the classes
            would double.
    """
    start = time.monotonic()
    try:
        logits = answers(teacher, data.val, batch_size=batch_size) if ask is None else ask(teacher, data.val)
    except TeacherError:  # what cannot be cached is looked at as it is
        logits = answers(teacher, data.val, batch_size=batch_size)
        ask = None
    seconds = time.monotonic() - start
    if logits.shape[1] != len(data.classes):
        raise TeacherError(
            f"teacher {teacher.name} gives {logits.shape[1]} logits per image; the data has {len(data.classes)} "
            "classes. Choose or teach a teacher for these, or say which of its outputs they are: "
            "option class_map, a list with one position per class."
        )
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits).all(1)).sum())
        if any(one.preprocessing.outputs == PROBABILITIES for one in _single(teacher)):
            raise TeacherError(
                f"teacher {teacher.name} gives numbers that have no logarithm for {bad} of {len(logits)} validation "
                f"images, although its option outputs is {PROBABILITIES}. Leave that out if it gives logits."
            )
        raise TeacherError(
            f"teacher {teacher.name} gives numbers that are not finite for {bad} of {len(logits)} validation images. "
            f"Its weights are damaged, or its input is not what it expects: {_FEED.format(teacher.preprocessing)}"
        )
    for one in _single(teacher):
        _refuse_probabilities(one, data, ask or answers)
    labels = data.val.labels
    decided = logits.argmax(1).numpy()
    accuracy = float((decided == labels).mean())
    chance = float(np.bincount(labels).max() / len(labels))
    weak = accuracy <= _least(chance, len(labels))
    order = [] if accept_weak else _better_order(decided, labels, len(data.classes), max(2 * accuracy, chance + 0.2))
    if order:
        raise TeacherError(_said(teacher, accuracy, chance) + _reordered(teacher, decided, labels, order))
    if weak and not accept_weak:
        raise TeacherError(_too_weak(teacher, accuracy, chance, data))
    speed = len(labels) / max(seconds, 1e-9)
    size = teacher.image_size
    return Preflight(teacher.name, accuracy, chance, len(data.classes), size, len(labels), speed, weak)


def _single(teacher: Teacher) -> list[Teacher]:
    """The members of an ensemble, or the teacher alone."""
    return [one for _, member in teacher.members for one in _single(member)] if teacher.members else [teacher]


def _refuse_probabilities(teacher: Teacher, data: ImageData, ask: Ask) -> None:
    """Refuse outputs that have been through a softmax, unless the user has said what they are.

    A softmax of probabilities is nearly the same for every image: students would learn next to nothing from it.
    """
    if teacher.preprocessing.outputs:
        return
    some, chosen = _sample(data.val, _FEW), teacher.preprocessing.class_map
    if not chosen:
        given = ask(teacher, some)
    else:  # some of its outputs say nothing of the sum of all
        given = answers(replace(teacher, preprocessing=replace(teacher.preprocessing, class_map=())), some)
    shares = given.min() >= 0 and given.max() <= 1 and (given.sum(1) - 1).abs().max() <= _ROUNDED
    if not shares:
        return
    raise TeacherError(
        f"teacher {teacher.name} gives probabilities: its outputs lie between 0 and 1 and sum to 1 for every image. "
        f"Students learn from logits: say --set teacher.options.outputs={PROBABILITIES} to have the logarithm taken, "
        f"or leave the softmax out of the network. If these are logits all the same, say outputs={LOGITS}."
    )


def check_enough(data: ImageData) -> None:
    """Refuse so few validation images that no teacher could pass; before one is taught.

    Raises:
        TeacherError: says how many are needed.
    """
    images, most = len(data.val.labels), np.bincount(data.val.labels).max()
    chance = float(most / images)
    if _least(chance, images) < 1.0:
        return
    needed = int(_SIGMAS**2 * chance / (1 - chance)) + 1
    everything = math.ceil(needed / images * data.pool_size)
    half = (
        " put half of them aside for validation (--set data.val_fraction=0.5)," if 2 * needed <= data.pool_size else ""
    )
    raise TeacherError(
        f"with {images} validation images not even a teacher that is always right can be told from guessing the most "
        f"frequent class ({chance:.1%}); at least {needed} are needed. Add images (about {everything} in all for "
        f"training and validation),{half} or go on all the same: --set teacher.accept_weak=true."
    )


def _least(chance: float, images: int) -> float:
    """The accuracy above which luck is ruled out."""
    return chance + _SIGMAS * math.sqrt(chance * (1 - chance) / images)


def answers(teacher: Teacher, split: Split, *, batch_size: int = 256) -> Tensor:
    """Teacher logits ``(n, classes)``, fp32 on the CPU, of a split's plain images.

    Raises:
        TeacherError: the network fails on these images.
    """
    if teacher.by_id:
        return teacher.of_ids(torch.from_numpy(split.ids))
    out = []
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(split.images[start : start + batch_size]).to(teacher.device)
        try:
            out.append(teacher(images.float().div_(255)).cpu())
        except (RuntimeError, AssertionError, IndexError, TypeError, ValueError) as error:
            shape = tuple(teacher.prepare(images[:1].float()).shape[1:])
            raise TeacherError(
                f"teacher {teacher.name} fails on images of shape {shape}: {error}. Say what it takes: "
                "--set teacher.options.image_size=N, --set teacher.options.channels=N."
            ) from error
    return torch.cat(out)


def _said(teacher: Teacher, accuracy: float, chance: float) -> str:
    return (
        f"teacher {teacher.name} is right on {accuracy:.1%} of the validation images; always guessing the most "
        f"frequent class gives {chance:.1%}. "
    )


def _reordered(teacher: Teacher, decided: Ints, labels: Ints, order: list[int]) -> str:
    best = float((decided == np.asarray(order)[labels]).mean())
    chosen = teacher.preprocessing.class_map
    mended = [chosen[output] for output in order] if chosen else order
    return (
        f"With its classes in another order it is right on {best:.1%}: set the teacher option class_map to {mended} "
        f"(--set 'teacher.options.class_map={mended}'), or fix the order of the class folders. To distil from it all "
        "the same: --set teacher.accept_weak=true."
    )


def _too_weak(teacher: Teacher, accuracy: float, chance: float, data: ImageData) -> str:
    """Why, and what could be the reason: too few images, a random head, the wrong normalization."""
    said = _said(teacher, accuracy, chance)
    anyway = "To distil from it all the same, set accept_weak: true below teacher (--set teacher.accept_weak=true)."
    images = len(data.val.labels)
    if accuracy > chance + 0.2:
        return f"{said}So few images ({images:,}) cannot tell it from chance: give it more. {anyway}"
    fed, options = fed_otherwise(teacher, data)
    if fed > max(2 * accuracy, chance + 0.2):
        return f"{said}It was fed {teacher.preprocessing}. Fed otherwise it is right on {fed:.1%}: {_flags(options)}"
    return (
        f"{said}Its classifier may be random (weights missing), or its input not what it expects: "
        f"{_FEED.format(teacher.preprocessing)} {anyway}"
    )


def fed_otherwise(teacher: Teacher, data: ImageData) -> tuple[float, dict[str, Any]]:
    """The highest accuracy with a usual size and normalization in place of what the teacher is fed, and these options.

    Args:
        teacher: one that fails its preflight.
        data: a few hundred of its validation images are looked at.
    """
    best, found = 0.0, dict[str, Any]()
    if teacher.network is None:
        return best, found
    some = _sample(data.val, _LOOKED_AT)
    usual = [one for one in _NORMALIZATIONS if len(one["mean"]) in (1, teacher.preprocessing.channels)]
    for size in dict.fromkeys([teacher.image_size, data.image_size]):
        for normalization in ({}, *usual):
            options = {**normalization, **({} if size == teacher.image_size else {"image_size": size})}
            changed = replace(teacher, preprocessing=teacher.preprocessing.override(options))
            try:
                right = float((answers(changed, some).argmax(1).numpy() == some.labels).mean())
            except TeacherError:  # a network for one size only
                continue
            if right > best:
                best, found = right, options
    return best, found


def _sample(split: Split, count: int) -> Split:
    """At most ``count`` images from all over a split: they may lie class by class."""
    every = slice(None, None, math.ceil(len(split) / count))
    return Split(split.images[every], split.labels[every], split.ids[every])


def _flags(options: dict[str, Any]) -> str:
    return " ".join(f"--set 'teacher.options.{name}={value}'" for name, value in options.items())


def _better_order(decided: Ints, labels: Ints, classes: int, least: float) -> list[int]:
    """The output of each class under the renaming that is right most often; empty where it is no better than ``least``.

    With few images of many classes some renaming always fits by luck. It therefore has to hold on images from which
    it was not found: on half of those of each class.
    """
    by_class = np.argsort(labels, kind="stable")
    found, kept = by_class[::2], by_class[1::2]
    _, order = _best_order(decided[found], labels[found], classes)
    if not len(kept) or (decided[kept] == np.asarray(order)[labels[kept]]).mean() <= least:
        return []
    return _best_order(decided, labels, classes)[1]


def _best_order(decided: Ints, labels: Ints, classes: int) -> tuple[float, list[int]]:
    """Highest accuracy under any one-to-one renaming of the outputs, and the output of each class."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, decided), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(labels)), [int(column) for column in columns]
