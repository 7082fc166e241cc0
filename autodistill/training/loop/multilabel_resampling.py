"""Measures of several labels per image for resampled images, see ``resampling.py``.

Images are drawn as a whole, with all their labels. A label that no drawn image has is left out of that drawing's means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from autodistill.training.loop import measures
from autodistill.training.loop.decisions import Floats, Labels, is_right
from autodistill.training.loop.multilabel_measures import calibration_error, multilabel_measures
from autodistill.training.loop.resampling import DRAWINGS, Counts, drawings_of, draws, one_by_one, ranking, rows_of


def resampled_labels(
    logits: Floats,
    labels: Labels,
    teacher: Floats | None = None,
    own: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return each measure of every drawing, by name.

    Args:
        logits: ``(n, labels)``.
        labels: ``(n, labels)`` of 0 and 1.
        teacher: teacher logits ``(n, labels)``, for ``agreement``.
        own: measures of the study's own, name to ``module:function``.
        seed: seed of the drawings.

    Returns:
        ``accuracy``, ``loss``, every registered measure, those of ``own`` and, with ``teacher``, ``agreement``: arrays
        ``(drawings,)``. A measure that is not finite for some drawing is left out.
    """
    drawn = draws(np.zeros(len(labels), dtype=np.int64), DRAWINGS, seed)
    fewer = drawn[: drawings_of(labels.shape[0], labels.shape[1])]
    surprise = (np.logaddexp(0.0, logits) - labels * logits).sum(axis=1)
    each = {"accuracy": is_right(logits, labels), "loss": surprise, "log_loss": surprise}
    if teacher is not None:
        each["agreement"] = ((logits > 0) == (teacher > 0)).mean(axis=1)
    found = {name: drawn @ np.asarray(values, dtype=np.float64) / len(labels) for name, values in each.items()}
    found |= _of_decisions(logits > 0, labels > 0, drawn)
    found |= _of_rankings(logits, labels > 0, fewer)
    found["ece"] = np.asarray([calibration_error(logits[rows], labels[rows]) for rows in rows_of(fewer)])
    others = {name: multilabel_measures.get(name) for name in multilabel_measures.names() if name not in found}
    others |= {name: measures.load_measure(where) for name, where in (own or {}).items()}
    for name, measure in others.items():
        if (values := one_by_one(measure, logits, labels, fewer)) is not None:
            found[name] = values
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _of_decisions(decided: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_], drawn: Counts) -> dict[str, Floats]:
    """Return the measures of recall and F1 score, from the counts of each label ``(drawings, labels)``."""
    hits, named, images = (drawn @ one.astype(np.float64) for one in (decided & present, decided, present))
    known = images > 0
    if not known.any(axis=1).all():  # a drawing without any label
        return {}
    recalls = np.where(known, hits / np.maximum(images, 1), np.nan)
    scores = np.where(known, 2 * hits / np.maximum(images + named, 1), np.nan)
    total = images.sum(axis=1) + named.sum(axis=1)
    return {
        "macro_recall": np.nanmean(recalls, axis=1),
        "worst_recall": np.nanmin(recalls, axis=1),
        "macro_f1": np.nanmean(scores, axis=1),
        "worst_f1": np.nanmin(scores, axis=1),
        "micro_f1": 2 * hits.sum(axis=1) / np.maximum(total, 1),
    }


def _of_rankings(logits: Floats, present: npt.NDArray[np.bool_], drawn: Counts) -> dict[str, Floats]:
    """Return area under the ROC curve and average precision, mean over the labels that vary in a drawing."""
    shares = present.mean(axis=0)
    areas, precisions = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for label in np.flatnonzero((shares > 0) & (shares < 1)):
            area, precision = ranking(logits[:, label], present[:, label], drawn)
            varies = np.isfinite(area)  # the drawing has images with and without the label
            areas.append(np.where(varies, area, np.nan))
            precisions.append(np.where(varies, precision, np.nan))
    if not areas or np.isnan(areas).all(axis=0).any():  # a drawing in which no label varies
        return {}
    return {"auroc": np.nanmean(areas, axis=0), "average_precision": np.nanmean(precisions, axis=0)}
