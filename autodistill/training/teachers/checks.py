"""Checks of a teacher before the first trial: whether it classifies the study's images better than chance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodistill.core.errors import TeacherError
from autodistill.core.records import MULTILABEL
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.loop import decisions, measures
from autodistill.training.teachers import multilabel_checks
from autodistill.training.teachers.teacher import LOGITS, PROBABILITIES, Teacher

Ints = np.ndarray[Any, np.dtype[np.int64]]
Ask = Callable[[Teacher, Split], Tensor]
"""A function that returns a teacher's logits ``(n, classes)`` of some images."""

_FEED = (
    "its input was {}. Set the input that it was trained with: --set teacher.options.image_size=N, "
    "--set 'teacher.options.mean=[R, G, B]', --set 'teacher.options.std=[R, G, B]' (docs/how_to/own_teacher.md)."
)
_NORMALIZATIONS: tuple[dict[str, Any], ...] = (
    {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},  # ImageNet; used by most networks of timm
    {"mean": [0.5], "std": [0.5]},
    {"mean": [0.0], "std": [1.0]},
)
"""The most common normalizations."""

_SAMPLE = 256  # images; enough to tell a teacher from chance, and one or two seconds even for a large one
_FEW = 32  # images; enough to tell probabilities from logits
_ROUNDING = 1e-3
"""Tolerance of the sum of probabilities, which may have 16 bits or be rounded to a few digits."""

LABEL_MERIT = "average_precision"
"""Measure by which teachers of several labels per image are compared."""

_SIGMAS = 4.0
"""Standard errors by which the accuracy must exceed the share of the most frequent class."""


@dataclass(frozen=True)
class Preflight:
    """Result of the check of a teacher.

    Attributes:
        name: source from which the teacher was loaded.
        accuracy: accuracy on the validation images, as a fraction; with several labels per image the share of images
            whose labels are all right.
        chance: share of the most frequent class; with several labels per image one half, the area under the
            ROC curve of guessing.
        classes: number of classes.
        image_size: pixels per side of the teacher's input.
        images: number of validation images.
        images_per_second: speed of the outputs, computed or read from the cache.
        weak: whether the accuracy is no better than chance (accepted with ``accept_weak``).
        measures: with several labels per image, further measures by name.
    """

    name: str
    accuracy: float
    chance: float
    classes: int
    image_size: int
    images: int
    images_per_second: float
    weak: bool = False
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def merit(self) -> float:
        """The measure by which teachers are compared: accuracy; with several labels per image average precision."""
        return self.measures.get(LABEL_MERIT, self.accuracy)

    @property
    def merit_words(self) -> str:
        """Name and value of :attr:`merit`: ``accuracy 0.9712``."""
        return f"{'mAP' if LABEL_MERIT in self.measures else 'accuracy'} {self.merit:.4f}"

    @property
    def values(self) -> dict[str, float]:
        """The teacher's metrics, under the names of the students' metrics."""
        return {"accuracy": self.accuracy, **self.measures}

    def to_json(self) -> dict[str, Any]:
        """Return the result as a dictionary, as stored with the study."""
        return asdict(self)


def preflight(
    teacher: Teacher, data: ImageData, *, accept_weak: bool = False, batch_size: int = 256, ask: Ask | None = None
) -> Preflight:
    """Check ``teacher`` on all validation images.

    Args:
        teacher: teacher to check.
        data: the images.
        accept_weak: accept an accuracy at the level of chance, and classes that seem to be in another order.
        batch_size: images per forward pass.
        ask: function that returns a teacher's logits of some images, e.g. from a cache; by default the teacher is run.

    Raises:
        TeacherError: the class count is wrong, the network fails on these images, its output is not finite or
            consists of probabilities, its accuracy is at the level of chance, or another order of the classes would
            double it.
    """
    start = time.monotonic()
    try:
        logits = answers(teacher, data.val, batch_size=batch_size) if ask is None else ask(teacher, data.val)
    except TeacherError:  # outputs that cannot be cached are checked directly, for a better message
        logits = answers(teacher, data.val, batch_size=batch_size)
        ask = None
    seconds = time.monotonic() - start
    if teacher.by_id and data.unlabelled is not None:
        teacher.of_ids(torch.from_numpy(data.unlabelled.ids))  # fails now instead of in the first trial
    if logits.shape[1] != len(data.classes):
        raise TeacherError(
            f"teacher {teacher.name} gives {logits.shape[1]} logits per image; the data has {len(data.classes)} "
            "classes. Choose or train a teacher for these classes, or select its outputs with the option class_map, "
            "a list with one output position per class."
        )
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits).all(1)).sum())
        if any(one.preprocessing.outputs == PROBABILITIES for one in _single(teacher)):
            raise TeacherError(
                f"teacher {teacher.name} gives numbers that have no logarithm for {bad} of {len(logits)} validation "
                f"images, although its option outputs is {PROBABILITIES}. Remove the option if it gives logits."
            )
        raise TeacherError(
            f"teacher {teacher.name} gives numbers that are not finite for {bad} of {len(logits)} validation images. "
            f"Its weights are damaged, or its input is not what it expects: {_FEED.format(teacher.preprocessing)}"
        )
    for one in _single(teacher):
        _refuse_probabilities(one, data, ask or answers)
    if data.kind == MULTILABEL:
        return _of_labels(teacher, data, logits, accept_weak=accept_weak, seconds=seconds)
    labels = data.val.labels
    decided = logits.argmax(1).numpy()
    accuracy = float((decided == labels).mean())
    chance = float(np.bincount(labels).max() / len(labels))
    weak = accuracy <= _least(chance, len(labels))
    order = [] if accept_weak else _better_order(decided, labels, len(data.classes), max(2 * accuracy, chance + 0.2))
    if order:
        raise TeacherError(_accuracy_text(teacher, accuracy, chance) + _reordered(teacher, decided, labels, order))
    if weak and not accept_weak:
        raise TeacherError(_too_weak(teacher, accuracy, chance, data))
    speed = len(labels) / max(seconds, 1e-9)
    size = teacher.image_size
    return Preflight(teacher.name, accuracy, chance, len(data.classes), size, len(labels), speed, weak)


def _of_labels(teacher: Teacher, data: ImageData, logits: Tensor, *, accept_weak: bool, seconds: float) -> Preflight:
    """Judge a teacher of several labels per image by its AUROC, and by that of its outputs in another order."""
    labels, outputs = data.val.labels, logits.double().numpy()
    area, least = multilabel_checks.mean_area(outputs, labels), multilabel_checks.least_area(labels)
    order, best = ([], area) if accept_weak else multilabel_checks.better_order(outputs, labels)
    text = (
        f"teacher {teacher.name} ranks the validation images with an area under the ROC curve of {area:.3f}, mean over "
        f"{len(data.classes)} labels, rare ones counted less; guessing gives {multilabel_checks.CHANCE:g}. "
    )
    if order:
        raise TeacherError(text + _other_order(teacher, f"its area is {best:.3f}", order))
    weak = area <= least
    if weak and not accept_weak:
        raise TeacherError(
            f"{text}More than {least:.3f} is needed on these {len(labels):,} images. Its classifier may be random "
            f"(weights missing), or its input is not what it expects: {_FEED.format(teacher.preprocessing)} To use it "
            "anyway, set accept_weak: true below teacher (--set teacher.accept_weak=true)."
        )
    speed = len(labels) / max(seconds, 1e-9)
    accuracy, chance = decisions.accuracy(outputs, labels), multilabel_checks.CHANCE
    count, size = len(data.classes), teacher.image_size
    found = measures.compute(outputs, labels)
    return Preflight(teacher.name, accuracy, chance, count, size, len(labels), speed, weak, found)


def _single(teacher: Teacher) -> list[Teacher]:
    """Return the members of an ensemble, or the teacher itself in a list."""
    return [one for _, member in teacher.members for one in _single(member)] if teacher.members else [teacher]


def _refuse_probabilities(teacher: Teacher, data: ImageData, ask: Ask) -> None:
    """Raise a TeacherError if the outputs are probabilities and the option ``outputs`` is not set.

    The softmax of probabilities is nearly the same for every image, so students would learn almost nothing from it.
    """
    if teacher.multilabel:
        _refuse_outputs_of_labels(teacher, data, ask)
        return
    if teacher.preprocessing.outputs:
        return
    some, chosen = _sample(data.val, _FEW), teacher.preprocessing.class_map
    if not chosen:
        given = ask(teacher, some)
    else:  # the sum must include all outputs, not only those in class_map
        given = answers(replace(teacher, preprocessing=replace(teacher.preprocessing, class_map=())), some)
    shares = given.min() >= 0 and given.max() <= 1 and (given.sum(1) - 1).abs().max() <= _ROUNDING
    if not shares:
        return
    raise TeacherError(
        f"teacher {teacher.name} gives probabilities: its outputs lie between 0 and 1 and sum to 1 for every image. "
        f"Students learn from logits: set --set teacher.options.outputs={PROBABILITIES} to use their logarithm, "
        f"or remove the softmax from the network. If they are logits nevertheless, set outputs={LOGITS}."
    )


def _refuse_outputs_of_labels(teacher: Teacher, data: ImageData, ask: Ask) -> None:
    """Raise a TeacherError if the outputs are a softmax, or sigmoids without the option that says so."""
    given = teacher.preprocessing.outputs
    if teacher.by_id and not given:
        outputs = ask(teacher, _sample(data.val, _FEW)).numpy()
    else:  # all outputs as they are, not only those of the class_map, and not converted to logits
        plain = replace(teacher, preprocessing=replace(teacher.preprocessing, class_map=(), outputs=LOGITS))
        outputs = answers(plain, _sample(data.val, _FEW)).numpy()
    kind = multilabel_checks.kind_of_outputs(outputs)
    if kind == "softmax" and given != LOGITS:
        raise TeacherError(
            f"teacher {teacher.name} gives a softmax: its outputs sum to 1 for every image, so it tells classes that "
            "exclude each other, which cannot serve task: multilabel. It needs a logit or a sigmoid for each label; "
            f"train one with `autodistill teach --task multilabel`. If they are logits nevertheless, set "
            f"--set teacher.options.outputs={LOGITS}."
        )
    if kind == "sigmoid" and not given:
        raise TeacherError(
            f"teacher {teacher.name} gives probabilities of labels (sigmoids): its outputs lie between 0 and 1 and do "
            f"not sum to 1. Students learn from logits: set --set teacher.options.outputs={PROBABILITIES} to convert "
            f"them, or remove the sigmoid from the network. If they are logits nevertheless, set outputs={LOGITS}."
        )
    if kind == "logits" and given == PROBABILITIES:
        raise TeacherError(
            f"teacher {teacher.name} gives outputs from {outputs.min():.3g} to {outputs.max():.3g}, although its "
            f"option outputs is {PROBABILITIES}. Remove the option if it gives logits."
        )


def check_enough(data: ImageData) -> None:
    """Check, before a teacher is trained, that there are enough validation images for any teacher to pass.

    Raises:
        TeacherError: there are too few; the message gives the number needed.
    """
    if data.kind == MULTILABEL:
        _check_enough_of_labels(data)
        return
    images, most = len(data.val.labels), np.bincount(data.val.labels).max()
    chance = float(most / images)
    if _least(chance, images) < 1.0:
        return
    needed = int(_SIGMAS**2 * chance / (1 - chance)) + 1
    everything = math.ceil(needed / images * data.pool_size)
    half = " use half of them for validation (--set data.val_fraction=0.5)," if 2 * needed <= data.pool_size else ""
    raise TeacherError(
        f"with {images} validation images, even a perfect teacher cannot be distinguished from guessing the most "
        f"frequent class ({chance:.1%}); at least {needed} are needed. Add images (about {everything} in total for "
        f"training and validation),{half} or continue anyway: --set teacher.accept_weak=true."
    )


def _check_enough_of_labels(data: ImageData) -> None:
    if multilabel_checks.least_area(data.val.labels) < 1.0:
        return
    images, needed = len(data.val.labels), multilabel_checks.images_needed(data.val.labels)
    raise TeacherError(
        f"with {images} validation images, even a perfect teacher of these labels cannot be distinguished from "
        f"guessing; about {needed} are needed. Add images, use more of them for validation "
        "(--set data.val_fraction=0.5), or continue anyway: --set teacher.accept_weak=true."
    )


def _least(chance: float, images: int) -> float:
    """Return the accuracy that a teacher must exceed, ``_SIGMAS`` standard errors above chance."""
    return chance + _SIGMAS * math.sqrt(chance * (1 - chance) / images)


def answers(teacher: Teacher, split: Split, *, batch_size: int = 256) -> Tensor:
    """Compute teacher logits ``(n, classes)``, fp32 on the CPU, of a split's plain images.

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
                f"teacher {teacher.name} fails on images of shape {shape}: {error}. Set its input: "
                "--set teacher.options.image_size=N, --set teacher.options.channels=N."
            ) from error
    return torch.cat(out)


def _accuracy_text(teacher: Teacher, accuracy: float, chance: float) -> str:
    return (
        f"teacher {teacher.name} is right on {accuracy:.1%} of the validation images; always guessing the most "
        f"frequent class gives {chance:.1%}. "
    )


def _reordered(teacher: Teacher, decided: Ints, labels: Ints, order: list[int]) -> str:
    best = float((decided == np.asarray(order)[labels]).mean())
    return _other_order(teacher, f"it is right on {best:.1%}", order)


def _other_order(teacher: Teacher, result: str, order: list[int]) -> str:
    chosen = teacher.preprocessing.class_map
    mended = [chosen[output] for output in order] if chosen else order
    return (
        f"With its classes in another order {result}: set the teacher option class_map to {mended} "
        f"(--set 'teacher.options.class_map={mended}'), or fix the order of the class folders. To use it "
        "anyway: --set teacher.accept_weak=true."
    )


def _too_weak(teacher: Teacher, accuracy: float, chance: float, data: ImageData) -> str:
    """Return the error message with a likely reason: too few images, random classifier, wrong size or normalization."""
    text = _accuracy_text(teacher, accuracy, chance)
    anyway = "To use it anyway, set accept_weak: true below teacher (--set teacher.accept_weak=true)."
    images = len(data.val.labels)
    if accuracy > chance + 0.2:
        return f"{text}So few images ({images:,}) cannot distinguish it from chance: add validation images. {anyway}"
    best, options = fed_otherwise(teacher, data)
    if best > max(2 * accuracy, chance + 0.2):
        given = teacher.preprocessing
        return f"{text}Its input was {given}. With other input it is right on {best:.1%}: {_flags(options)}"
    return (
        f"{text}Its classifier may be random (weights missing), or its input is not what it expects: "
        f"{_FEED.format(teacher.preprocessing)} {anyway}"
    )


def fed_otherwise(teacher: Teacher, data: ImageData) -> tuple[float, dict[str, Any]]:
    """Return the highest accuracy with another common size and normalization of the input, and these options.

    Args:
        teacher: a teacher that failed its preflight.
        data: the images; a few hundred validation images are used.
    """
    best, found = 0.0, dict[str, Any]()
    if teacher.network is None:
        return best, found
    some = _sample(data.val, _SAMPLE)
    usual = [one for one in _NORMALIZATIONS if len(one["mean"]) in (1, teacher.preprocessing.channels)]
    for size in dict.fromkeys([teacher.image_size, data.image_size]):
        for normalization in ({}, *usual):
            options = {**normalization, **({} if size == teacher.image_size else {"image_size": size})}
            changed = replace(teacher, preprocessing=teacher.preprocessing.override(options))
            try:
                right = float((answers(changed, some).argmax(1).numpy() == some.labels).mean())
            except TeacherError:  # the network accepts one size only
                continue
            if right > best:
                best, found = right, options
    return best, found


def _sample(split: Split, count: int) -> Split:
    """Return at most ``count`` evenly spaced images of a split, because it may be sorted by class."""
    every = slice(None, None, math.ceil(len(split) / count))
    return Split(split.images[every], split.labels[every], split.ids[every])


def _flags(options: dict[str, Any]) -> str:
    return " ".join(f"--set 'teacher.options.{name}={value}'" for name, value in options.items())


def _better_order(decided: Ints, labels: Ints, classes: int, least: float) -> list[int]:
    """Return each class's output position in the best order of outputs; empty if its accuracy is at most ``least``.

    With few images of many classes, some order always fits by chance. The order is therefore found on half of the
    images of each class, and its accuracy is measured on the other half.
    """
    by_class = np.argsort(labels, kind="stable")
    found, kept = by_class[::2], by_class[1::2]
    _, order = _best_order(decided[found], labels[found], classes)
    if not len(kept) or (decided[kept] == np.asarray(order)[labels[kept]]).mean() <= least:
        return []
    return _best_order(decided, labels, classes)[1]


def _best_order(decided: Ints, labels: Ints, classes: int) -> tuple[float, list[int]]:
    """Return the highest accuracy of any one-to-one assignment of outputs to classes, and the output of each class."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, decided), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(labels)), [int(column) for column in columns]
