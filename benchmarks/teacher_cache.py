"""Benchmark of the teacher cache: time saved and accuracy lost on Fashion-MNIST, with a ResNet-18 teacher.

    python benchmarks/teacher_cache.py --json cache.json [--quick]

One run gives four figures:

- images that the teacher processes in a study of ten trials; target: images x views, once;
- seconds of a trial with a filled cache against one with an online teacher; target: at most half;
- validation accuracy of cached against online distillation over three seeds; target: at most 0.3 points apart. With as
  many views as epochs both use the same pixels. With half as many the cache repeats views;
- bytes per view.

Timed trials alternate, so that a busy machine slows both kinds alike. ``--work`` keeps the teacher, the cache and every
finished trial, so that the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.teacher_outputs import CachedTeacher, OnlineTeacher
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.students import build as students
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.teachers.teacher import Teacher
from autodistill.training.trials.teach import teach

VIEW_SEED = 0
MIXES = ("kd", "dkd", "dist", "logit_std", "nkd")
TEACHER = {"family": "resnet", "width": 64, "depth": 2, "reduction": 16}  # ResNet-18: 11.2 million parameters
STUDENT = {"family": "resnet", "width": 8, "depth": 1, "reduction": 16}


@dataclass(frozen=True)
class Size:
    """Amount of training."""

    images: int
    epochs: int
    teacher_epochs: int
    trials: int
    seeds: int


FULL, QUICK = Size(2048, 8, 6, 10, 3), Size(256, 2, 1, 10, 3)
SETTINGS = {"batch_size": 32, "ema": 0.98}  # averaged weights reduce the noise of the last steps


@dataclass(frozen=True, eq=False)
class Experiment:
    """Data, teacher and amount of training."""

    data: datasets.ImageData
    feed: Feed
    teacher: Teacher
    size: Size

    def trial(self, mix: str, seed: int, cache: TeacherCache | None = None) -> tuple[float, float]:
        """Return validation accuracy and seconds of one student; without a cache the teacher runs online."""
        recipe = Recipe.parse(SETTINGS)
        policy = recipe.policy()
        online = OnlineTeacher(self.teacher)
        teacher_outputs = online if cache is None else CachedTeacher(self.teacher, cache, policy, VIEW_SEED)
        criterion = Distillation(LossMix.parse({"loss": mix, "alpha": 0.7}), teacher_outputs)
        trainer = Trainer(
            build(STUDENT, self.data, seed), self.feed, criterion, recipe, epochs=self.size.epochs, seed=seed,
            view_seed=VIEW_SEED, view_count=0 if cache is None else cache.views,
        )  # fmt: skip
        start = time.perf_counter()
        trainer.run(self.size.epochs)
        seconds = time.perf_counter() - start
        return accuracy(trainer, self.data), seconds


def build(network: dict[str, Any], data: datasets.ImageData, seed: int) -> nn.Module:
    return students.build_student(
        network, image_size=data.image_size, channels=data.channels, num_classes=len(data.classes), seed=seed
    )


def accuracy(trainer: Trainer, data: datasets.ImageData) -> float:
    logits = trainer.predict(trainer.evaluation_model(), torch.from_numpy(data.val.images))
    return scores(logits, torch.from_numpy(data.val.labels))["accuracy"]


class Done:
    """Finished trials, kept in a file and not trained again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, name: str, run: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        """Return accuracy and seconds of the trial ``name``; run it if it is not finished."""
        if name not in self.rows:
            self.rows[name] = list(run())
            self._path.write_text(json.dumps(self.rows))
            print(f"{name}: accuracy {self.rows[name][0]:.4f}, {self.rows[name][1]:.1f} s", flush=True)
        reached, seconds = self.rows[name]
        return reached, seconds


def prepare(size: Size, root: str | None, folder: Path) -> tuple[Experiment, float]:
    """Load data and train a teacher on them; return both and the teacher's accuracy."""
    data = datasets.load_images(DataSpec("fashion_mnist", root=root, train_size=size.images), folder)

    def print_progress(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        if epoch == epochs:
            print(f"teacher: {epochs:g} epochs, accuracy {metrics['accuracy']:.4f}", flush=True)

    spec = teach(
        data, TEACHER, directory=folder / "teacher", epochs=size.teacher_epochs, progress=print_progress,
        recipe=SETTINGS,
    )  # fmt: skip
    facts = json.loads((folder / "teacher" / "teacher.json").read_bytes())
    return Experiment(data, Feed.of(data), teachers.load_teacher(spec, data), size), facts["metrics"]["accuracy"]


def opened(experiment: Experiment, folder: Path, view_count: int) -> TeacherCache:
    """The cache of so many views, each in a folder of its own."""
    policy = Recipe().policy()
    key = CacheKey(
        experiment.data.fingerprint, experiment.teacher.fingerprint, policy.view_key(), VIEW_SEED, "as the student"
    )
    return TeacherCache.open(
        folder / f"cache-{view_count}", key, images=experiment.data.pool_size, classes=len(experiment.data.classes),
        views=view_count,
    )  # fmt: skip


def study(experiment: Experiment, cache: TeacherCache, done: Done) -> dict[str, Any]:
    """Run ten trials on one cache; return the teacher's forward passes and the seconds of trials."""
    seconds = []
    for k in range(experiment.size.trials):
        mix = MIXES[k % len(MIXES)]
        seconds.append(done.get(f"study {k} {mix}", lambda mix=mix, k=k: experiment.trial(mix, seed=k, cache=cache))[1])
    return {
        "trials": experiment.size.trials,
        "forwards": cache.total_forwards(),
        "images_x_views": len(experiment.feed.labels) * cache.views,
        "bytes_per_view": cache.bytes_per_view(),
        "first_trial_seconds": seconds[0],
        "later_trial_seconds": statistics.median(seconds[1:]),
    }


def compare(experiment: Experiment, full: TeacherCache, half: TeacherCache, done: Done) -> dict[str, Any]:
    """Compare online and cached trials, alternating; return the accuracy of each seed, and seconds."""
    rows: dict[str, list[tuple[float, float]]] = {"online": [], "cached": [], "cached, half the views": []}
    for seed in range(100, 100 + experiment.size.seeds):
        for name, cache in zip(rows, (None, full, half), strict=True):
            found = done.get(f"{name} seed {seed}", lambda seed=seed, cache=cache: experiment.trial("kd", seed, cache))
            rows[name].append(found)
    mean = {name: statistics.mean(a for a, _ in found) for name, found in rows.items()}
    online, warm = (statistics.median(s for _, s in rows[name]) for name in ("online", "cached"))
    return {
        "accuracy": {name: [a for a, _ in found] for name, found in rows.items()},
        "accuracy_mean": mean,
        "points_from_online": {name: 100 * (value - mean["online"]) for name, value in mean.items()},
        "online_seconds": online,
        "warm_seconds": warm,
        "warm_share_of_online": warm / online,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="an eighth of the images: checks only the script")
    parser.add_argument("--root", help="folder of the Fashion-MNIST files")
    parser.add_argument("--work", type=Path, help="folder for finished work, so that the same command continues")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.work or Path(name)) / ("quick" if arguments.quick else "full")
        folder.mkdir(parents=True, exist_ok=True)
        done = Done(folder / "done.json")
        experiment, reached = prepare(size, arguments.root, folder)
        with opened(experiment, folder, size.epochs) as full, opened(experiment, folder, size.epochs // 2) as half:
            done.get("the smaller cache is filled", lambda: experiment.trial("kd", 99, half))
            figures = {
                "teacher_accuracy": reached,
                **study(experiment, full, done),
                **compare(experiment, full, half, done),
            }
    print(f"teacher                        {figures['teacher_accuracy']:.4f} validation accuracy")
    print(f"teacher forwards, {size.trials} trials     {figures['forwards']} images")
    print(f"images x views                 {figures['images_x_views']}")
    print(f"bytes per view                 {figures['bytes_per_view']}")
    print(f"trial online / warm            {figures['online_seconds']:.1f} s / {figures['warm_seconds']:.1f} s")
    print(f"warm share of online           {figures['warm_share_of_online']:.2f}")
    for kind, points in figures["points_from_online"].items():
        values = " ".join(f"{value:.4f}" for value in figures["accuracy"][kind])
        print(f"{kind:30} {figures['accuracy_mean'][kind]:.4f}  {points:+.2f} points  ({values})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"quick": arguments.quick, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
