"""Compression of a finished student: quantized and pruned variants, compared with the study's front.

Every variant is an ONNX file below ``DIR/compress/trial-N/``; accuracy, bytes and latency are measured on that file. It
is made from the weights that ``export`` would write (``weights.source_of``), and so are the students it is compared
with. Pruned variants are fine-tuned with the trial's loss mix and the study's teacher cache. ``compress.json`` is
written after each variant; repeating the same call makes only the missing variants.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import DivergedError, InfeasibleError, ResourceError, UsageError, first_line
from autodistill.core.records import LATENCY, Candidate, Task, TrialRecord, stable_key
from autodistill.delivery.export.checks import Validation
from autodistill.delivery.export.compress_variants import (
    METHODS,
    PRUNING,
    Variant,
    joint_front,
    read_compressed,
    save_compressed,
    split_name,
    variant_names,
)
from autodistill.delivery.export.formats import Subject
from autodistill.delivery.export.weights import AUTO, Source, source_of, take_weights
from autodistill.delivery.export.write import CALIBRATION, MAX_DROP, evenly_spaced, normalized, study_config, validate
from autodistill.training.loop import decisions

if TYPE_CHECKING:
    from torch import nn

    from autodistill.config.study_file import StudyConfig
    from autodistill.training.trials.finetune import FineTuner

RATIOS = (0.3, 0.5, 0.7)
EPOCH_SHARE = 5
"""Divisor of the trial's epochs: by default, a fine-tuning takes one fifth of them."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Compressed:
    """Variants of a trial's student, and their comparison with the study's front.

    Attributes:
        trial: number of the trial.
        variants: the variants, ``fp32`` first.
        members: members of the study's front, as ``(trial, accuracy, bytes, latency_ms)`` of their ONNX files.
        beaten: numbers of the members that a variant dominates.
        axes: objectives of the joint front.
        max_drop: accuracy that a variant may lose and still be on the joint front.
        source: training that the student's weights come from.
        wanted: requested choice of weights: ``auto``, ``search`` or ``verified``.
    """

    trial: int
    variants: tuple[Variant, ...]
    members: tuple[tuple[int, float, int, float | None], ...]
    beaten: tuple[int, ...]
    axes: tuple[str, ...]
    max_drop: float = MAX_DROP
    source: Source | None = None
    wanted: str = AUTO

    def to_json(self) -> dict[str, Any]:
        """Return the stable format of ``compress --json``."""
        from dataclasses import asdict

        names = ("trial", "accuracy", "bytes", LATENCY)
        members = [dict(zip(names, one, strict=True)) for one in self.members]
        source = None if self.source is None else self.source.to_json()
        out = {**asdict(self), "variants": [asdict(one) for one in self.variants], "members": members}
        del out["source"], out["wanted"]
        return {**out, "weights": source}


def compress(
    directory: str | Path,
    trial: TrialRecord,
    *,
    front: Sequence[TrialRecord] = (),
    methods: Sequence[str] = METHODS,
    ratios: Sequence[float] = RATIOS,
    epochs: int | None = None,
    weights: str = AUTO,
    max_drop: float = MAX_DROP,
    latency: bool = True,
    progress: Progress = lambda _text: None,
) -> Compressed:
    """Make and measure the variants of a finished student.

    Args:
        directory: folder of the study.
        trial: trial of the student.
        front: the study's front, to find the variants that are on the joint front.
        methods: some of ``int8-static``, ``int8-dynamic``, ``fp16``, ``weights``, ``channels``.
        ratios: shares that the methods ``weights`` and ``channels`` prune.
        epochs: epochs of each fine-tuning; if omitted, a fifth of the study's top rung.
        weights: ``search``, ``verified``, or ``auto``: verified weights if ``verify`` stored them, else the search's.
        max_drop: validation accuracy that a variant may lose, as a fraction; a variant that loses more is not on the
            joint front.
        latency: measure the files while holding the machine's measurement lock.
        progress: function called with a description of each step.

    Raises:
        UnknownNameError: a method does not exist.
        UsageError: a ratio, number of epochs or choice of weights is not allowed.
        StoreError: the trial has no finished student.
    """
    names = variant_names(methods, ratios)
    work = _Work(Path(directory), trial, epochs, weights)
    progress(work.source.words)
    known = {one.name: one for one in read_compressed(directory, trial.number)}
    done: dict[str, Variant] = {}
    for name in names:
        key = work.key(name)
        before = known.get(name)
        if before is not None and before.key == key and (before.state == "failed" or work.intact(before)):
            done[name] = before
            continue
        progress(f"making {name}")
        done[name] = work.make(name, key)
        rest = [one for other, one in known.items() if other not in done]
        save_compressed(work.root, trial.number, [*done.values(), *rest])
    found = _compared(work, list(done.values()), front, latency, progress, max_drop)
    rest = [one for other, one in known.items() if other not in done]
    save_compressed(work.root, trial.number, [*found.variants, *rest])
    return found


class _Work:
    """The student of one trial, loaded once, and the steps that make its variants."""

    def __init__(self, root: Path, trial: TrialRecord, epochs: int | None, weights: str = AUTO) -> None:
        from autodistill.engines.setup.study_setup import study_parts
        from autodistill.training.data import datasets
        from autodistill.training.runtime.cache_folder import cache_folder

        self.cache = cache_folder().absolute()  # as in prepare: it has the teacher's outputs and the decoded images
        self.root, self.trial, self.weights = root, trial, weights
        self.config: StudyConfig = study_config(root)
        self.source = source_of(root, _plain(trial), weights)
        self.model: nn.Module
        self.model, self.facts = take_weights(root, trial, self.source)
        assert self.config.data is not None
        self.data = datasets.load_images(self.config.data, self.cache)
        self.levels: tuple[int, ...] = study_parts(self.config)["rungs"].levels
        self.epochs = epochs if epochs is not None else max(1, self.levels[-1] // EPOCH_SHARE)
        if self.epochs < 1:
            raise UsageError(f"epochs is {self.epochs}; fine-tuning takes at least 1.")
        self._tuned = f"fine-tuned for {self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        self.folder = root / "compress" / f"trial-{trial.number:05d}"

    @cached_property
    def subject(self) -> Subject:
        """The student and calibration images."""
        images = evenly_spaced(self.data.train.images, CALIBRATION)
        return Subject(self.model, self.facts, normalized(images, self.facts))

    @cached_property
    def validation(self) -> Validation:
        """Validation images, and the student's logits of them."""
        return validate(self.subject, self.data)

    @cached_property
    def tuner(self) -> FineTuner:
        """Fine-tuner of pruned networks; the teacher is loaded only if outputs are missing from its cache."""
        from autodistill.training.trials.finetune import FineTuner

        config, trial = self.config, self.trial
        assert config.data is not None
        teacher = config.teacher
        if teacher.source == "auto":
            teacher = replace(teacher, source=str(self.root / "teacher"), options={})
        task = Task(
            config.data, teacher, str(self.root), self.levels, (), config.latency, config.training, str(self.cache),
            kind=config.task,
        )  # fmt: skip
        candidate = Candidate(trial.number, trial.student, trial.distillation, trial.train, trial.seed)
        return FineTuner(task, candidate, epochs=self.epochs)

    def key(self, name: str) -> str:
        """Return an identifier that is equal for equal variants."""
        return stable_key([self.facts["key"], name, self.epochs if split_name(name)[0] in PRUNING else 0])

    def intact(self, variant: Variant) -> bool:
        """Return whether the file of a variant still exists with the same size."""
        path = self.root / variant.file
        return path.is_file() and path.stat().st_size == variant.bytes

    def make(self, name: str, key: str) -> Variant:
        """Make a variant and measure it, except its latency; if it cannot be made, return the reason in it.

        If a resource of the machine is missing (disk space, a package), the key is empty, so the next call tries again.
        """
        started = time.monotonic()
        path = self.folder / f"{name}.onnx"
        try:
            model = self._write(name, path)
            found = self._measured(name, path, model)
        except (InfeasibleError, DivergedError, ResourceError) as error:
            path.unlink(missing_ok=True)
            found = Variant(name, state="failed", remark=first_line(error, limit=None))
            key = "" if isinstance(error, ResourceError) else key
        return replace(found, key=key, weights=self.source.origin, seconds=time.monotonic() - started)

    def _write(self, name: str, path: Path) -> nn.Module:
        """Write the file of a variant; return the network from which its parameters are counted."""
        from autodistill.training.deployed.onnx_files import export_onnx
        from autodistill.training.deployed.quantize import quantize_int8, to_fp16

        method, ratio = split_name(name)
        size, channels = int(self.facts["image_size"]), int(self.facts["channels"])
        if method in ("int8-static", "int8-dynamic", "fp16"):
            source = self.folder / "fp32.onnx"
            if not source.is_file():
                export_onnx(self.model, source, image_size=size, channels=channels)
            if method == "fp16":
                to_fp16(source, path)
            else:
                kind: Any = method.removeprefix("int8-")
                quantize_int8(source, path, calibration=self.subject.calibration, method=kind)
            return self.model
        model = self.model if method == "fp32" else self._pruned(method, ratio)
        export_onnx(model, path, image_size=size, channels=channels)
        return model

    def _pruned(self, method: str, ratio: float) -> nn.Module:
        from autodistill.training.deployed.pruning import prune_channels, prune_weights

        if method == "weights":
            model, masks = prune_weights(self.model, ratio)
            return self.tuner.train(model, masks)
        size, channels = int(self.facts["image_size"]), int(self.facts["channels"])
        return self.tuner.train(prune_channels(self.model, ratio, image_size=size, channels=channels))

    def _measured(self, name: str, path: Path, model: nn.Module) -> Variant:
        from autodistill.training.costs.counts import known_costs
        from autodistill.training.deployed.onnx_files import run_onnx

        size, channels = int(self.facts["image_size"]), int(self.facts["channels"])
        accuracy = decisions.accuracy(run_onnx(path, self.validation.images), self.validation.labels)
        costs = known_costs(model, image_size=size, channels=channels)
        content = path.read_bytes()
        zeros = sum(int((one == 0).sum()) for key, one in model.named_parameters() if key.endswith("weight"))
        return Variant(
            name,
            state="ok",
            file=str(path.relative_to(self.root)),
            accuracy=accuracy,
            drop=self.validation.accuracy - accuracy,
            params=costs["params"],
            nonzero=costs["params"] - zeros,
            macs=costs["macs"],
            bytes=len(content),
            zipped=len(zlib.compress(content, 9)),
            remark=f"fine-tuned for {self.epochs} epoch{'s' * (self.epochs > 1)}"
            if split_name(name)[0] in PRUNING
            else "",
        )

    def member_file(self, trial: TrialRecord) -> Path:
        """Return the ONNX file of another student of the study, written once from the weights that export would use."""
        from autodistill.training.deployed.onnx_files import export_onnx

        wanted = AUTO if self.weights == "verified" else self.weights  # not every member was verified
        model, facts = take_weights(self.root, trial, source_of(self.root, _plain(trial), wanted))
        path = self.root / "compress" / f"trial-{trial.number:05d}" / f"as-trained-{facts['key']}.onnx"
        if not path.is_file():
            size, channels = int(facts["image_size"]), int(facts["channels"])
            export_onnx(model, path, image_size=size, channels=channels)
        return path


def _plain(trial: TrialRecord) -> TrialRecord:
    """Return the trial in fp32: compressed variants are always made from the fp32 student."""
    return replace(trial, variant="fp32")


def _compared(
    work: _Work,
    variants: list[Variant],
    front: Sequence[TrialRecord],
    latency: bool,
    progress: Progress,
    max_drop: float,
) -> Compressed:
    """Measure the latency of all files together, and find the joint front.

    Zeros among the weights do not change the operations of a file. For the front, a file with pruned weights therefore
    has the latency of fp32, because any measured difference is noise.
    """
    from autodistill.training.deployed.onnx_files import run_onnx

    others = [one for one in front if one.number != work.trial.number]
    if others:
        progress("writing files of the study's front, for comparison")
    files = {f"trial {one.number}": work.member_file(one) for one in others}
    accuracy = {
        name: decisions.accuracy(run_onnx(path, work.validation.images), work.validation.labels)
        for name, path in files.items()
    }
    good = [one for one in variants if one.state == "ok"]
    files |= {one.name: work.root / one.file for one in good}
    accuracy |= {one.name: one.accuracy or 0.0 for one in good}
    times: dict[str, float] = {}
    if latency:
        progress("measuring latency")
        times = _latencies(files, work)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    alike = {n: times.get("fp32", ms) if split_name(n)[0] == "weights" else ms for n, ms in times.items()}
    points = {n: (accuracy[n], float(sizes[n]), *([alike[n]] if n in alike else [])) for n in files}
    best = joint_front({n: p for n, p in points.items() if n not in {one.name for one in good if one.loses(max_drop)}})
    judged = [replace(one, front=one.name in best, latency_ms=times.get(one.name, one.latency_ms)) for one in variants]
    names = {one.number: f"trial {one.number}" for one in others}
    members = tuple((n, accuracy[name], sizes[name], times.get(name)) for n, name in names.items())
    beaten = tuple(number for number, name in names.items() if name not in best)
    axes = ("accuracy", "bytes", *((LATENCY,) if times else ()))
    return Compressed(
        work.trial.number, tuple(judged), members, beaten, axes, max_drop, source=work.source, wanted=work.weights
    )


def _latencies(files: dict[str, Path], work: _Work) -> dict[str, float]:
    from autodistill.training.costs.file_latency import file_latencies

    found = file_latencies(list(files.values()), work.config.latency)
    return dict(zip(files, found, strict=True)) if found is not None else {}
