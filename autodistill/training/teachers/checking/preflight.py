"""Checks of a teacher before the first trial: whether it classifies the study's images better than chance.

The single checks are the other modules of this folder; this one calls them in order, and says what mends a teacher
that fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodistill.core.errors import TeacherError
from autodistill.core.records import MULTILABEL
from autodistill.core.wording import counted
from autodistill.training.data.datasets import ImageData
from autodistill.training.loop.trainer import scores
from autodistill.training.teachers.answers import Ask, answers, sample, single
from autodistill.training.teachers.checking import labels as of_labels
from autodistill.training.teachers.checking.chance import (
    above_chance,
    balanced_accuracy,
    enough_images,
    never_decided,
    share_of_most_frequent,
)
from autodistill.training.teachers.checking.class_order import Ints, better_order, exchanged
from autodistill.training.teachers.checking.consistency import check_consistent
from autodistill.training.teachers.checking.labels import refuse_outputs
from autodistill.training.teachers.checking.output_kind import refuse_probabilities
from autodistill.training.teachers.teacher import PROBABILITIES, SIGMOID, Teacher

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
_NAMED = 5  # classes in a message


@dataclass(frozen=True)
class Preflight:
    """Result of the check of a teacher.

    Attributes:
        name: source from which the teacher was loaded.
        accuracy: accuracy on the validation images, as a fraction.
        chance: share of the most frequent class.
        classes: number of classes.
        image_size: pixels per side of the teacher's input.
        images: number of validation images.
        images_per_second: speed of the outputs, computed or read from the cache.
        weak: whether neither accuracy nor balanced accuracy is better than chance (accepted with ``accept_weak``).
        measures: every measure on the validation images, by name, accuracy among them.
        notes: sentences about what does not stop the search, e.g. classes that are never decided.
        several: whether an image has any number of labels; an image then counts for the accuracy if all are right, and
            ``chance`` is one half, the area under the ROC curve of guessing.
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
    notes: tuple[str, ...] = ()
    several: bool = False

    @property
    def merit(self) -> float:
        """The measure by which teachers are compared: accuracy; with several labels per image average precision."""
        return self.measures["average_precision"] if self.several else self.accuracy

    @property
    def merit_words(self) -> str:
        """Name and value of :attr:`merit`: ``accuracy 0.9712``."""
        return f"{'mAP' if self.several else 'accuracy'} {self.merit:.4f}"

    @property
    def values(self) -> dict[str, float]:
        """The teacher's metrics, under the names of the students' metrics."""
        return {**self.measures, "accuracy": self.accuracy}

    def to_json(self) -> dict[str, Any]:
        """Return the result as a dictionary, as stored with the study."""
        return asdict(self)


def preflight(
    teacher: Teacher,
    data: ImageData,
    *,
    accept_weak: bool = False,
    batch_size: int = 256,
    ask: Ask | None = None,
    memory: Path | None = None,
    own: Mapping[str, str] | None = None,
) -> Preflight:
    """Check ``teacher`` on all validation images.

    Args:
        teacher: teacher to check.
        data: the images.
        accept_weak: accept an accuracy at the level of chance, and classes that seem to be in another order.
        batch_size: images per forward pass.
        ask: function that returns a teacher's logits of some images, e.g. from a cache; by default the teacher is run.
        memory: cache folder that remembers teachers whose answers are consistent.
        own: measures of the study's own, name to ``module:function``.

    Raises:
        TeacherError: the class count is wrong, the network fails on these images, its output is not finite, differs
            when it is asked again, or consists of probabilities; its accuracy is at the level of chance, or another
            order of the classes would double it, or some classes are exchanged.
    """
    check_consistent(teacher, data, memory=memory)  # first: the answers of others must not be stored
    start = time.monotonic()
    try:
        logits = answers(teacher, data.val, batch_size=batch_size) if ask is None else ask(teacher, data.val)
    except TeacherError:  # outputs that cannot be cached are checked directly, for a better message
        logits = answers(teacher, data.val, batch_size=batch_size)
        ask = None
    seconds = time.monotonic() - start
    if teacher.by_id and data.unlabelled is not None:
        teacher.of_ids(torch.from_numpy(data.unlabelled.ids))  # fails now instead of in the first trial
    if data.kind == MULTILABEL:
        for one in single(teacher):  # first: a wrong option would give numbers that are not finite
            refuse_outputs(one, data)
        _check_numbers(teacher, logits, data)
        return _of_labels(teacher, data, logits, accept_weak=accept_weak, seconds=seconds, own=own)
    _check_numbers(teacher, logits, data)
    for one in single(teacher):
        refuse_probabilities(one, data, ask or answers)
    labels = data.val.labels
    decided = logits.argmax(1).numpy()
    accuracy = float((decided == labels).mean())
    chance = share_of_most_frequent(labels)
    if not accept_weak:
        _refuse_other_order(teacher, decided, data, max(2 * accuracy, chance + 0.2))
    weak = not above_chance(decided, labels)
    if weak and not accept_weak:
        raise TeacherError(_too_weak(teacher, decided, data))
    found = scores(logits, torch.from_numpy(labels), None, own)
    notes = [*_never_decided(teacher, decided, data), *_flattered(teacher, data)]
    return Preflight(
        teacher.name,
        accuracy,
        chance,
        len(data.classes),
        teacher.image_size,
        len(labels),
        len(labels) / max(seconds, 1e-9),
        weak,
        found,
        tuple(notes),
    )


def _of_labels(
    teacher: Teacher,
    data: ImageData,
    logits: Tensor,
    *,
    accept_weak: bool,
    seconds: float,
    own: Mapping[str, str] | None,
) -> Preflight:
    """Judge a teacher of several labels per image by its area under the ROC curve, and with its outputs reordered."""
    truth, outputs = data.val.labels, logits.double().numpy()
    area, least = of_labels.mean_area(outputs, truth), of_labels.least_area(truth)
    order, best = ([], area) if accept_weak else of_labels.better_order(outputs, truth)
    text = (
        f"teacher {teacher.name} ranks the validation images with an area under the ROC curve of {area:.3f}, mean over "
        f"{len(data.classes)} labels, rare ones counted less; guessing gives {of_labels.CHANCE:g}. "
    )
    if order:
        raise TeacherError(text + _other_order(teacher, f"its area is {best:.3f}", order))
    weak = area <= least
    if weak and not accept_weak:
        raise TeacherError(
            f"{text}More than {least:.3f} is needed on these {len(truth):,} images. Its classifier may be random "
            f"(weights missing), or its input is not what it expects: {_FEED.format(teacher.preprocessing)} To use it "
            "anyway, set accept_weak: true below teacher (--set teacher.accept_weak=true)."
        )
    found = scores(logits, torch.from_numpy(truth), None, own)
    return Preflight(
        teacher.name,
        found["accuracy"],
        of_labels.CHANCE,
        len(data.classes),
        teacher.image_size,
        len(truth),
        len(truth) / max(seconds, 1e-9),
        weak,
        found,
        tuple(_flattered(teacher, data)),
        several=True,
    )


def _check_numbers(teacher: Teacher, logits: Tensor, data: ImageData) -> None:
    """Refuse another number of logits than there are classes, and logits that are not finite."""
    if logits.shape[1] != len(data.classes):
        one = (
            " For two classes, a network with one logit z has to return both: torch.cat([-z, z], 1) / 2, in a "
            "function given as module:factory."
            if logits.shape[1] == 1 and len(data.classes) == 2
            else ""
        )
        raise TeacherError(
            f"teacher {teacher.name} gives {logits.shape[1]} logits per image; the data has {len(data.classes)} "
            "classes. Choose or train a teacher for these classes, or select its outputs with the option class_map, "
            f"a list with one output position per class.{one}"
        )
    if bool(torch.isfinite(logits).all()):
        return
    bad = int((~torch.isfinite(logits).all(1)).sum())
    options = {one.preprocessing.outputs for one in single(teacher)} & {PROBABILITIES, SIGMOID}
    for outputs in sorted(options):
        what = "logarithm" if outputs == PROBABILITIES else "log-odds"
        raise TeacherError(
            f"teacher {teacher.name} gives numbers that have no {what} for {bad} of {len(logits)} validation "
            f"images, although its option outputs is {outputs}. Remove the option if it gives logits."
        )
    raise TeacherError(
        f"teacher {teacher.name} gives numbers that are not finite for {bad} of {len(logits)} validation images. "
        f"Its weights are damaged, or its input is not what it expects: {_FEED.format(teacher.preprocessing)}"
    )


def _refuse_other_order(teacher: Teacher, decided: Ints, data: ImageData, least: float) -> None:
    """Refuse a teacher that would be right far more often with its classes in another order, or some exchanged."""
    labels, classes = data.val.labels, len(data.classes)
    order = better_order(decided, labels, classes, least)
    if order:
        raise TeacherError(_accuracy_text(teacher, decided, labels) + _reordered(teacher, decided, labels, order))
    order = exchanged(decided, labels, classes)
    if order:
        raise TeacherError(
            f"teacher {teacher.name} exchanges classes: {_exchanges(decided, data, order)}. "
            + _reordered(teacher, decided, labels, order)
        )


def _exchanges(decided: Ints, data: ImageData, order: list[int]) -> str:
    """Describe the classes that are decided as others."""
    moved = [c for c in range(len(order)) if order[c] != c]
    words = []
    for c in moved[:_NAMED]:
        mine = decided[data.val.labels == c]
        share = float((mine == order[c]).mean())
        words.append(f"{share:.0%} of the images of {data.classes[c]!r} are called {data.classes[order[c]]!r}")
    return ", ".join(words) + (f", and {len(moved) - _NAMED} more classes" if len(moved) > _NAMED else "")


def _never_decided(teacher: Teacher, decided: Ints, data: ImageData) -> list[str]:
    """Say which classes with validation images the teacher never names."""
    never = never_decided(decided, data.val.labels)
    if not never:
        return []
    images = int(np.isin(data.val.labels, never).sum())
    named = ", ".join(data.classes[c] for c in never[:_NAMED]) + (" …" if len(never) > _NAMED else "")
    return [
        f"{_called(teacher)} never names {len(never)} of {len(data.classes)} classes ({named}), which have "
        f"{counted(images, 'validation image')}: students will hardly learn them from it"
    ]


def _flattered(teacher: Teacher, data: ImageData) -> list[str]:
    """Say that a teacher may have been trained on the validation images, which makes it look better than it is."""
    if not data.held_out:
        return []
    origins = [one.trained_on for one in single(teacher)]
    if all(one is not None and (one.elsewhere or data.held_out == one.held_out) for one in origins):
        return []
    where = "the validation images were split off the training images"
    mend = "give validation images of their own (a folder val/ beside train/), or train the teacher on this split"
    if any(one is not None and one.data == data.fingerprint and one.held_out for one in origins):
        return [
            f"{where}, and {_called(teacher)} was trained with another split of the same images: it has seen some of "
            f"them, so its accuracy is flattered; {mend} (the same data.seed and data.val_fraction)"
        ]
    return [f"{where}: if {_called(teacher)} was trained on all of them, its accuracy is flattered; {mend}"]


def _called(teacher: Teacher) -> str:
    """Return the teacher's name without folders: notes are shown in reports, which are passed on."""
    return f"the teacher {teacher.name.replace(chr(92), '/').rpartition('/')[2]}"


def check_enough(data: ImageData) -> None:
    """Check, before a teacher is trained, that there are enough validation images for any teacher to pass.

    Raises:
        TeacherError: there are too few; the message gives the number needed.
    """
    if data.kind == MULTILABEL:
        _check_enough_of_labels(data)
        return
    labels = data.val.labels
    if above_chance(labels, labels):
        return
    images, needed = len(labels), enough_images(labels)
    everything = math.ceil(needed / images * data.pool_size)
    half = " use half of them for validation (--set data.val_fraction=0.5)," if 2 * needed <= data.pool_size else ""
    raise TeacherError(
        f"with {images} validation images, even a perfect teacher cannot be distinguished from guessing the most "
        f"frequent class ({share_of_most_frequent(labels):.1%}); at least {needed} are needed. Add images (about "
        f"{everything} in total for training and validation),{half} or continue anyway: "
        "--set teacher.accept_weak=true."
    )


def _check_enough_of_labels(data: ImageData) -> None:
    if of_labels.least_area(data.val.labels) < 1.0:
        return
    images, needed = len(data.val.labels), of_labels.images_needed(data.val.labels)
    raise TeacherError(
        f"with {images} validation images, even a perfect teacher of these labels cannot be distinguished from "
        f"guessing; about {needed} are needed. Add images, use more of them for validation "
        "(--set data.val_fraction=0.5), or continue anyway: --set teacher.accept_weak=true."
    )


def _accuracy_text(teacher: Teacher, decided: Ints, labels: Ints) -> str:
    accuracy, chance = float((decided == labels).mean()), share_of_most_frequent(labels)
    classes = len(np.unique(labels))
    balanced = (
        f" Its balanced accuracy (mean recall of the classes) is {balanced_accuracy(decided, labels):.1%}; guessing "
        f"gives {1 / classes:.1%}."
        if chance > 1.5 / classes
        else ""
    )
    return (
        f"teacher {teacher.name} is right on {accuracy:.1%} of the validation images; always guessing the most "
        f"frequent class gives {chance:.1%}.{balanced} "
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


def _too_weak(teacher: Teacher, decided: Ints, data: ImageData) -> str:
    """Return the error message with a likely reason: too few images, random classifier, wrong size or normalization."""
    labels = data.val.labels
    accuracy, chance = float((decided == labels).mean()), share_of_most_frequent(labels)
    text = _accuracy_text(teacher, decided, labels)
    anyway = "To use it anyway, set accept_weak: true below teacher (--set teacher.accept_weak=true)."
    images = len(labels)
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
    some = sample(data.val, _SAMPLE)
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


def _flags(options: dict[str, Any]) -> str:
    return " ".join(f"--set 'teacher.options.{name}={value}'" for name, value in options.items())
