"""Training of a teacher: trains or fine-tunes a network on the study's images, or fits a classifier to a frozen one.

The result is a folder with ``teacher.safetensors``, ``teacher.json`` and a manifest, which ``teachers.load`` reads.
During training, checkpoints are in a folder next to it; repeating the same call resumes from the newest one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.core.errors import InterruptedTrialError, UsageError, WeightsError
from autodistill.core.records import TeacherSpec, stable_key
from autodistill.training.data.datasets import ImageData
from autodistill.training.distillation.class_weights import class_weights
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.runtime import durable_files
from autodistill.training.students import build as students
from autodistill.training.students.resolution import RESOLUTION, architecture
from autodistill.training.students.starting_weights import Statistics, statistics_of, weights_text
from autodistill.training.teachers.answers import answers
from autodistill.training.teachers.folder import TEACHER_JSON, TEACHER_WEIGHTS
from autodistill.training.teachers.teacher import Preprocessing
from autodistill.training.trials.frozen.teaching import FreezeOptions, fit_frozen, frozen_words, refuse_unused, unfrozen
from autodistill.training.weights.loading import LoadedWeights, read
from autodistill.training.weights.source import WeightSource, fetch, require, resolve, sized

Progress = Callable[[float, float, Mapping[str, float]], None]

_CHECKPOINT_SECONDS = 60.0
_OR_RANDOM = "Or start from random weights: leave out --pretrained."


def _no_progress(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
    """Ignore progress."""


def _no_announcement(plan: str) -> None:
    """Ignore the announcement."""


def default_architecture(image_size: int) -> dict[str, Any]:
    """Return a residual network that, for small images, trains in minutes on two CPU cores; larger ones need a GPU."""
    if image_size <= 12:
        return {"family": "resnet", "width": 12, "depth": 1}
    if image_size <= 40:
        return {"family": "resnetv2", "width": 32, "depth": 1, "stages": 3}
    return {"family": "resnet", "width": 64, "depth": 2}


def default_epochs(images: int, image_size: int = 64, *, pretrained: bool = False) -> int:
    """Return 4 to 20 epochs, for about 300,000 views of up to 64 px in total, and fewer of larger images.

    For a network that starts from pretrained weights it is a third of that, from 3 to 6 epochs.
    """
    views = 300_000 * min(1.0, (64 / image_size) ** 2)
    length = max(4, min(20, round(views / images)))
    return max(3, min(6, round(length / 3))) if pretrained else length


def is_photo_like(channels: int, image_size: int) -> bool:
    """Return whether images are treated as photographs, whose mirror images and crops keep their class.

    That holds for images with 3 channels and at least 48 px.
    """
    return channels == 3 and image_size >= 48


def teach(
    data: ImageData,
    model: str | Mapping[str, Any] | TeacherSpec | None = None,
    *,
    directory: str | Path,
    epochs: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    freeze: bool = False,
    unfreeze: int = 0,
    input_size: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    announce: Callable[[str], None] = _no_announcement,
    progress: Progress = _no_progress,
    should_stop: Callable[[], bool] = lambda: False,
    replace: bool = False,
) -> TeacherSpec:
    """Train a teacher on ``data`` and write it into ``directory``.

    Args:
        data: the images; accuracy is measured on the validation images only.
        model: a student mapping, or the name of a timm network; by default a residual network. It may also be the
            spec of an ``auto`` teacher, whose options give ``model``, ``epochs``, ``pretrained``, ``weights``,
            ``freeze``, ``unfreeze``, ``input_size`` and training settings. With ``weights`` that name their network it
            may be left out.
        directory: folder of the teacher to write.
        epochs: length of the schedule; if omitted, it depends on the number and size of the images.
        recipe: training settings that differ from the defaults.
        pretrained: start from timm's pretrained weights of ``model``.
        weights: text that names the weights to start from (``weights/source.py``), in place of ``pretrained``.
        freeze: keep the pretrained network ``model`` as it is, and fit a classifier to its features, which are computed
            once per view and cached.
        unfreeze: with ``freeze``, epochs for which the whole network is trained afterwards.
        input_size: with ``freeze``, pixels per side of the network's input; if omitted, it is chosen by the size of the
            images and the network's patches.
        device: device to train on.
        threads: CPU threads; ``None`` keeps torch's setting.
        seed: seed of initial weights, order and views.
        announce: function called once before the training with one line: network, length and recipe.
        progress: function called as ``progress(epochs done, epochs, metrics)``, about once a second.
        should_stop: function called between batches; if it returns true, a checkpoint is saved and the call raises.
        replace: overwrite another finished teacher in the folder; the same teacher is always kept.

    Returns:
        The spec of the teacher, for ``teachers.load``.

    Raises:
        UsageError: an architecture or setting is unknown, or the folder holds another teacher.
        WeightsError: the weights are not on this machine and cannot be downloaded, or do not fit the network.
        InterruptedTrialError: the training was stopped; the same call resumes it.
    """
    frozen = FreezeOptions(input_size, unfreeze) if freeze else None
    if frozen is None and (unfreeze or input_size is not None):
        raise UsageError("unfreeze and input_size belong to a frozen network; add --freeze (freeze=True).")
    plan = _plan(
        data, model, epochs=epochs, recipe=recipe or {}, pretrained=pretrained, weights=weights, frozen=frozen,
        seed=seed,
    )  # fmt: skip
    folder = Path(directory).expanduser().absolute()
    found = _finished(folder)
    if found.get("key") == plan.key:
        return TeacherSpec(str(folder))
    if found and not replace:
        raise UsageError(_other_teacher_message(folder, found, plan.facts(data)))
    require_weights(plan.source, pretrained=pretrained and not weights and plan.frozen is None)
    if plan.source is not None:
        announce(f"weights {sized(plan.source).words}")
        plan = replace_fields(plan, source=fetch(plan.source))
    if threads:
        torch.set_num_threads(threads)
    announce(plan.words(data))
    work = folder.parent / f"{folder.name}.training"
    taught = _taught if plan.frozen is None else _taught_frozen
    network, expects, logits = taught(plan, data, work, device, progress=progress, should_stop=should_stop)
    metrics = scores(logits, torch.from_numpy(data.val.labels))
    progress(plan.length, plan.length, metrics)
    _write(folder, plan, network, data, expects, metrics)
    shutil.rmtree(work, ignore_errors=True)
    return TeacherSpec(str(folder))


@dataclass(frozen=True)
class _Plan:
    """Network, recipe and length of the training.

    Attributes:
        source: weights to start from; ``None`` for random ones.
        frozen: options of a frozen network; ``None`` for a network that is trained as a whole.
        key: identifier that is equal for calls that train the same teacher.
    """

    student: dict[str, Any]
    epochs: int
    recipe: Recipe
    source: WeightSource | None
    frozen: FreezeOptions | None
    seed: int
    key: str

    @property
    def length(self) -> float:
        """Length of the teaching as shown in its progress: epochs, and views of a frozen network."""
        return self.epochs if self.frozen is None else self.frozen.views(self.recipe) + self.epochs

    def statistics(self, data: ImageData) -> Statistics:
        """Return the mean and standard deviation that the images are normalized with."""
        known = None if self.source is None else statistics_of(self.student, self.source, data.channels)
        return known or (tuple(data.mean), tuple(data.std))

    def facts(self, data: ImageData) -> dict[str, Any]:
        """Return the origin of the teacher, as stored with its weights."""
        size = {"image_size": data.image_size, "channels": data.channels} if self.frozen is None else {}
        return {
            "format": 1,
            "architecture": self.student,
            **size,
            "classes": data.classes,
            "task": data.kind,
            "epochs": self.epochs,
            "frozen": self.frozen is not None,
            "data": data.fingerprint,
            "held_out": data.held_out,
            "key": self.key,
            "weights": None if self.source is None else self.source.facts(),
        }

    def words(self, data: ImageData) -> str:
        """Describe the training in one line."""
        if self.frozen is not None:
            return frozen_words(students.describe(self.student), data, self.recipe, self.frozen)
        how = "training" if self.source is None else "fine-tuning pretrained"
        recipe = f"augment {self.recipe.augment}, lr {self.recipe.lr:g}, batch_size {self.recipe.batch_size}"
        what = f"{len(data.train):,} images of {data.image_size} px"
        length = f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
        return f"{how} {students.describe(self.student)} for {length} of {what} ({recipe})"

    def loaded(self, data: ImageData) -> LoadedWeights | None:
        """Read the weights to start from."""
        return None if self.source is None else read(self.source).for_classes(data.classes)

    def network(self, data: ImageData) -> nn.Module:
        """Build the network for the images' own size."""
        shape: dict[str, Any] = {
            "image_size": data.image_size,
            "channels": data.channels,
            "num_classes": len(data.classes),
        }
        return students.build_student(self.student, **shape, weights=self.loaded(data), seed=self.seed)

    def trainer(self, network: nn.Module, feed: Feed, data: ImageData, device: str) -> Trainer:
        """Build the trainer, before its first step."""
        balance = class_weights(self.recipe.class_weights, feed.labels, len(data.classes))
        mix = LossMix(label_smoothing=self.recipe.label_smoothing, kind=data.kind)
        criterion = Distillation(mix, class_weights=balance)
        return Trainer(
            network, feed, criterion, self.recipe, epochs=self.epochs, seed=self.seed, view_seed=self.seed,
            device=device,
        )  # fmt: skip


def _plan(
    data: ImageData,
    model: str | Mapping[str, Any] | TeacherSpec | None,
    *,
    epochs: int | None,
    recipe: Mapping[str, Any],
    pretrained: bool,
    weights: str | None,
    frozen: FreezeOptions | None,
    seed: int,
) -> _Plan:
    """Fill in defaults; options in an ``auto`` teacher's spec take precedence over the keywords."""
    if isinstance(model, TeacherSpec):
        options = dict(model.options)
        epochs = options.pop("epochs", epochs)
        pretrained, weights = options.pop("pretrained", pretrained), options.pop("weights", weights)
        frozen = FreezeOptions.take_from(options, frozen)
        network = options.pop("model", None)
        recipe = {**options, **recipe}
    else:
        network = model
    if frozen is not None:
        if network is None and weights is None:
            raise UsageError("a frozen network needs a name: --freeze --model NAME, a timm network with weights.")
        if epochs is not None:
            raise UsageError("epochs have no effect on a frozen network; train all of it afterwards: --unfreeze N.")
        refuse_unused(recipe, frozen)
        pretrained = weights is None
    student, source = starting_network(network, weights, pretrained=pretrained, image_size=data.image_size)
    pretrained = source is not None
    length = epochs or default_epochs(len(data.train), data.image_size, pretrained=pretrained)
    length = length if frozen is None else frozen.unfreeze
    if length < 1 and frozen is None:
        raise UsageError(f"epochs is {epochs}; allowed: 1 or more.")
    defaults = _defaults(data, pretrained=pretrained), {} if frozen is None else frozen.defaults()
    settings = Recipe.parse(*defaults, recipe, kind=data.kind)
    facts = [student, length, asdict(settings), pretrained, seed, data.fingerprint, len(data.train)]
    facts += [] if source is None else [source.identity]
    facts += [] if frozen is None else [asdict(frozen)]
    return _Plan(student, length, settings, source, frozen, seed, stable_key(facts))


def _taught(
    plan: _Plan, data: ImageData, work: Path, device: str, *, progress: Progress, should_stop: Callable[[], bool]
) -> tuple[nn.Module, Preprocessing, Tensor]:
    """Train the whole network; return it, its input, and its logits of the validation images."""
    mean, std = plan.statistics(data)
    feed = replace_fields(Feed.of(data), mean=mean, std=std)
    trainer = plan.trainer(plan.network(data), feed, data, device)
    _train(trainer, work, plan.key, progress=progress, should_stop=should_stop)
    network = trainer.evaluation_model()
    expects = Preprocessing(data.image_size, data.channels, mean, std)
    return network, expects, trainer.predict(network, torch.from_numpy(data.val.images))


def _taught_frozen(
    plan: _Plan, data: ImageData, work: Path, device: str, *, progress: Progress, should_stop: Callable[[], bool]
) -> tuple[nn.Module, Preprocessing, Tensor]:
    """Fit the classifier of a frozen network and train all of it if wanted; return the same as ``_taught``."""
    weights = plan.loaded(data)
    assert plan.frozen is not None
    assert weights is not None
    done = plan.frozen.views(plan.recipe)
    backbone = fit_frozen(
        data, plan.student, weights, plan.recipe, plan.frozen, seed=plan.seed, device=device, should_stop=should_stop,
        progress=lambda seen: progress(min(seen, done), plan.length, {}),
    )  # fmt: skip
    if not plan.epochs:
        return backbone.network, backbone.input, answers(backbone.teacher, data.val)
    adapted, feed = unfrozen(backbone, Feed.of(data))
    trainer = plan.trainer(adapted, feed, data, device)

    def trained(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        progress(done + epoch, done + epochs, metrics)

    _train(trainer, work, plan.key, progress=trained, should_stop=should_stop)
    network = trainer.evaluation_model()
    logits = trainer.predict(network, torch.from_numpy(data.val.images))
    return network.network, backbone.input, logits  # type: ignore[return-value]


def starting_network(
    model: str | Mapping[str, Any] | None, weights: str | None, *, pretrained: bool, image_size: int
) -> tuple[dict[str, Any], WeightSource | None]:
    """Return the network that a teacher is trained from, and its weights, which may not be on this machine.

    Args:
        model: a student mapping, or the name of a timm network; ``None`` takes that of the weights, or the default.
        weights: text that names the weights.
        pretrained: whether timm's weights of ``model`` are wanted if ``weights`` is ``None``.
        image_size: pixels per side of the images, which choose the default.

    Raises:
        UsageError: the network does not exist, or the weights do not name theirs.
        WeightsError: the weights do not exist.
    """
    if weights is not None:
        source = resolve(weights)
        if model is None:
            own = source.student and architecture(source.student)
            model = own or (None if source.arguments else source.name) or None
            if model is None:
                raise UsageError(f"weights {weights} do not say which network they are of; give it: --model NAME.")
    student = _architecture(model, image_size)
    if weights is None:
        if not pretrained:
            return student, None
        try:
            source = resolve(weights_text(student, {}))
        except WeightsError as error:
            raise WeightsError(f"{error} {_OR_RANDOM}") from error
    return student, source


def require_weights(source: WeightSource | None, *, pretrained: bool) -> None:
    """Check within seconds that weights to start from are here or can be fetched.

    Args:
        source: the weights, if there are any.
        pretrained: whether they are those of ``--pretrained``, for the message.

    Raises:
        WeightsError: they are not on this machine and the hub cannot be reached.
    """
    try:
        require([] if source is None else [source])
    except WeightsError as error:
        raise WeightsError(f"{error} {_OR_RANDOM}" if pretrained else str(error)) from error


def _write(
    folder: Path,
    plan: _Plan,
    network: nn.Module,
    data: ImageData,
    expects: Preprocessing,
    metrics: Mapping[str, float],
) -> None:
    """Write the weights, the facts needed to build the network, and its metrics."""
    made_for = {
        "image_size": expects.image_size,
        "channels": expects.channels,
        "mean": expects.mean,
        "std": expects.std,
    }
    facts = {**plan.facts(data), **made_for, "metrics": metrics}
    files = {
        TEACHER_WEIGHTS: durable_files.tensor_bytes(network.state_dict()),
        TEACHER_JSON: json.dumps(facts, indent=1).encode(),
    }
    durable_files.write_folder(folder, files)


def _train(
    trainer: Trainer,
    work: Path,
    key: str,
    *,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    """Train to the end of the schedule, from the newest checkpoint, saving checkpoints."""
    if (begun := durable_files.load(work, key=key)) is not None:
        trainer.restore(begun.tensors, begun.facts)
    shown = saved = time.monotonic()

    def save() -> None:
        tensors, facts = trainer.state()
        durable_files.save(work, durable_files.Checkpoint(trainer.step, key, tensors, facts))

    def tick() -> None:
        nonlocal shown, saved
        now = time.monotonic()
        if should_stop():
            save()
            done = trainer.epoch / trainer.epochs
            raise InterruptedTrialError(f"teaching stopped after {trainer.epoch:.1f} epochs; it can be resumed.", done)
        if now - shown >= 1.0:
            shown = now
            progress(trainer.epoch, trainer.epochs, {})
        if now - saved >= _CHECKPOINT_SECONDS:
            saved = now
            save()

    trainer.run(trainer.epochs, tick=tick)


def _architecture(model: str | Mapping[str, Any] | None, image_size: int) -> dict[str, Any]:
    if model is None:
        return students.validate(default_architecture(image_size))
    named = {"family": "timm", "model": model} if isinstance(model, str) else model
    if RESOLUTION in named:
        raise UsageError("resolution is a setting of students; a teacher sees the images as they are. Leave it out.")
    return students.validate(named)


def _defaults(data: ImageData, *, pretrained: bool) -> dict[str, Any]:
    """Return default training settings.

    Labels are not smoothed: smoothing gives a better classifier but a worse teacher (Müller et al., NeurIPS 2019).
    """
    large = len(data.train) > 20_000
    settings: dict[str, Any] = {"batch_size": 128 if large else 32, "ema": 0.999 if large else 0.99}
    if is_photo_like(data.channels, data.image_size):
        settings["augment"] = "flip_resized_crop"
    if pretrained:
        settings["lr"] = 1e-3  # a larger rate would destroy the pretrained features
    return settings


def _finished(folder: Path) -> dict[str, Any]:
    """Read the facts of the finished teacher in a folder; empty if there is none."""
    try:
        return dict(json.loads((folder / TEACHER_JSON).read_bytes()))
    except (OSError, ValueError):
        return {}


_COMPARED = ("architecture", "image_size", "channels", "classes", "frozen", "epochs", "data")


def _other_teacher_message(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the error message for a folder that holds another teacher."""
    plain = json.loads(json.dumps({name: wanted[name] for name in _COMPARED if name in wanted}))
    names = [name.replace("_", " ") for name in plain if found.get(name, False) != plain[name]]
    differs = ", ".join(names) if names else "training settings, training images or seed"
    return (
        f"{folder} holds another finished teacher (it differs in: {differs}), which studies may depend on. "
        "Choose another folder, or replace it: --replace (replace=True)."
    )
