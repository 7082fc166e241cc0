"""Results of ``verify`` as frozen values, and the file ``verify.json`` that stores them.

Reading needs neither torch nor a database. The file contains a SHA-256 of its own content. A truncated or edited file
is refused, so that a model card never quotes a figure that was not measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import LATENCY, Params
from autodistill.core.wording import counted

if TYPE_CHECKING:
    import pandas as pd

VERIFY_FILE = "verify.json"
FORMAT = 1
_FIGURES = ("accuracy", "validation", "loss", "agreement", "ece", "gain")

Kind = Literal["student", "twin", "baseline", "teacher"]
FrontVerdict = Literal["stays", "joins", "falls", "outside", ""]


@dataclass(frozen=True)
class Figure:
    """A metric over the seeds of one row.

    Attributes:
        mean: mean over the seeds.
        std: standard deviation over the seeds (n - 1 in the denominator); ``None`` with fewer than two.
        low, high: 95 % interval of the mean over seeds and test images; ``None`` if there is none (of validation
            images, and of runs that an earlier version evaluated).
    """

    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """Accuracy of one row less that of another on the same test images, paired by seed.

    Attributes:
        mean: mean difference; positive if the first is better.
        low, high: 95 % interval of the mean.
        seeds: number of common seeds; with one, the interval covers only the choice of test images.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def telling(self) -> bool:
        """Whether there are enough seeds to tell a difference from chance; one seed shows no variation of seeds."""
        return self.seeds > 1

    @property
    def certain(self) -> bool:
        """Whether at least two seeds show a difference whose interval excludes 0."""
        return self.telling and not self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class on the test split, of a student and its teacher; ``None`` where not defined or unknown.

    Attributes:
        index: position of the class in :attr:`Verified.classes`.
        name: name of the class.
        images: number of test images; 0 if the class has none.
        recall, precision: of the student, mean over the seeds.
        teacher_recall, teacher_precision: of the teacher.
        taken_for: name of the class that the student most often takes its images for; empty if it is always right.
        share: share of its images that are taken for that class.
    """

    index: int
    name: str
    images: int
    recall: float | None
    precision: float | None
    teacher_recall: float | None
    teacher_precision: float | None
    taken_for: str = ""
    share: float = 0.0

    @property
    def lost(self) -> float:
        """By how much the student's recall falls below the teacher's; negative where it is better; 0 if unknown."""
        return 0.0 if self.recall is None or self.teacher_recall is None else self.teacher_recall - self.recall


@dataclass(frozen=True)
class VerifiedRow:
    """One row of the table: a student, its undistilled twin, a baseline or the teacher.

    Attributes:
        kind: ``student``, ``twin``, ``baseline`` or ``teacher``.
        trial: number of the trial; for a twin, that of its distilled student; ``None`` for baselines and teacher.
        name: description of the student.
        student, distillation, train: settings as trained; empty for the teacher.
        seeds: seeds of the finished runs, in order; empty for the teacher.
        planned: number of runs requested.
        accuracy: accuracy on the test split, with its 95 % interval; ``None`` until a run is finished.
        validation: accuracy on the search's own validation split; ``None`` with ``refit`` train+val.
        loss: cross-entropy on the test split.
        agreement: share of test images with the same predicted class as the teacher; ``None`` if unknown.
        ece: expected calibration error on the test split, 15 bins of equal mass.
        measures: every other measure on the test split, by name (``balanced_accuracy``, ``macro_f1`` …).
        recalls: recall of each class of :attr:`Verified.classes` on the test split, mean over the seeds; ``None`` for a
            class without test images. Empty in files of earlier versions.
        precisions: share of the images decided as each class that are of it, mean over the seeds that decide it;
            ``None`` for a class that is never decided. Likewise.
        confusion: test images by class and by the class that they were decided to be, summed over the seeds: triples
            (class, decided class, images) of positions in :attr:`Verified.classes`, where there are images. Likewise.
        costs: known costs by name as in the search (``params``, ``bytes`` …).
        file_bytes: size of the exported ONNX file; ``None`` if it could not be exported.
        file_latency_ms: p50 latency of that file, milliseconds per batch of the study's target.
        searched: validation accuracy that the search reported.
        flattered: ``searched`` less the verified validation mean: the bias by selection and luck.
        gain: distilled student less undistilled twin; only for distilled students.
        before: whether it is on the front of the search.
        verdict: ``stays`` or ``falls`` (was on the front), ``joins`` or ``outside`` (was not); empty for other rows.
        rivals: trials that cost no more in any objective and whose accuracy does not differ significantly; if there
            are any, the place on the front is within noise.
        weights: folder of the weights kept (of the first seed), relative to the study's folder; empty if none.
        error: why there is no figure; empty if there is one.
    """

    kind: Kind
    name: str
    trial: int | None = None
    student: Params = field(default_factory=dict)
    distillation: Params = field(default_factory=dict)
    train: Params = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    planned: int = 0
    accuracy: Figure | None = None
    validation: Figure | None = None
    loss: Figure | None = None
    agreement: Figure | None = None
    ece: Figure | None = None
    measures: Mapping[str, Figure] = field(default_factory=dict)
    recalls: tuple[float | None, ...] = ()
    precisions: tuple[float | None, ...] = ()
    confusion: tuple[tuple[int, int, int], ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    file_bytes: int | None = None
    file_latency_ms: float | None = None
    searched: float | None = None
    flattered: float | None = None
    gain: Difference | None = None
    before: bool = False
    verdict: FrontVerdict = ""
    rivals: tuple[int, ...] = ()
    weights: str = ""
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether every requested run is finished."""
        return len(self.seeds) >= self.planned

    @property
    def figures(self) -> dict[str, Figure]:
        """Verified figures of the trained metrics, by objective name."""
        found = {"accuracy": self.accuracy, "loss": self.loss, "agreement": self.agreement, "ece": self.ece}
        return {name: figure for name, figure in {**found, **self.measures}.items() if figure is not None}

    @property
    def means(self) -> dict[str, float]:
        """Verified means of the trained metrics, by objective name."""
        return {name: figure.mean for name, figure in self.figures.items()}

    def shipped(self, name: str) -> float | None:
        """Return a cost of the exported ONNX file by the name of its objective; ``None`` if not measured."""
        return {LATENCY: self.file_latency_ms, "onnx_bytes": self.file_bytes}.get(name)


@dataclass(frozen=True)
class Verified:
    """The verified front, with all measurements.

    Attributes:
        study: name of the study.
        objectives: ``(name, direction)`` of each axis, in order.
        rows: students first (most accurate first), then twins, baselines and the teacher.
        seeds: runs requested per row.
        refit: ``train`` or ``train+val``.
        epochs: epochs of every run.
        test_images: images of the test split; 0 before it was opened.
        validation_images: images of the validation split.
        latency: target of ``file_latency_ms`` in words.
        of_files: objectives whose verdicts use costs of the exported files instead of those of the search.
        judged: sentence on which latency and file size the verdicts use, and why; empty if neither is an objective.
        seconds: seconds of training, summed over the runs.
        finished: number of finished runs.
        planned: number of requested runs.
        front_before: students on the front of the search, verified or not.
        noise: difference in validation accuracy within which near neighbours of the front were verified too.
        versions: versions of the software that computed the figures.
        data, teacher: fingerprints.
        classes: names of the classes, in the order of :attr:`VerifiedRow.recalls`.
    """

    study: str
    objectives: tuple[tuple[str, str], ...]
    rows: tuple[VerifiedRow, ...]
    seeds: int
    refit: str = "train"
    epochs: int = 0
    test_images: int = 0
    validation_images: int = 0
    latency: str = ""
    of_files: tuple[str, ...] = ()
    judged: str = ""
    seconds: float = 0.0
    finished: int = 0
    planned: int = 0
    front_before: int = 0
    noise: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    teacher: str = ""
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return one line: name, number of verified students, and progress."""
        kept = f"{counted(len(self.students), 'student')}, {len(self.front)} on the verified front"
        runs = f"{self.finished} of {counted(self.planned, 'run')} finished"
        return f"<Verified {self.study!r}: {kept}, {counted(self.seeds, 'seed')}, {runs}>"

    @property
    def measured(self) -> tuple[str, ...]:
        """Trained objectives without a column of their own: accuracy, agreement and calibration error have one."""
        known = {name for row in self.rows for name in row.means}
        return tuple(name for name, _ in self.objectives if name in known - {"accuracy", "agreement", "ece"})

    @property
    def students(self) -> tuple[VerifiedRow, ...]:
        """Rows of the study's own trials."""
        return tuple(row for row in self.rows if row.kind == "student")

    @property
    def front(self) -> tuple[VerifiedRow, ...]:
        """Students on the front of the verified means."""
        return tuple(row for row in self.students if row.verdict in ("stays", "joins"))

    @property
    def fallen(self) -> tuple[VerifiedRow, ...]:
        """Students on the front of the search that are dominated by verified means."""
        return tuple(row for row in self.students if row.verdict == "falls")

    @property
    def seen(self) -> int:
        """Number of students on the front of the search that have a verdict."""
        return sum(row.before and bool(row.verdict) for row in self.students)

    @property
    def whole(self) -> bool:
        """Whether the whole front of the search was verified; otherwise verdicts compare only a part of it."""
        return self.seen >= self.front_before

    @property
    def complete(self) -> bool:
        """Whether every requested run is finished."""
        return self.finished >= self.planned

    @property
    def flattery(self) -> str:
        """Sentence on the bias of the search's validation accuracy, and for which students; empty if unknown."""
        known = [row for row in self.students if row.flattered is not None]
        before = [row for row in known if row.before]
        rows = before or known
        if not rows:
            return ""
        whose = "its front" if before else "students outside its front"
        fell = [row.searched - row.accuracy.mean for row in rows if row.searched is not None and row.accuracy]
        mean, count = _mean([row.flattered or 0.0 for row in rows]), counted(len(rows), "student")
        way = f"flattered {whose} by {mean:+.4f}" if mean >= 0 else f"shown {whose} {-mean:.4f} too low"
        return (
            f"The search had {way} on average over {count} (its validation accuracy less "
            f"the mean of fresh seeds on the same images; less that on test images: {_mean(fell):+.4f})."
        )

    def cost(self, row: VerifiedRow, name: str) -> float | None:
        """Return a cost of a row as its verdict used it: of its exported file or of the search; ``None`` if unknown."""
        return row.shipped(name) if name in self.of_files else row.costs.get(name)

    def losing_classes(self, row: VerifiedRow) -> list[ClassFigures]:
        """Return the classes that a student recognises less often than its teacher, the largest loss first.

        Empty where the teacher's recalls are not known.
        """
        return [one for one in self.by_class(row) if one.lost > 0]

    def confusion(self, row: VerifiedRow) -> list[list[float]]:
        """Return a row's confusion matrix: test images of each class (row) by decided class, mean over the seeds."""
        runs = max(len(row.seeds), 1)
        out = [[0.0] * len(self.classes) for _ in self.classes]
        for true, decided, images in row.confusion:
            out[true][decided] = images / runs
        return out

    def by_class(self, row: VerifiedRow) -> list[ClassFigures]:
        """Return the figures of each class, those that a student loses most against its teacher first.

        Classes without such a loss come by the student's recall, the lowest first. Empty if the recalls are unknown.
        """
        if not row.recalls:
            return []
        teacher, matrix = self.teacher_row(), self.confusion(row)
        nothing: tuple[float | None, ...] = (None,) * len(self.classes)
        recalls = (teacher.recalls if teacher is not None else ()) or nothing
        precisions = (teacher.precisions if teacher is not None else ()) or nothing
        out = []
        for index, name in enumerate(self.classes):
            counts = matrix[index]
            images, others = sum(counts), [*counts[:index], 0.0, *counts[index + 1 :]]
            most = max(others)
            out.append(
                ClassFigures(
                    index,
                    name,
                    round(images),
                    row.recalls[index],
                    (row.precisions or nothing)[index],
                    recalls[index],
                    precisions[index],
                    self.classes[others.index(most)] if most else "",
                    most / images if images else 0.0,
                )
            )
        return sorted(out, key=lambda one: (-max(one.lost, 0.0), one.recall is None, one.recall or 0.0))

    def student(self, trial: int) -> VerifiedRow:
        """Return the row of a trial.

        Raises:
            UsageError: the trial was not verified.
        """
        return self._find("student", trial)

    def twin(self, trial: int) -> VerifiedRow | None:
        """Return the same student without distillation; ``None`` if not requested or the student is undistilled."""
        return next((row for row in self.rows if row.kind == "twin" and row.trial == trial), None)

    def teacher_row(self) -> VerifiedRow | None:
        """Return the row of the teacher on the test split; ``None`` if there is none."""
        return next((row for row in self.rows if row.kind == "teacher"), None)

    def to_json(self) -> dict[str, Any]:
        """Return the stable form of ``verify.json``, with its digest."""
        body: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        body = json.loads(json.dumps(body, default=list, allow_nan=False))
        return {**body, "digest": _digest(body)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Verified:
        """Build the value from the result of :meth:`to_json`.

        Raises:
            StoreError: the format is another one, or the content differs from its digest.
        """
        body = {key: value for key, value in data.items() if key != "digest"}
        if body.pop("format", None) != FORMAT or data.get("digest") != _digest({"format": FORMAT, **body}):
            raise StoreError(f"{VERIFY_FILE} was changed or cut after it was written; run 'autodistill verify' again.")
        body["rows"] = tuple(_row(row) for row in body["rows"])
        body["objectives"] = tuple((name, direction) for name, direction in body["objectives"])
        body["classes"] = tuple(body.get("classes", ()))
        body["of_files"] = tuple(body.get("of_files", ()))  # earlier versions used the costs of the search
        return Verified(**body)

    def to_pandas(self) -> pd.DataFrame:
        """Return the table with figures flattened to columns such as ``accuracy.mean``, ``accuracy.low``."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.rows])

    def _find(self, kind: Kind, trial: int) -> VerifiedRow:
        for row in self.rows:
            if row.kind == kind and row.trial == trial:
                return row
        known = ", ".join(str(row.trial) for row in self.students)
        raise UsageError(f"trial {trial} was not verified; verified: {known or 'none'}. Add it with --trials {trial}.")


def read_verified(directory: str | Path) -> Verified | None:
    """Return the results of the last ``verify`` of a study; ``None`` if there are none.

    Args:
        directory: folder of the study.

    Raises:
        StoreError: the file is damaged.
    """
    path = Path(directory) / VERIFY_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Run 'autodistill verify' again.") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} holds no verification. Run 'autodistill verify' again.")
    return Verified.from_json(data)


def verified_folder(directory: str | Path, trial: int) -> Path:
    """Return the folder of the verified weights of a trial.

    Raises:
        UsageError: the trial was not verified, or none of its runs is finished.
    """
    found = read_verified(directory)
    if found is None:
        raise UsageError(f"{directory} is not verified yet; run 'autodistill verify {directory}'.")
    row = found.student(trial)
    if not row.weights:
        raise UsageError(f"no run of trial {trial} is finished; run 'autodistill verify {directory}' again.")
    return Path(directory) / row.weights


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _row(data: Mapping[str, Any]) -> VerifiedRow:
    values = dict(data)
    for name in _FIGURES[:-1]:
        values[name] = None if values[name] is None else Figure(**values[name])
    values["gain"] = None if values["gain"] is None else Difference(**values["gain"])
    values["measures"] = {name: Figure(**figure) for name, figure in values.get("measures", {}).items()}
    for name in ("seeds", "rivals", "recalls", "precisions"):
        values[name] = tuple(values.get(name, ()))
    values["confusion"] = tuple((true, decided, images) for true, decided, images in values.get("confusion", ()))
    return VerifiedRow(**values)


def _flat(row: VerifiedRow) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in asdict(row).items():
        if (value is None and key in _FIGURES) or key == "confusion":
            continue
        if key == "measures":
            out.update({f"{name}.{part}": item for name, one in value.items() for part, item in one.items()})
            continue
        if isinstance(value, Mapping):
            out.update({f"{key}.{name}": item for name, item in value.items()})
        elif isinstance(value, Sequence) and not isinstance(value, str):
            out[key] = " ".join(str(item) for item in value)
        else:
            out[key] = value
    return out
