"""Checks of exported files on real images; a file that differs from its network is not exported.

Each file is run by its own runtime and compared with the network in memory: the largest difference of a logit on 256
real images, and the accuracy on the validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import first_line
from autodistill.delivery.export.formats import Format, Images, Predict, formats, in_batches
from autodistill.training.loop import decisions

if TYPE_CHECKING:
    from autodistill.core.records import LatencyTarget

COMPARED = 256
MOST_VALIDATED = 10_000
TOLERANCE = 1e-4
"""Largest allowed difference of a logit of an fp32 file; if the largest logit exceeds 1, relative to it."""


@dataclass(frozen=True, kw_only=True)
class MeasuredFile:
    """A file made of a student, as measured on this machine, or the reason why there is none.

    Attributes:
        state: ``ok``, ``refused`` (it loses too much accuracy) or ``failed`` (it cannot be written or run).
        file: name of the file in an exported folder, or its path relative to the study's folder.
        bytes: size of the file.
        accuracy: accuracy of the file on the validation images.
        drop: accuracy of the student in memory minus that of the file.
        latency_ms: median time per batch of the file on this machine's CPU; ``None`` if it was not measured.
        remark: kind of the file, or the reason why there is none.
    """

    state: Literal["ok", "refused", "failed"]
    file: str = ""
    bytes: int = 0
    accuracy: float | None = None
    drop: float | None = None
    latency_ms: float | None = None
    remark: str = ""

    def loses(self, max_drop: float) -> bool:
        """Return whether it is less accurate than the student in memory by more than ``max_drop``."""
        return self.drop is not None and self.drop > max_drop + 1e-12


@dataclass(frozen=True)
class Checked(MeasuredFile):
    """Result of the checks of one exported file.

    Attributes:
        format: name of the format.
        max_diff: largest difference of a logit from that of the network, on 256 real images.
        agreement: share of validation images for which file and network predict the same class; with several labels
            per image, share of equal decisions about labels.
        average_precision: mAP of the file on the validation images; ``None`` with one class per image.
    """

    format: str
    max_diff: float | None = None
    agreement: float | None = None
    average_precision: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as a dictionary."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Validation:
    """Images on which files are checked, with the logits of the network.

    Attributes:
        images: normalized validation images, ``float32 (n, channels, side, side)``.
        labels: ``int64 (n,)``, or ``(n, classes)`` of 0 and 1.
        logits: logits of the network in memory, ``(n, classes)``.
        compared: 256 images for the difference of logits; training images are added if there are fewer.
        compared_logits: logits of the network for ``compared``.
    """

    images: Images
    labels: NDArray[np.int64]
    logits: Images
    compared: Images
    compared_logits: Images

    @property
    def accuracy(self) -> float:
        """Accuracy of the network in memory."""
        return decisions.accuracy(self.logits, self.labels)

    @property
    def several(self) -> bool:
        """Whether an image has any number of labels."""
        return self.labels.ndim == 2

    def average_precision(self, logits: Images | None = None) -> float | None:
        """Return the mAP of logits ``(n, classes)``, by default of the network; ``None`` with one class per image."""
        from autodistill.training.loop.multilabel_measures import mean_average_precision

        given = self.logits if logits is None else logits
        return mean_average_precision(given.astype(np.float64), self.labels) if self.several else None


def check_file(
    name: str, path: Path, validation: Validation, *, max_drop: float, remark: str = "", threads: int
) -> Checked:
    """Run a file and compare it with the network.

    Args:
        name: name of its format.
        path: path of the file.
        validation: images and logits of the network.
        max_drop: accuracy that an inexact file may lose, as a fraction.
        remark: remark of the format's writer.
        threads: CPU threads.
    """
    form = formats.get(name)
    try:
        predict = form.predict(path, threads)
        logits, compared = in_batches(predict, validation.images), in_batches(predict, validation.compared)
    except Exception as error:  # runtimes raise many types; the file does not run
        return failed(name, error)
    accuracy = decisions.accuracy(logits, validation.labels)
    difference = float(np.abs(compared - validation.compared_logits).max())
    found = Checked(
        name,
        state="ok",
        file=form.file,
        bytes=path.stat().st_size,
        accuracy=accuracy,
        drop=validation.accuracy - accuracy,
        max_diff=difference,
        agreement=decisions.agreement(logits, validation.logits, several=validation.several),
        average_precision=validation.average_precision(logits) if np.isfinite(logits).all() else None,
        remark=remark,
    )
    return _with_state(found, form, validation, max_drop)


def failed(name: str, error: Exception) -> Checked:
    """Return the result for a file that could not be written or run."""
    return Checked(name, state="failed", file=formats.get(name).file, remark=first_line(error, limit=300))


def _with_state(found: Checked, form: Format, validation: Validation, max_drop: float) -> Checked:
    """Set the state of a checked file: ``failed`` or ``refused`` if its logits or accuracy differ too much."""
    assert found.drop is not None
    assert found.max_diff is not None
    allowed = TOLERANCE * max(1.0, float(np.abs(validation.compared_logits).max()))
    if not np.isfinite(found.max_diff):
        return replace(found, state="failed", max_diff=None, remark="it gives numbers that are not finite")
    if form.exact and found.max_diff > allowed:
        reason = f"its logits differ by {found.max_diff:.2g} from the network's; allowed: {allowed:.2g}"
        return replace(found, state="failed", remark=reason)
    if not form.exact and found.loses(max_drop):
        reason = f"it loses {found.drop:.4f} accuracy; --max-drop allows {max_drop:g}"
        return replace(found, state="refused", remark=reason)
    whole = validation.average_precision()
    if not form.exact and whole is not None and found.average_precision is not None:
        lost = whole - found.average_precision
        if lost > max_drop + 1e-12:
            reason = f"it loses {lost:.4f} mAP; --max-drop allows {max_drop:g}"
            return replace(found, state="refused", remark=reason)
    return found


def with_latency(checked: Sequence[Checked], folder: Path, target: LatencyTarget, image: Images) -> list[Checked]:
    """Measure the latency of all files that are ok, in interleaved rounds, while trainings on this machine pause.

    Args:
        checked: results of the files of ``folder``.
        folder: folder of the files.
        target: batch size and threads; each file runs in its own runtime on this CPU.
        image: one normalized image ``(1, channels, side, side)``.
    """
    from autodistill.training.costs.latency_protocol import measure_runs
    from autodistill.training.deployed.runtimes import threads
    from autodistill.training.runtime import measurement_lock

    batch = np.repeat(image, target.batch, axis=0)
    predicts: dict[str, Predict] = {}
    for one in checked:
        if one.state == "ok":
            predicts[one.format] = formats.get(one.format).predict(folder / one.file, target.threads)

    def run(predict: Predict) -> Any:
        return lambda: predict(batch)

    if not predicts:
        return list(checked)
    with measurement_lock.exclusive("cpu"), threads(target.threads):
        times = measure_runs([run(predict) for predict in predicts.values()])
    found = {name: time.p50_ms for name, time in zip(predicts, times, strict=True)}
    return [replace(one, latency_ms=found.get(one.format)) for one in checked]


def refusals(checked: Sequence[Checked]) -> str:
    """Return one line for each file that was not exported; empty if all were."""
    return "\n".join(f"{one.format} {one.state}: {one.remark}." for one in checked if one.state != "ok")
