"""Makes a teacher where there is none: trains or fine-tunes a network on the study's own images.

The result is a folder with ``teacher.safetensors``, ``teacher.json`` and a manifest, which
``teachers.load`` reads. While it trains, checkpoints lie beside it; the same call again goes on from the
newest one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autodistill.core.errors import InterruptedTrialError, UsageError
from autodistill.core.records import TeacherSpec, stable_key
from autodistill.training.data.datasets import ImageData
from autodistill.training.distillation.class_weights import class_weights
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.runtime import durable_files
from autodistill.training.students import build as students
from autodistill.training.students.pretrained import require_pretrained
from autodistill.training.teachers.folder import TEACHER_JSON, TEACHER_WEIGHTS

Progress = Callable[[float, float, Mapping[str, float]], None]

_CHECKPOINT_SECONDS = 60.0


def _silent(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


def _unsaid(plan: str) -> None:
    """A plan that nobody reads."""


def default_architecture(image_size: int) -> dict[str, Any]:
    """A residual network that two CPU cores train in minutes at small sizes, and a GPU at all."""
    if image_size <= 12:
        return {"family": "resnet", "width": 12, "depth": 1}
    if image_size <= 40:
        return {"family": "resnetv2", "width": 32, "depth": 1, "stages": 3}
    return {"family": "resnet", "width": 64, "depth": 2}


def default_epochs(images: int, image_size: int = 64, *, pretrained: bool = False) -> int:
    """Enough for about 300,000 views of at most 64 px in all, fewer of larger ones; from 4 to 20 epochs.

    A network that starts from pretrained weights takes a third of that, from 3 to 6 epochs.
    """
    views = 300_000 * min(1.0, (64 / image_size) ** 2)
    length = max(4, min(20, round(views / images)))
    return max(3, min(6, round(length / 3))) if pretrained else length


def is_photo_like(channels: int, image_size: int) -> bool:
    """Whether images are taken for photographs, whose mirror images and parts are of the same class: colour, 48 px."""
    return channels == 3 and image_size >= 48


def teach(
    data: ImageData,
    model: str | Mapping[str, Any] | TeacherSpec | None = None,
    *,
    directory: str | Path,
    epochs: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    announce: Callable[[str], None] = _unsaid,
    progress: Progress = _silent,
    should_stop: Callable[[], bool] = lambda: False,
    replace: bool = False,
) -> TeacherSpec:
    """Train a teacher on ``data`` and write it into ``directory``.

    Args:
        data: the images; accuracy is measured on validation only.
        model: a student mapping, or the name of a timm network; a residual network by default. The spec of an
            ``auto`` teacher gives ``model``, ``epochs``, ``pretrained`` and training settings as its options.
        directory: the folder that will be the teacher.
        epochs: length of the schedule; by the number and size of the images if omitted.
        recipe: training settings that differ from the defaults.
        pretrained: start from timm's weights.
        device: where it trains.
        threads: CPU threads; ``None`` leaves torch's number.
        seed: of initial weights, order and views.
        announce: called once before the training, with one line: network, length and recipe.
        progress: called as ``progress(epochs done, epochs, metrics)``, about once a second.
        should_stop: asked between batches; true saves and raises.
        replace: another finished teacher in the folder may be written over; the same one is kept as it is.

    Returns:
        What ``teachers.load`` takes.

    Raises:
        UsageError: an unknown architecture or setting, or the folder holds another teacher.
        TeacherError: pretrained weights that are not here, and cannot be fetched.
        InterruptedTrialError: stopped; the same call goes on.
    """
    plan = _plan(data, model, epochs=epochs, recipe=recipe or {}, pretrained=pretrained, seed=seed)
    folder = Path(directory).expanduser().absolute()
    found = _finished(folder)
    if found.get("key") == plan.key:
        return TeacherSpec(str(folder))
    if found and not replace:
        raise UsageError(_another(folder, found, plan.facts(data)))
    weights = plan.student.get("variant", plan.student.get("model"))
    if plan.pretrained and weights is not None:  # timm itself tries for a minute, and says it in twenty lines
        require_pretrained(str(weights), to_train_on=True)
    if threads:
        torch.set_num_threads(threads)
    announce(plan.words(data))
    trainer = plan.trainer(data, device)
    work = folder.parent / f"{folder.name}.training"
    if (begun := durable_files.load(work, key=plan.key)) is not None:
        trainer.restore(begun.tensors, begun.facts)
    _train(trainer, work, plan.key, progress=progress, should_stop=should_stop)
    network = trainer.evaluation_model()
    metrics = scores(trainer.predict(network, torch.from_numpy(data.val.images)), torch.from_numpy(data.val.labels))
    progress(trainer.epochs, trainer.epochs, metrics)
    _write(folder, plan, network, data, metrics)
    shutil.rmtree(work, ignore_errors=True)
    return TeacherSpec(str(folder))


@dataclass(frozen=True)
class _Plan:
    """What is trained, and for how long.

    Attributes:
        key: equal for calls that make the same teacher.
    """

    student: dict[str, Any]
    epochs: int
    recipe: Recipe
    pretrained: bool
    seed: int
    key: str

    def facts(self, data: ImageData) -> dict[str, Any]:
        """What is kept beside the weights: what it takes to build the network, and what it was made from."""
        return {
            "format": 1,
            "architecture": self.student,
            "image_size": data.image_size,
            "channels": data.channels,
            "mean": data.mean,
            "std": data.std,
            "classes": data.classes,
            "epochs": self.epochs,
            "data": data.fingerprint,
            "key": self.key,
        }

    def words(self, data: ImageData) -> str:
        """One line about it."""
        how = "fine-tuning pretrained" if self.pretrained else "training"
        recipe = f"augment {self.recipe.augment}, lr {self.recipe.lr:g}, batch_size {self.recipe.batch_size}"
        what = f"{len(data.train):,} images of {data.image_size} px"
        length = f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
        return f"{how} {students.describe(self.student)} for {length} of {what} ({recipe})"

    def trainer(self, data: ImageData, device: str) -> Trainer:
        """The training, at its beginning."""
        shape: dict[str, Any] = {
            "image_size": data.image_size,
            "channels": data.channels,
            "num_classes": len(data.classes),
        }
        network = students.build_student(self.student, **shape, pretrained=self.pretrained, seed=self.seed)
        feed = Feed.of(data)
        weights = class_weights(self.recipe.class_weights, feed.labels, len(data.classes))
        criterion = Distillation(LossMix(label_smoothing=self.recipe.label_smoothing), class_weights=weights)
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
    seed: int,
) -> _Plan:
    """Defaults filled in; the options of an ``auto`` teacher's spec go before ``epochs`` and ``pretrained``."""
    if isinstance(model, TeacherSpec):
        options = dict(model.options)
        epochs = options.pop("epochs", epochs)
        pretrained = options.pop("pretrained", pretrained)
        student = _architecture(options.pop("model", None), data)
        recipe = {**options, **recipe}
    else:
        student = _architecture(model, data)
    length = epochs or default_epochs(len(data.train), data.image_size, pretrained=pretrained)
    if length < 1:
        raise UsageError(f"epochs is {epochs}; allowed: 1 or more.")
    settings = Recipe.parse(_defaults(data, pretrained=pretrained), recipe)
    key = stable_key([student, length, asdict(settings), pretrained, seed, data.fingerprint, len(data.train)])
    return _Plan(student, length, settings, pretrained, seed, key)


def _write(folder: Path, plan: _Plan, network: nn.Module, data: ImageData, metrics: Mapping[str, float]) -> None:
    """Weights, and what is needed to build and to judge the network."""
    facts = {**plan.facts(data), "metrics": metrics}
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
    """Run to the end with checkpoints."""
    said = saved = time.monotonic()

    def save() -> None:
        tensors, facts = trainer.state()
        durable_files.save(work, durable_files.Checkpoint(trainer.step, key, tensors, facts))

    def tick() -> None:
        nonlocal said, saved
        now = time.monotonic()
        if should_stop():
            save()
            done = trainer.epoch / trainer.epochs
            raise InterruptedTrialError(f"teaching stopped after {trainer.epoch:.1f} epochs; it can go on.", done)
        if now - said >= 1.0:
            said = now
            progress(trainer.epoch, trainer.epochs, {})
        if now - saved >= _CHECKPOINT_SECONDS:
            saved = now
            save()

    trainer.run(trainer.epochs, tick=tick)


def _architecture(model: str | Mapping[str, Any] | None, data: ImageData) -> dict[str, Any]:
    if model is None:
        return students.validate(default_architecture(data.image_size))
    named = {"family": "timm", "model": model} if isinstance(model, str) else model
    return students.validate(named)


def _defaults(data: ImageData, *, pretrained: bool) -> dict[str, Any]:
    """Training settings where the caller names none.

    Labels are not smoothed, which makes a better classifier and a worse teacher (Müller et al., NeurIPS 2019).
    """
    large = len(data.train) > 20_000
    settings: dict[str, Any] = {"batch_size": 128 if large else 32, "ema": 0.999 if large else 0.99}
    if is_photo_like(data.channels, data.image_size):
        settings["augment"] = "flip_resized_crop"
    if pretrained:
        settings["lr"] = 1e-3  # a network that has learned already forgets with more
    return settings


def _finished(folder: Path) -> dict[str, Any]:
    """What is kept of the teacher in a folder; nothing where there is none."""
    try:
        return dict(json.loads((folder / TEACHER_JSON).read_bytes()))
    except (OSError, ValueError):
        return {}


_COMPARED = ("architecture", "image_size", "channels", "classes", "epochs", "data")


def _another(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What is said of a folder that holds another teacher."""
    plain = json.loads(json.dumps({name: wanted[name] for name in _COMPARED}))
    names = [name.replace("_", " ") for name in _COMPARED if found.get(name) != plain[name]]
    differs = ", ".join(names) if names else "training settings, training images or seed"
    return (
        f"{folder} holds another finished teacher (it differs in: {differs}), which studies may depend on. "
        "Choose another folder, or replace it: --replace (replace=True)."
    )
