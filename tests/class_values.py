"""A verification of any number of classes with confusion matrices, as tests of tables, figures and cards need it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from verified_values import STUDENT, TEACHER, VERIFIED

from autodistill.delivery.verify.statistics import mean_precisions, mean_recalls, summed_confusion
from autodistill.search.results.verified import Figure, Verified, VerifiedRow

IMAGES = 40


def confusion(recalls: list[float], taken_for: list[int], images: int = IMAGES) -> list[list[int]]:
    """Counts with these recalls, where all other images of a class are taken for one other class."""
    out = np.zeros((len(recalls), len(recalls)), dtype=int)
    for true, (recall, other) in enumerate(zip(recalls, taken_for, strict=True)):
        out[true, true] = round(recall * images)
        out[true, other] += images - round(recall * images)
    found: list[list[int]] = out.tolist()
    return found


def with_classes(row: VerifiedRow, *confusions: list[list[int]]) -> VerifiedRow:
    recalls, precisions = mean_recalls(confusions), mean_precisions(confusions)
    known = [recall for recall in recalls if recall is not None]
    balanced = Figure(float(np.mean(known)), 0.01, float(np.mean(known)) - 0.05, float(np.mean(known)) + 0.05)
    return replace(
        row,
        recalls=recalls,
        precisions=precisions,
        confusion=summed_confusion(confusions),
        measures={"balanced_accuracy": balanced},
    )


def verified(names: tuple[str, ...], student: list[float], teacher: list[float], *, seeds: int = 3) -> Verified:
    """A student and a teacher with these recalls; what is not recognised is taken for the next class."""
    following = [*range(1, len(names)), 0]
    row = with_classes(STUDENT, *[confusion(student, following)] * seeds)
    return replace(
        VERIFIED,
        rows=(row, with_classes(TEACHER, confusion(teacher, following))),
        classes=names,
        objectives=(("balanced_accuracy", "maximize"), ("params", "minimize")),
    )


FOUR = verified(("cat", "dog", "owl", "yak"), [0.9, 0.5, 0.0, 1.0], [0.95, 0.9, 0.8, 0.75])
"""The owl is lost most (0.8), then the dog (0.4), then the cat (0.05); the yak is recognised better."""
