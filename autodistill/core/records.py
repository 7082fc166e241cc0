"""Frozen values that cross rooms: what search, training, engines and delivery say to each other.

Everything here is plain data: picklable, JSON-able, free of torch, timm, optuna and ray.
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
"""Settings of one part of a candidate: name to JSON scalar, or list of them."""


Resize = Literal["crop", "squash", "letterbox"]
"""How an image that is not square becomes square."""


def stable_key(value: Any) -> str:
    """16 hex digits that are equal for equal JSON values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Estimate(float):
    """A cost that is predicted: the median, as a float, with the standard deviation of its logarithm.

    Whoever needs a number has the likeliest one; :func:`certain` leaves out what is not measured.
    """

    __slots__ = ("deviation",)

    def __new__(cls, value: float, deviation: float) -> Estimate:
        """``value`` is the median, ``deviation`` that of its logarithm: 0.1 means about 10 %."""
        made = super().__new__(cls, value)
        made.deviation = float(deviation)
        return made

    deviation: float

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float]]:
        return Estimate, (float(self), self.deviation)


def certain(costs: Mapping[str, float]) -> dict[str, float]:
    """Those of ``costs`` that are counted or measured."""
    return {name: value for name, value in costs.items() if not isinstance(value, Estimate)}


class Decision(enum.Enum):
    """What the study answers to a report."""

    CONTINUE = "continue"
    STOP = "stop"


class State(str, enum.Enum):
    """State of a trial. PARTIAL: paused, or the budget ended, or the run was interrupted; it can go on."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    PARTIAL = "PARTIAL"


@dataclass(frozen=True)
class Candidate:
    """One student and how it is to be distilled.

    Attributes:
        number: trial number in the study, from 0.
        student: architecture, e.g. ``{"family": "resnet", "width": 16, "depth": 2}``.
        distillation: loss mix, e.g. ``{"loss": "kd", "temperature": 4.0, "alpha": 0.7}``.
        train: recipe, e.g. ``{"lr": 3e-3, "weight_decay": 1e-4}``.
        seed: seed of everything random in this trial.
        start_rung: rungs below or at this one are already reported; > 0 when a trial goes on from its checkpoint.
    """

    number: int
    student: Params
    distillation: Params
    train: Params
    seed: int
    start_rung: int = 0

    def architecture_key(self) -> str:
        """Equal for candidates that share their student."""
        return stable_key(self.student)

    def key(self) -> str:
        """Equal for candidates that share student, distillation and recipe (the seed does not count)."""
        return stable_key([self.student, self.distillation, self.train])


WORK = (
    "epochs",
    "seconds",
    "teacher_seconds",
)  # kept of the work itself beside the values of a rung: no metric can have these names


@dataclass(frozen=True)
class Report:
    """What one rung showed.

    Attributes:
        rung: 0 for the known costs, then 1, 2, … up to the top rung.
        values: metric name to finite number (accuracy is a fraction from 0 to 1, latency_ms in ms, params a count);
            a metric called ``seconds`` or ``epochs`` is kept as ``reported_seconds`` or ``reported_epochs``.
        epochs: epochs trained so far in this trial (cumulative).
        seconds: seconds of work so far in this trial (cumulative, over resumes); at rung 0 those before its training.
        teacher_seconds: those of ``seconds`` in which the teacher was asked about views that no cache had; ``None`` for
            a training that asks no cached teacher.
        variants: at the top rung, other forms of the student (``int8``) to ``{"values": …}`` or ``{"reason": …}``.
        noisy: the latency among the values did not settle.

    Raises:
        TypeError: the values or the variants are no mapping, or rung, epochs or seconds are no numbers.
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
                raise TypeError(f"a report got {got!r} as its {name}; yield autodistill.Report(rung, {{name: value}}).")
        self._convert()

    def _convert(self) -> None:
        """Replace numbers of other libraries by Python's own: a report crosses processes and is stored as JSON."""
        for name in ("rung", "epochs", "seconds", "teacher_seconds"):
            number = plain(getattr(self, name))
            if not isinstance(number, (int, float)) and not (number is None and name == "teacher_seconds"):
                raise TypeError(f"a report got {described(number)} as its {name}; give it a number.")
            object.__setattr__(self, name, number)
        object.__setattr__(self, "values", {name: plain(value) for name, value in self.values.items()})


Evaluate = Callable[[Candidate], Iterator[Report]]
"""Yields ``Report(rung=0, known costs)`` first, then one per rung; stopping the iteration stops the work."""


@dataclass(frozen=True)
class Objective:
    """One axis of the front.

    Attributes:
        name: metric name, e.g. ``accuracy``.
        direction: ``maximize`` or ``minimize``.
        unit: ``fraction``, ``count``, ``ms``, ``bytes``.
        stage: ``known`` before training, or ``trained``.
        log: drawn and normalised on a logarithmic axis.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    stage: Literal["known", "trained"]
    log: bool = False
    description: str = ""

    def loss(self, value: float) -> float:
        """The value with its sign turned so that smaller is better."""
        return -value if self.direction == "maximize" else value


@dataclass(frozen=True)
class Constraint:
    """``metric operator bound``, e.g. ``latency_ms <= 5``.

    Attributes:
        metric: what is bounded.
        operator: ``<=`` or ``>=``.
        bound: in the metric's own unit; NaN while it waits for the teacher's value.
        below: the bound is the teacher's value less this (``accuracy >= teacher - 0.05``); ``None`` for a number.
    """

    metric: str
    operator: Literal["<=", ">="]
    bound: float
    below: float | None = None

    def violation(self, values: Mapping[str, float]) -> float:
        """How far ``values`` break it: ≤ 0 when satisfied (Optuna's convention); 0 when metric or bound is unknown."""
        if self.metric not in values or math.isnan(self.bound):
            return 0.0
        difference = values[self.metric] - self.bound
        return difference if self.operator == "<=" else -difference

    def chance(self, values: Mapping[str, float]) -> float:
        """Probability that ``values`` keep it: 0 or 1 unless its metric is an :class:`Estimate` (log-normal)."""
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
    """Which images, and how they are split.

    Attributes:
        source: registered name (``digits``, ``fashion_mnist``, ``image_folder`` …) or ``module:factory``.
        root: folder of the files, where the source needs one.
        image_size: pixels per side that the student sees; ``None`` keeps the source's own size.
        train_size: images kept for training; ``None`` keeps all.
        val_fraction: share of the training images held out for validation where the source has no such split.
        seed: seed of splits and subsets.
        options: further keywords of the source.
        resize: how images that are not square become square: ``crop`` (shorter side scaled, ends of the longer one cut
            off), ``squash`` (both sides scaled, proportions change), ``letterbox`` (longer side scaled, grey borders).
    """

    source: str
    root: str | None = None
    image_size: int | None = None
    train_size: int | None = None
    val_fraction: float = 0.15
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    resize: Resize = "crop"


@dataclass(frozen=True)
class TeacherSpec:
    """What to distil from.

    Attributes:
        source: a timm name, a file (``.safetensors``, ``.onnx``, logits ``.npz``), or ``module:factory``;
            ``auto`` trains one on the spot.
        weights: file with the weights, where ``source`` is only an architecture.
        options: keywords of the architecture, and of ``auto`` (``epochs``).
        accept_weak: go on although the preflight finds it weak.
        device: where it runs; a list spreads its layers over several devices; ``None`` is the student's device.
    """

    source: str = "auto"
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    accept_weak: bool = False
    device: str | list[str] | None = None


@dataclass(frozen=True)
class LatencyTarget:
    """Where latency is measured: runtime x device x batch x precision x threads; or who else says it.

    Attributes:
        command: measures an ONNX file on another machine, e.g. ``ssh board bench {onnx}``; prints JSON.
        table: CSV or JSON file with latencies of students that were measured elsewhere.
        timeout_s: seconds that the command may take.
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
        """Equal for equal targets."""
        return stable_key({k: v for k, v in asdict(self).items() if v is not None and k != "timeout_s"})


@dataclass(frozen=True)
class SurveyRow:
    """What was found out about one student before any training.

    Attributes:
        costs: metric to value; empty when it cannot be built.
        error: why it cannot be built; empty when it can.
        noisy: its latency did not settle.
    """

    student: Params
    costs: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    noisy: bool = False

    @property
    def settled(self) -> dict[str, float]:
        """What may be remembered: a latency that did not settle is measured again another time."""
        return {name: value for name, value in self.costs.items() if not (self.noisy and name == "latency_ms")}


@dataclass(frozen=True)
class Task:
    """Everything a worker needs to evaluate candidates of one study.

    Attributes:
        data: the images.
        teacher: the teacher, resolved (never ``auto``).
        directory: the study's folder (absolute); checkpoints live below it.
        rungs: cumulative epochs at rungs 1, 2, …; the last is the top rung.
        metrics: names of all objectives and constrained metrics.
        latency: target of ``latency_ms``.
        training: settings shared by all trials (batch_size, ema, amp, augment defaults …).
        cache: folder of decoded images and teacher caches, shared by studies; ``None``: below ``directory``.
        variants: forms in which a finished student is measured; ``fp32`` is the student itself.
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


def _no_progress(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


def _no_wait(what: str, seconds: float) -> None:
    """A wait that nobody watches."""


def _never() -> bool:
    return False


def _nothing() -> None:
    """What is said where nobody listens."""


@dataclass(frozen=True)
class WorkerContext:
    """What an engine gives to each worker.

    Attributes:
        index: worker number, from 0.
        device: torch device string of its slot.
        threads: CPU threads it may use.
        progress: called as ``progress(epochs done, epochs of the top rung, metrics)``, at most once a second.
        should_stop: asked between batches; true means: save and raise ``InterruptedTrialError``.
        waits: called as ``waits(for what, seconds)`` about once a second while the trial waits for another process,
            with the seconds since the last call, which are no work; at the end once more, with an empty text.
        devices: all devices of the slot, ``device`` first, where a candidate is trained on several; else empty.
        memory_share: part of the device's memory that the worker may use; below 1 where workers share a GPU.
        storage: URL where the files of trials are kept, for a worker that does not see the study's folder.
        pause: called where a training does something else than train (it evaluates, it waits): no progress is expected
            of it until the next call of ``progress``.
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
    pause: Callable[[], None] = _nothing


EvaluateFactory = Callable[[WorkerContext], Evaluate]
"""Built once per worker, so that data and teacher are loaded once; must be picklable for spawned workers."""


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial, as every reader sees it.

    Attributes:
        values: objectives of a COMPLETE trial; empty otherwise.
        rungs: rung to the values reported there.
        reason: code of why a trial is not COMPLETE (``RUNG_RULE``, ``INFEASIBLE``, ``NAN`` …); empty otherwise.
        message: the same for people.
        seconds: seconds of work, over resumes.
        spent: what the whole study had spent when this trial ended: ``seconds``, ``trials``, ``epochs``,
            ``device_seconds``; empty for one that has not ended.
        why: why it was proposed, where the sampler says so.
        decisions: rung to what was decided there and why, in order: a paused trial is decided on more than once.
        variant: the form of the student that ``values`` are of.
        variants: other forms, as they are stored: ``values`` and ``feasible``, or the ``reason`` why there is none.
        noisy: its latency did not settle when it was measured.
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
        """What tells it from every other point of a front: a trial may be there in several forms."""
        return self.number, self.variant

    @property
    def called(self) -> str:
        """Its number for people, with the form where that is not the trained one: ``17 (int8)``."""
        return f"{self.number}{'' if self.variant == 'fp32' else f' ({self.variant})'}"

    @property
    def latest(self) -> dict[str, float]:
        """Known costs, then what the highest rung showed, then the final values."""
        out: dict[str, float] = {}
        for rung in sorted(self.rungs):
            out.update({k: v for k, v in self.rungs[rung].items() if k not in WORK})
        return {**out, **self.values}

    def to_json(self) -> dict[str, Any]:
        """The stable JSON form of ``trials --json``."""
        out = asdict(self)
        out["state"] = self.state.value
        out["rungs"] = {str(rung): dict(values) for rung, values in self.rungs.items()}
        out["decisions"] = {str(rung): list(words) for rung, words in self.decisions.items()}
        return out


def plain(value: Any) -> Any:
    """A number of another library as Python's own: of NumPy, a Decimal, a tensor or array of one element.

    Anything else is returned as it is; a number beyond the range of a float becomes infinite.
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
    """A 31-bit seed from the study's seed and a count, independent for each purpose."""
    digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
