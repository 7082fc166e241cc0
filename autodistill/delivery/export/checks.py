"""Checks of exported files on real images: a file that does not hold what its network held does not count as exported.

Compared is what the file gives, run by its own runtime, with what the network in memory gives: the largest difference
of a logit on 256 real images, and accuracy on the validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from autodistill.delivery.export.formats import Format, Images, Predict, formats, in_batches

if TYPE_CHECKING:
    from autodistill.core.records import LatencyTarget

COMPARED = 256
MOST_VALIDATED = 10_000
TOLERANCE = 1e-4
"""Largest difference of a logit that an fp32 file may have; of logits beyond 1, as a share of the largest."""


@dataclass(frozen=True)
class Checked:
    """One exported file, or why there is none.

    Attributes:
        format: name of the format.
        file: its name in the folder.
        state: ``ok``, ``refused`` (it costs too much accuracy) or ``failed`` (it cannot be written or run).
        bytes: its size.
        accuracy: on the validation images; ``drop`` is what the network in memory has more.
        max_diff: largest difference of a logit from the network's, on 256 real images.
        agreement: share of validation images on which it decides as the network.
        latency_ms: p50 per batch of the file on this machine's CPU; ``None`` where it was not measured.
        remark: for people: what kind of file, or why it was refused.
    """

    format: str
    file: str
    state: Literal["ok", "refused", "failed"]
    bytes: int = 0
    accuracy: float | None = None
    drop: float | None = None
    max_diff: float | None = None
    agreement: float | None = None
    latency_ms: float | None = None
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a mapping."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Validation:
    """Images that files are checked on, and what the network says of them.

    Attributes:
        images: normalized, ``float32 (n, channels, side, side)``.
        labels: ``int64 (n,)``.
        logits: of the network in memory, ``(n, classes)``.
        compared: 256 of the images for the difference, filled up with training images where there are fewer.
        compared_logits: of the network, for those.
    """

    images: Images
    labels: NDArray[np.int64]
    logits: Images
    compared: Images
    compared_logits: Images

    @property
    def accuracy(self) -> float:
        """Of the network in memory."""
        return float((self.logits.argmax(1) == self.labels).mean())


def check_file(
    name: str, path: Path, validation: Validation, *, max_drop: float, remark: str = "", threads: int
) -> Checked:
    """Run a file and compare.

    Args:
        name: of its format.
        path: the file.
        validation: real images.
        max_drop: accuracy that an inexact file may lose, as a fraction.
        remark: what its writer said.
        threads: of the CPU.
    """
    form = formats.get(name)
    try:
        predict = form.predict(path, threads)
        logits, compared = in_batches(predict, validation.images), in_batches(predict, validation.compared)
    except Exception as error:  # whatever a runtime raises: the file does not run
        return failed(name, error)
    accuracy = float((logits.argmax(1) == validation.labels).mean())
    difference = float(np.abs(compared - validation.compared_logits).max())
    found = Checked(
        name,
        form.file,
        "ok",
        bytes=path.stat().st_size,
        accuracy=accuracy,
        drop=validation.accuracy - accuracy,
        max_diff=difference,
        agreement=float((logits.argmax(1) == validation.logits.argmax(1)).mean()),
        remark=remark,
    )
    return _judged(found, form, float(np.abs(validation.compared_logits).max()), max_drop)


def failed(name: str, error: Exception) -> Checked:
    """A file that could not be written or run."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return Checked(name, formats.get(name).file, "failed", remark=said)


def _judged(found: Checked, form: Format, largest: float, max_drop: float) -> Checked:
    assert found.drop is not None
    assert found.max_diff is not None
    allowed = TOLERANCE * max(1.0, largest)
    if not np.isfinite(found.max_diff):
        return replace(found, state="failed", max_diff=None, remark="it gives numbers that are not finite")
    if form.exact and found.max_diff > allowed:
        said = f"its logits differ by {found.max_diff:.2g} from the network's; allowed: {allowed:.2g}"
        return replace(found, state="failed", remark=said)
    if not form.exact and found.drop > max_drop + 1e-12:
        said = f"it loses {found.drop:.4f} accuracy; --max-drop allows {max_drop:g}"
        return replace(found, state="refused", remark=said)
    return found


def with_latency(checked: Sequence[Checked], folder: Path, target: LatencyTarget, image: Images) -> list[Checked]:
    """Latency of every file that is ok, all in interleaved rounds, while trainers of this machine pause.

    Args:
        checked: files of ``folder``.
        folder: where they are.
        target: gives batch and threads; each file runs in its own runtime on this CPU.
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
    """One sentence for each file that was not exported; empty where all were."""
    return "\n".join(f"{one.format} {one.state}: {one.remark}." for one in checked if one.state != "ok")
