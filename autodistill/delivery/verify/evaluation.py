"""Evaluation on the test split, which is opened once, after the last training has ended.

A result is a folder next to the run's student; it is either complete and hashed, or absent::

    DIR/verify/runs/KEY/result/     result.json: figures on validation and test, correctness of each image
"""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.training.loop.decisions import is_right
from autodistill.training.trials.run_result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from autodistill.training.data.datasets import Split
    from autodistill.training.students.student_input import StudentInput
    from autodistill.training.teachers.teacher import Teacher


FIELDS = ("accuracy", "loss", "ece", "agreement")
"""Measures that are fields of a result; the others are in a mapping."""

TUNED = "tuned_macro_f1"
"""Measure of several labels per image: mean F1 score with thresholds that were chosen on the validation images."""


@dataclass(frozen=True, eq=False)
class TestSplit:
    """The test images and the teacher's logits of them.

    Attributes:
        split: images and labels.
        fingerprint: hash of images and labels.
        teacher: teacher logits ``(n, classes)``; ``None`` for a teacher with stored logits only.
    """

    __test__ = False  # keeps pytest from collecting it because of its name

    split: Split
    fingerprint: str
    teacher: Tensor | None

    @staticmethod
    def open(task: Any, cache: Path, teacher: Teacher) -> TestSplit:
        """Read the test images; no other code of a study does so.

        Raises:
            DataError: there are no test images.
        """
        from autodistill.training.data import datasets
        from autodistill.training.data.sources.array_cache import content_hash
        from autodistill.training.teachers.answers import answers

        split = datasets.load_test(task.data, cache)
        logits = None if teacher.by_id else answers(teacher, split)
        return TestSplit(split, content_hash(split.images, split.labels), logits)

    def scores(self, logits: Tensor, own: Mapping[str, str] | None = None) -> dict[str, float]:
        """Compute accuracy, loss, every measure and, with teacher logits, agreement."""
        import torch

        from autodistill.training.loop.trainer import scores

        return scores(logits, torch.from_numpy(self.split.labels), self.teacher, own)

    def resampled(self, logits: Tensor, own: Mapping[str, str] | None = None) -> dict[str, NDArray[np.float64]]:
        """Compute every measure for resampled images, the same drawings for all networks: ``(drawings,)`` by name."""
        from autodistill.training.loop.multilabel_resampling import resampled_labels
        from autodistill.training.loop.resampling import resampled

        teacher = None if self.teacher is None else self.teacher.double().numpy()
        compute = resampled_labels if self.split.labels.ndim == 2 else resampled
        return compute(logits.double().numpy(), self.split.labels, teacher, own)

    def confusion(self, logits: Tensor) -> tuple[tuple[int, ...], ...]:
        """Images of each class (row) by the class that was decided (column); empty with several labels per image."""
        from autodistill.training.loop.measures import confusion

        if self.split.labels.ndim == 2:
            return ()
        return tuple(map(tuple, confusion(logits.double().numpy(), self.split.labels).tolist()))

    def label_counts(self, logits: Tensor) -> tuple[tuple[int, ...], ...]:
        """Images of each label: present and decided, only decided, only present, neither; empty with one class each."""
        from autodistill.training.loop.multilabel_measures import label_counts

        if self.split.labels.ndim == 1:
            return ()
        return tuple(map(tuple, label_counts(logits.double().numpy(), self.split.labels).tolist()))


def examine(
    folder: Path,
    test: TestSplit,
    *,
    refit: str,
    keep: bool,
    device: str = "cpu",
    own: Mapping[str, str] | None = None,
    validation: Split | None = None,
) -> Result:
    """Evaluate a finished run on the test split and store the result.

    Args:
        folder: folder of the run.
        test: the test images.
        refit: ``train`` or ``train+val``.
        keep: whether to keep the weights; otherwise they are deleted.
        device: device to run on.
        own: measures of the study's own, name to ``module:function``.
        validation: the validation images, on which the thresholds of several labels are chosen; without them there is
            no figure with tuned thresholds.

    Raises:
        StoreError: the run has no finished student.
    """
    from autodistill.training.runtime.durable_files import write_folder
    from autodistill.training.students.student_input import StudentInput
    from autodistill.training.trials.retraining import load_run

    model, facts = load_run(folder)
    logits = predict(model, test.split.images, StudentInput.of(facts), device=device)
    found = test.scores(logits, own)
    if validation is not None and test.split.labels.ndim == 2 and refit == "train":
        validated = predict(model, validation.images, StudentInput.of(facts), device=device)
        found[TUNED] = _tuned_f1(validated, validation, logits, test.split)
    last = facts["reports"][max(facts["reports"], key=int)]
    manifest = json.loads((folder / "student" / "MANIFEST.json").read_bytes())
    right = is_right(logits.numpy(), test.split.labels).astype(np.uint8)
    decided = logits.argmax(1).numpy() if test.split.labels.ndim == 1 else np.empty(0)
    result = Result(
        key=facts["key"],
        test=test.fingerprint,
        images=len(test.split),
        accuracy=found["accuracy"],
        loss=found["loss"],
        ece=found["ece"],
        agreement=found.get("agreement"),
        validation=last["values"]["accuracy"] if refit == "train" else None,
        right=_text(np.packbits(right)),
        seconds=facts["seconds"],
        weights=manifest["files"]["student.safetensors"]["sha256"],
        measures={name: value for name, value in found.items() if name not in FIELDS},
        confusion=test.confusion(logits),
        label_counts=test.label_counts(logits),
        decided=_text(decided.astype("<i4")),
        drawings={name: _text(values.astype("<f4")) for name, values in test.resampled(logits, own).items()},
    )
    write_folder(folder / "result", {"result.json": json.dumps(asdict(result), indent=1).encode()})
    if not keep:
        shutil.rmtree(folder / "student", ignore_errors=True)
    return result


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _tuned_f1(validated: Tensor, val: Split, logits: Tensor, test: Split) -> float:
    """Return the mean F1 score of the labels on the test images, with thresholds chosen as ``export`` chooses them.

    Args:
        validated: logits of the validation images ``(n, labels)``.
        val: the validation images.
        logits: logits of the test images.
        test: the test images.
    """
    from autodistill.training.loop.multilabel_measures import best_thresholds, label_f1

    cuts = best_thresholds(validated.double().numpy(), val.labels)
    f1 = label_f1(logits.double().numpy(), test.labels, cuts)
    return float(f1[test.labels.any(axis=0)].mean()) if test.labels.any() else 0.0


def predict(model: nn.Module, images: NDArray[np.uint8], given: StudentInput, *, device: str = "cpu") -> Tensor:
    """Compute logits ``(n, classes)``, fp32 on the CPU, of ``uint8`` images that the model is ``given``."""
    import torch

    model = model.to(device).eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(images), 512):
            pixels = torch.from_numpy(np.array(images[start : start + 512])).to(device).float().div_(255)
            out.append(model(given.of_pixels(pixels)).float().cpu())
    return torch.cat(out)
