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

from autodistill.training.trials.run_result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from autodistill.training.data.datasets import ImageData, Split
    from autodistill.training.teachers.teacher import Teacher


FIELDS = ("accuracy", "loss", "ece", "agreement")
"""Measures that are fields of a result; the others are in a mapping."""


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
        from autodistill.training.loop.resampling import resampled

        teacher = None if self.teacher is None else self.teacher.double().numpy()
        return resampled(logits.double().numpy(), self.split.labels, teacher, own)

    def confusion(self, logits: Tensor) -> tuple[tuple[int, ...], ...]:
        """Images of each class (row) by the class that was decided (column)."""
        from autodistill.training.loop.measures import confusion

        return tuple(map(tuple, confusion(logits.double().numpy(), self.split.labels).tolist()))


def examine(
    folder: Path,
    test: TestSplit,
    data: ImageData,
    *,
    refit: str,
    keep: bool,
    device: str = "cpu",
    own: Mapping[str, str] | None = None,
) -> Result:
    """Evaluate a finished run on the test split and store the result.

    Args:
        folder: folder of the run.
        test: the test images.
        data: mean and std that the student was trained with.
        refit: ``train`` or ``train+val``.
        keep: whether to keep the weights; otherwise they are deleted.
        device: device to run on.
        own: measures of the study's own, name to ``module:function``.

    Raises:
        StoreError: the run has no finished student.
    """
    from autodistill.training.runtime.durable_files import write_folder
    from autodistill.training.trials.retraining import load_run

    model, facts = load_run(folder)
    logits = predict(model, test.split.images, data, device=device)
    found = test.scores(logits, own)
    last = facts["reports"][max(facts["reports"], key=int)]
    manifest = json.loads((folder / "student" / "MANIFEST.json").read_bytes())
    decided = logits.argmax(1).numpy()
    right = (decided == test.split.labels).astype(np.uint8)
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
        decided=_text(decided.astype("<i4")),
        drawings={name: _text(values.astype("<f4")) for name, values in test.resampled(logits, own).items()},
    )
    write_folder(folder / "result", {"result.json": json.dumps(asdict(result), indent=1).encode()})
    if not keep:
        shutil.rmtree(folder / "student", ignore_errors=True)
    return result


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def predict(model: nn.Module, images: NDArray[np.uint8], data: ImageData, *, device: str = "cpu") -> Tensor:
    """Compute logits ``(n, classes)``, fp32 on the CPU, of ``uint8`` images."""
    import torch

    mean, std = (torch.tensor(value, device=device).view(1, -1, 1, 1) for value in (data.mean, data.std))
    model = model.to(device).eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(images), 512):
            pixels = torch.from_numpy(np.array(images[start : start + 512])).to(device).float().div_(255)
            out.append(model((pixels - mean) / std).float().cpu())
    return torch.cat(out)
