"""Glossary of a report."""

from __future__ import annotations

from autodistill.delivery.report.tables import Table
from autodistill.search.results.gain import BASIS

_WORDS = {
    "alpha": "weight of the teacher's signal in the loss; 1 - alpha is the weight of the labels",
    "bytes, onnx_bytes": "in the search: size of the deployed form (layers fused) as a safetensors file without "
    "metadata, and as an ONNX file. 'ONNX bytes' of a verification is the size of the exported file. The "
    "model.safetensors written by 'export' holds the trained form, for timm, and is larger; for an int8 form, bytes is "
    "the size of its ONNX file",
    "ECE": "expected calibration error: mean difference between the confidence and the share of correct predictions "
    "(15 bins); 0 is best",
    "gain": "if verified, accuracy minus that of the twin; 'more than chance' if at least two seeds give a 95 % "
    f"interval that excludes zero, which happens by chance in one of twenty cases. In the search, {BASIS}",
    "front": "students that no other student beats in every objective (Pareto front)",
    "flattered by": "accuracy in the search minus the mean of new seeds on the same validation images: the effect of "
    "luck and selection, without the difference between validation and test images",
    "hypervolume": "share of the reference box (from the worst values that count to the best values) that the front "
    "dominates; it grows when a better student is found",
    "kd, dkd, nkd, dist": "distillation losses: softened labels (Hinton 2015), decoupled (Zhao 2022), normalised (Yang "
    "2023), correlation of the classes (Huang 2022)",
    "soft_ce, hard, logit_mse, logit_std": "further distillation losses: cross-entropy with the teacher's softened "
    "labels, with its predicted class as label, squared difference of logits, kd on standardized logits; 'none' is "
    "training with labels only",
    "knee": "the student nearest to the best values of all objectives, scaled to the range of the front: a good "
    "compromise",
    "latency p50": "the median time of one batch on the study's target; 'export' and 'verify' measure the exported "
    "file",
    "rung": "an epoch at which trials are compared, and the less promising ones are stopped",
    "teacher": "the given classifier that the students learn from",
    "temperature": "divisor of the teacher's logits: above 1, less likely classes have more weight",
    "twin": "in a verification, the same student and training without the teacher: the difference is the gain from "
    "distillation",
    "validation, test": "images by which the search selected students, and images that only verification opened",
}


def glossary() -> Table:
    """Return the glossary as a table."""
    return Table(("word", "what it means here"), tuple(sorted(_WORDS.items(), key=lambda row: row[0].lower())))
