"""Frozen values that search, training, engines and delivery exchange.

All of them are plain data that can be pickled and written as JSON, without torch, timm, Optuna or Ray.
"""

from __future__ import annotations

import contextlib
import decimal
import enum
import hashlib
import json
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Params = Mapping[str, Any]
"""Settings of one part of a candidate: name to JSON scalar or list of scalars."""


LATENCY = "latency_ms"
"""Name of the metric that a latency target measures: median latency of one batch, in milliseconds."""

Resize = Literal["crop", "squash", "letterbox"]
"""Method that makes an image square, see :class:`DataSpec`."""

TaskKind = Literal["multiclass", "multilabel"]
"""What an image is labelled with: exactly one class, or any number of labels."""

MULTICLASS: TaskKind = "multiclass"
MULTILABEL: TaskKind = "multilabel"


def stable_key(value: Any) -> str:
    """Return 16 hex digits that are equal for equal JSON values, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Estimate(float):
    """A predicted cost: its median, as a float, with the standard deviation of its logarithm.

    It can be used like a measured number; :func:`certain` removes predicted costs.
    """

    __slots__ = ("deviation",)

    def __new__(cls, value: float, deviation: float) -> Estimate:
        """Create an estimate.

        Args:
            value: Median.
            deviation: Standard deviation of the logarithm: 0.1 means about 10 %.
        """
        made = super().__new__(cls, value)
        made.deviation = float(deviation)
        return made

    deviation: float

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float]]:
        return Estimate, (float(self), self.deviation)


def certain(costs: Mapping[str, float]) -> dict[str, float]:
    """Return the costs that are counted or measured, not predicted."""
    return {name: value for name, value in costs.items() if not isinstance(value, Estimate)}


class Decision(enum.Enum):
    """Answer of the study to a report."""

    CONTINUE = "continue"
    STOP = "stop"


class State(str, enum.Enum):
    """State of a trial. PARTIAL: paused, interrupted, or stopped by the budget; it can continue later."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    PARTIAL = "PARTIAL"


@dataclass(frozen=True)
class Candidate:
    """A student, and how it is to be distilled.

    Attributes:
        number: Trial number in the study, from 0.
        student: Architecture, e.g. ``{"family": "resnet", "width": 16, "depth": 2}``.
        distillation: Loss mix, e.g. ``{"loss": "kd", "temperature": 4.0, "alpha": 0.7}``.
        train: Recipe, e.g. ``{"lr": 3e-3, "weight_decay": 1e-4}``.
        seed: Random seed of the trial.
        start_rung: Highest rung that is already reported; above 0 if the trial continues from its checkpoint.
    """

    number: int
    student: Params
    distillation: Params
    train: Params
    seed: int
    start_rung: int = 0

    def architecture_key(self) -> str:
        """Return a key that is equal for candidates with the same student."""
        return stable_key(self.student)

    def key(self) -> str:
        """Return a key that is equal for candidates with the same student, distillation and recipe, for any seed."""
        return stable_key([self.student, self.distillation, self.train])


WORK = (
    "epochs",
    "seconds",
    "teacher_seconds",
)
"""Names under which the work of a rung is stored beside its metrics; no metric can have these names."""


@dataclass(frozen=True)
class Report:
    """Metrics of a trial at one rung.

    Attributes:
        rung: 0 for the known costs, then 1, 2, … up to the top rung.
        values: Metric name to finite number (accuracy is a fraction from 0 to 1, latency_ms in ms, params a count).
            A metric called ``seconds`` or ``epochs`` is stored as ``reported_seconds`` or ``reported_epochs``.
        epochs: Epochs trained so far in this trial (cumulative).
        seconds: Seconds of work so far in this trial (cumulative, over resumes); at rung 0 those before the training.
        variants: At the top rung, other forms of the student (``int8``) to ``{"values": …}`` or ``{"reason": …}``.
        noisy: Whether the latency among the values was too noisy to settle.
        teacher_seconds: Part of ``seconds`` that the teacher took for views that were not cached; ``None`` for a
            training without a cached teacher.

    Raises:
        TypeError: The values or the variants are not a mapping, or rung, epochs or seconds are not numbers.
    """

    rung: int
    values: Mapping[str, float]
    epochs: float = 0.0
    seconds: float = 0.0
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    noisy: bool = False
    teacher_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("values", "variants"):
            if not isinstance(got := getattr(self, name), Mapping):
                raise TypeError(f"{name} of a report is {got!r}; yield autodistill.Report(rung, {{name: value}}).")
        self._convert()

    def _convert(self) -> None:
        """Replace numbers of other libraries by Python's own: a report crosses processes and is stored as JSON."""
        for name in ("rung", "epochs", "seconds", "teacher_seconds"):
            number = plain(getattr(self, name))
            if not isinstance(number, (int, float)) and not (number is None and name == "teacher_seconds"):
                raise TypeError(f"{name} of a report is {described(number)}; give it a number.")
            object.__setattr__(self, name, number)
        object.__setattr__(self, "values", {name: plain(value) for name, value in self.values.items()})


Evaluate = Callable[[Candidate], Iterator[Report]]
"""Function that yields ``Report(rung=0, known costs)``, then one report per rung; closing its iterator stops it."""


@dataclass(frozen=True)
class Objective:
    """One axis of the front.

    Attributes:
        name: Metric name, e.g. ``accuracy``.
        direction: ``maximize`` or ``minimize``.
        unit: ``fraction``, ``count``, ``ms`` or ``bytes``.
        stage: ``known`` before training, or ``trained``.
        log: Whether it is drawn and normalised on a logarithmic axis.
        description: One line about the metric.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    stage: Literal["known", "trained"]
    log: bool = False
    description: str = ""

    def loss(self, value: float) -> float:
        """Return the value with its sign chosen so that smaller is better."""
        return -value if self.direction == "maximize" else value


@dataclass(frozen=True)
class Constraint:
    """``metric operator bound``, e.g. ``latency_ms <= 5``.

    Attributes:
        metric: Metric that is bounded.
        operator: ``<=`` or ``>=``.
        bound: Bound in the unit of the metric; NaN while the teacher's value is unknown.
        below: For a bound relative to the teacher (``accuracy >= teacher - 0.05``), the amount below the teacher's
            value; ``None`` for a fixed bound.
    """

    metric: str
    operator: Literal["<=", ">="]
    bound: float
    below: float | None = None

    def violation(self, values: Mapping[str, float]) -> float:
        """Return by how much ``values`` violate it (Optuna's convention: ≤ 0 if satisfied); 0 if unknown."""
        if self.metric not in values or math.isnan(self.bound):
            return 0.0
        difference = values[self.metric] - self.bound
        return difference if self.operator == "<=" else -difference

    def chance(self, values: Mapping[str, float]) -> float:
        """Return the probability that ``values`` satisfy it: 0 or 1 unless the metric is a (log-normal) estimate."""
        value = values.get(self.metric)
        if not isinstance(value, Estimate) or value.deviation <= 0 or value <= 0 or self.bound <= 0:
            return float(self.violation(values) <= 0)
        below = 0.5 * math.erfc(math.log(value / self.bound) / (value.deviation * math.sqrt(2.0)))
        return below if self.operator == "<=" else 1.0 - below

    def __str__(self) -> str:
        if self.below is None:
            return f"{self.metric} {self.operator} {self.bound:g}"
        less = "" if not self.below else f" {'-' if self.below > 0 else '+'} {abs(self.below):g}"
        known = "" if math.isnan(self.bound) else f" ({self.bound:.4g})"
        return f"{self.metric} {self.operator} teacher{less}{known}"


@dataclass(frozen=True)
class DataSpec:
    """Images of a study, and how they are split.

    Attributes:
        source: Registered name (``digits``, ``fashion_mnist``, ``image_folder`` …) or ``module:factory``.
        root: Folder of the files, if the source needs one.
        image_size: Side of the student's square input in pixels; ``None``: the source's own size.
        train_size: Number of training images to use; ``None``: all.
        val_fraction: Share of the training images held out for validation if the source has no validation split.
        seed: Random seed of splits and subsets.
        options: Further keywords of the source.
        resize: How images that are not square become square: ``crop`` (shorter side scaled, ends of the longer one cut
            off), ``squash`` (both sides scaled, proportions change), ``letterbox`` (longer side scaled, grey borders).
        drop_duplicates: Whether to leave out of the training the images that have a copy in validation or test, or a
            copy with another label.
        unlabelled: Further training images without labels: a folder, the name of a source, or a mapping with the keys
            ``source``, ``root`` and ``options``. The teacher's answers are their only target.
    """

    source: str
    root: str | None = None
    image_size: int | None = None
    train_size: int | None = None
    val_fraction: float = 0.15
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    resize: Resize = "crop"
    drop_duplicates: bool = False
    unlabelled: str | Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TeacherSpec:
    """Teacher of a study.

    Attributes:
        source: A timm model name, a file (``.onnx``, logits ``.npz``), a folder of ``autodistill teach`` or
            ``autodistill export``, a trial of a study (``STUDY#12``), or ``module:factory``; ``auto`` trains a teacher
            first.
        weights: Weights, if ``source`` is only an architecture: a file, a folder, a timm name, ``hf-hub:OWNER/NAME``,
            ``local-dir:FOLDER`` or a trial, ``STUDY#12``.
        options: Keywords of the architecture, and of ``auto`` (``epochs``).
        accept_weak: Whether to continue if the checks find the teacher weak.
        device: Torch device; a list spreads its layers over several devices; ``None``: the student's device.
    """

    source: str = "auto"
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    accept_weak: bool = False
    device: str | list[str] | None = None


@dataclass(frozen=True)
class LatencyTarget:
    """How latency is measured: runtime x device x batch x precision x threads, or by a command or a table.

    Attributes:
        runtime: Name of the runtime, e.g. ``torch`` or ``onnxruntime``.
        device: Device of the runtime.
        batch: Images per batch.
        precision: Numeric precision, e.g. ``fp32``.
        threads: CPU threads.
        command: Command that measures an ONNX file on another machine and prints JSON, e.g. ``ssh board bench {onnx}``.
        table: CSV or JSON file with latencies measured elsewhere.
        timeout_s: Time limit of the command in seconds.
    """

    runtime: str = "torch"
    device: str = "cpu"
    batch: int = 1
    precision: str = "fp32"
    threads: int = 1
    command: str | None = None
    table: str | None = None
    timeout_s: float = 120.0

    def key(self) -> str:
        """Return a key that is equal for equal targets; the time limit is ignored."""
        return stable_key({k: v for k, v in asdict(self).items() if v is not None and k != "timeout_s"})


@dataclass(frozen=True)
class SurveyRow:
    """Costs of one student, found before any training.

    Attributes:
        student: Architecture of the student.
        costs: Metric to value; empty if the student cannot be built.
        error: Why it cannot be built; empty if it can.
        noisy: Whether its latency was too noisy to settle.
    """

    student: Params
    costs: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    noisy: bool = False

    @property
    def settled(self) -> dict[str, float]:
        """Return the costs that may be stored; a noisy latency is left out, so that it is measured again later."""
        return {name: value for name, value in self.costs.items() if not (self.noisy and name == LATENCY)}


@dataclass(frozen=True)
class Task:
    """Everything a worker needs to evaluate candidates of one study.

    Attributes:
        data: The images.
        teacher: The teacher (never ``auto``).
        directory: Absolute path of the study's folder, which contains the checkpoints.
        rungs: Cumulative epochs at rungs 1, 2, …; the last is the top rung.
        metrics: Names of all objectives and constrained metrics.
        latency: How ``latency_ms`` is measured.
        training: Settings shared by all trials (batch_size, ema, amp, augment defaults …).
        cache: Folder of decoded images and teacher caches, shared by studies; ``None``: below ``directory``.
        variants: Forms in which a finished student is measured; ``fp32`` is the student as trained.
        measures: Measures of the study's own: name to ``module:function``.
        weights: Variant or family, to the text that names the weights that its students start from.
        kind: ``multiclass``: every image has one class; ``multilabel``: any number of labels.
        images: Key of the images and splits that the driver has read; every worker must read the same ones. Empty: not
            compared.
    """

    data: DataSpec
    teacher: TeacherSpec
    directory: str
    rungs: tuple[int, ...]
    metrics: tuple[str, ...]
    latency: LatencyTarget = field(default_factory=LatencyTarget)
    training: Mapping[str, Any] = field(default_factory=dict)
    cache: str | None = None
    variants: tuple[str, ...] = ("fp32",)
    measures: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    kind: TaskKind = MULTICLASS
    images: str = ""


def _no_progress(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
    """Ignore progress."""


def _no_wait(what: str, seconds: float) -> None:
    """Ignore a wait."""


def _never() -> bool:
    """Return false: there is no request to stop."""
    return False


def _no_pause() -> None:
    """Ignore a pause."""


@dataclass(frozen=True)
class WorkerContext:
    """Devices and callbacks that an engine gives to each worker.

    Attributes:
        index: Number of the worker, from 0.
        device: Torch device string of its slot.
        threads: CPU threads it may use.
        progress: Called as ``progress(epochs done, epochs of the top rung, metrics)``, at most once a second.
        should_stop: Called between batches; if it returns true, save and raise ``InterruptedTrialError``.
        waits: Called as ``waits(what for, seconds)`` about once a second while the trial waits for another process,
            with the seconds since the last call, which do not count as work; and once at the end, with an empty text.
        devices: All devices of the slot, ``device`` first, if a candidate is trained on several; else empty.
        memory_share: Share of the device's memory that the worker may use; below 1 if workers share a GPU.
        storage: URL for the files of trials, for a worker that cannot read the study's folder.
        pause: Called when a training does something other than training (it evaluates or waits), so that no progress
            is expected until the next call of ``progress``.
    """

    index: int = 0
    device: str = "cpu"
    threads: int = 1
    progress: Callable[[float, float, Mapping[str, float]], None] = _no_progress
    should_stop: Callable[[], bool] = _never
    waits: Callable[[str, float], None] = _no_wait
    devices: tuple[str, ...] = ()
    memory_share: float = 1.0
    storage: str | None = None
    pause: Callable[[], None] = _no_pause


EvaluateFactory = Callable[[WorkerContext], Evaluate]
"""Function that builds the evaluator of one worker. It is called once per worker, so that data and teacher are loaded
once, and must be picklable for spawned workers."""


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial.

    Attributes:
        number: Trial number, from 0.
        state: State of the trial.
        values: Objectives of a COMPLETE trial; empty otherwise.
        student: Architecture of the student.
        distillation: Loss mix.
        train: Recipe.
        seed: Random seed of the trial.
        epochs: Epochs trained, over resumes.
        seconds: Seconds of work, over resumes.
        rungs: Rung to the values reported there.
        reason: Code why the trial is not COMPLETE (``RUNG_RULE``, ``INFEASIBLE``, ``NAN`` …); empty otherwise.
        message: The reason in words.
        spent: What the whole study had spent when this trial ended: ``seconds``, ``trials``, ``epochs``,
            ``device_seconds``; empty if it has not ended.
        why: Why it was proposed, if the sampler states it.
        decisions: Rung to the decisions there, in words and in order; a paused trial has more than one.
        variant: Form of the student that ``values`` belong to.
        variants: Other forms, as stored: ``values`` and ``feasible``, or the ``reason`` why there is none.
        noisy: Whether its latency was too noisy to settle.
    """

    number: int
    state: State
    values: Mapping[str, float]
    student: Params
    distillation: Params
    train: Params
    seed: int
    epochs: float = 0.0
    seconds: float = 0.0
    rungs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    spent: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    decisions: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    variant: str = "fp32"
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    noisy: bool = False

    @property
    def form(self) -> tuple[int, str]:
        """Return number and variant, which identify a point of a front: a trial may be on it in several forms."""
        return self.number, self.variant

    @property
    def called(self) -> str:
        """Return the number as text, with the variant if it is not ``fp32``: ``17 (int8)``."""
        return f"{self.number}{'' if self.variant == 'fp32' else f' ({self.variant})'}"

    @property
    def latest(self) -> dict[str, float]:
        """Return the latest value of each metric: known costs, then those of each rung, then the final values."""
        out: dict[str, float] = {}
        for rung in sorted(self.rungs):
            out.update({k: v for k, v in self.rungs[rung].items() if k not in WORK})
        return {**out, **self.values}

    def to_json(self) -> dict[str, Any]:
        """Return the trial as written by ``trials --json``."""
        out = asdict(self)
        out["state"] = self.state.value
        out["rungs"] = {str(rung): dict(values) for rung, values in self.rungs.items()}
        out["decisions"] = {str(rung): list(words) for rung, words in self.decisions.items()}
        return out


def plain(value: Any) -> Any:
    """Convert a number of another library to a Python number: of NumPy, a Decimal, a tensor or array of one element.

    Anything else is returned unchanged. A number beyond the range of a float becomes infinite.
    """
    if type(value) in (bool, int, float, str) or value is None:
        return value
    if not isinstance(value, numbers.Number) and callable(item := getattr(value, "item", None)):
        with contextlib.suppress(Exception):  # several elements, no data (meta tensors), no number at all
            value = item()
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, decimal.Decimal)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        return float(value)
    except OverflowError:
        negative: Any = value < 0
        return -math.inf if negative else math.inf
    except ValueError:  # a signalling NaN of Decimal
        return math.nan


MOST_WORK = 1e9
"""Most epochs, or seconds (31 years), that a trial can have taken; more is a mistake of what reports it."""


def is_finite(value: Any) -> bool:
    """Whether a value is a finite Python number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_possible_work(value: Any) -> bool:
    """Whether a trial can have taken so many epochs or seconds: from 0 to :data:`MOST_WORK`."""
    return is_finite(value) and 0 <= value <= MOST_WORK


def described(value: Any) -> str:
    """Describe a value that should have been a number: a number by itself, anything else by its type and shape."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}" if is_finite(value) or isinstance(value, float) else "a number beyond the range of a float"
    shape = getattr(value, "shape", None)
    module = type(value).__module__
    name = type(value).__qualname__ if module == "builtins" else f"{module}.{type(value).__qualname__}"
    return f"{name} of shape {tuple(shape)}" if isinstance(shape, tuple) else name


def derive_seed(seed: int, number: int, purpose: str) -> int:
    """Derive a 31-bit seed from the study's seed and a number, independent for each purpose."""
    digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
