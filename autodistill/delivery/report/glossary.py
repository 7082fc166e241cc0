"""What the words of a report mean, for readers who have nothing else."""

from __future__ import annotations

from autodistill.delivery.report.tables import Table
from autodistill.search.results.gain import BASIS

_WORDS = {
    "alpha": "weight of the teacher's signal in the loss; what is left of 1 is the weight of the labels",
    "bytes, onnx_bytes": "of the search: the deployed form (layers fused) as a safetensors file without metadata, and "
    "as an ONNX file. 'ONNX bytes' of a verification is the exported file. The model.safetensors that 'export' writes "
    "holds the trained form, for timm, and is larger; bytes of an int8 form are its ONNX file",
    "ECE": "expected calibration error: how far the stated confidence is from the share that is right (15 bins); 0 is "
    "best",
    "gain": "where verified, accuracy less that of the twin; 'more than chance' where two seeds or more say so with a "
    "95 % interval that excludes zero, "
    f"which one in twenty does by chance. In the search, {BASIS}",
    "front": "students that no other one beats in every objective (Pareto front)",
    "flattered by": "what the search had shown less the mean of fresh seeds, on the same validation images: luck and "
    "selection, not the step from validation to test",
    "hypervolume": "share of the reference box (from the worst values that count to the best ones) that the front "
    "dominates; it grows when a better student joins",
    "kd, dkd, nkd, dist": "distillation losses: softened labels (Hinton 2015), decoupled (Zhao 2022), normalised (Yang "
    "2023), correlation of the classes (Huang 2022)",
    "soft_ce, hard, logit_mse, logit_std": "further ones: cross-entropy with the teacher's softened labels, its first "
    "choice as the label, squared difference of logits, kd on standardized logits; 'none' is the labels alone",
    "knee": "the student nearest to the best values of all objectives, on axes that the front spans: a fair first pick",
    "latency p50": "the median time of one batch on the study's target; 'export' and 'verify' time the exported file",
    "rung": "an epoch at which trials are compared, and the less promising ones are stopped",
    "teacher": "the given classifier that the students learn from",
    "temperature": "divides the teacher's logits: above 1 its second choices count for more",
    "twin": "in a verification, the same student and training without the teacher: the difference is the gain from "
    "distillation",
    "validation, test": "images that the search chose by, and images that only verification opened",
}


def glossary() -> Table:
    """One row for each word."""
    return Table(("word", "what it means here"), tuple(sorted(_WORDS.items(), key=lambda row: row[0].lower())))
