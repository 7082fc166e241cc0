"""Benchmark of imbalanced classes: class weights and balanced drawing against neither, at equal steps.

    python benchmarks/imbalance.py --json imbalance.json [--quick] [--root FASHION_MNIST_FOLDER]

The training images of Fashion-MNIST are thinned out so that the most frequent class has ``--most`` images and the
rarest one in fifty of it, the others in equal ratios between them (Cui et al. 2019). The test images stay balanced:
each class counts the same. One small student is trained with every setting, without a teacher and with one that was
trained on the same thinned-out images, three seeds each. A seed decides which images are kept, which class is how
frequent, the first weights and the order of the images; settings are compared on the same three seeds.

The target: weights or balanced drawing win balanced accuracy by more than the spread (standard deviation) of the seeds,
of either setting. ``--quick`` uses digits and one seed; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.distillation.class_weights import class_weights
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.teacher_outputs import OnlineTeacher
from autodistill.training.loop.measures import class_recalls
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.students import build as students
from autodistill.training.teachers import load as teachers
from autodistill.training.trials.teach import teach

RATIO = 50
ARMS: dict[str, dict[str, str]] = {
    "neither": {},
    "class_weights=effective": {"class_weights": "effective"},
    "class_weights=balanced": {"class_weights": "balanced"},
    "sampler=balanced": {"sampler": "balanced"},
}
MIXES: dict[str, dict[str, Any]] = {
    "no teacher": {"loss": "none"},
    "kd": {"loss": "kd", "temperature": 2.0, "alpha": 0.5},
}
MEASURES = ("balanced_accuracy", "worst_recall", "macro_f1", "log_loss")


@dataclass(frozen=True)
class Size:
    """Extent of the benchmark.

    Attributes:
        source: data source.
        most: training images of the most frequent class.
        epochs: epochs of student and teacher.
        seeds: seeds of every setting.
        test: test images; all if larger.
        student: its architecture.
    """

    source: str
    most: int
    epochs: int
    seeds: tuple[int, ...]
    test: int
    student: dict[str, Any]


FULL = Size("fashion_mnist", 500, 20, (0, 1, 2), 10_000, {"family": "resnetv2", "width": 8, "depth": 1, "stages": 3})
QUICK = Size("digits", 100, 3, (0,), 200, {"family": "resnetv2", "width": 4, "depth": 1, "stages": 2})


def thinned(data: ImageData, most: int, seed: int) -> ImageData:
    """Keep of each class between ``most`` and ``most / RATIO`` training images, in equal ratios."""
    rng = np.random.default_rng(seed)
    order, last = rng.permutation(len(data.classes)), len(data.classes) - 1
    rows = []
    for place, label in enumerate(order):
        members = np.flatnonzero(data.train.labels == label)
        rows.append(rng.permutation(members)[: max(1, round(most * RATIO ** (-place / last)))])
    keep = np.sort(np.concatenate(rows))
    train = Split(np.array(data.train.images[keep]), data.train.labels[keep], data.train.ids[keep])
    mean, std = datasets.channel_statistics(train.images)
    fingerprint = f"{data.fingerprint}-{most}-{seed}"
    return replace(data, train=train, mean=mean, std=std, fingerprint=fingerprint)


def train(data: ImageData, test: Split, size: Size, *, arm: str, mix: str, seed: int, teacher: Any) -> dict[str, Any]:
    """Train one student and return its measures on the balanced test images."""
    recipe = replace(Recipe(batch_size=32, ema=0.9), **ARMS[arm])  # type: ignore[arg-type]
    shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
    model = students.build_student(size.student, **shape, seed=seed)
    feed = Feed.of(data)
    weights = class_weights(recipe.class_weights, feed.labels, len(data.classes))
    outputs = None if teacher is None else OnlineTeacher(teacher)
    criterion = Distillation(LossMix.parse(MIXES[mix]), outputs, class_weights=weights)
    trainer = Trainer(model, feed, criterion, recipe, epochs=size.epochs, seed=seed, view_seed=seed)
    trainer.run(size.epochs)
    logits = trainer.predict(trainer.evaluation_model(), torch.from_numpy(test.images))
    found = scores(logits, torch.from_numpy(test.labels))
    recalls = class_recalls(logits.double().numpy(), test.labels)[1]
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    rare = np.argsort(counts)[:3]
    return {
        **{name: found[name] for name in MEASURES},
        "rare_recall": float(recalls[rare].mean()),
        "frequent_recall": float(recalls[np.argsort(-counts)[:3]].mean()),
    }


def run(size: Size, root: str | None, folder: Path, path: Path | None) -> dict[str, Any]:
    """Run every training and return the table; finished trainings are read from ``path``."""
    stored: dict[str, Any] = json.loads(path.read_text())["runs"] if path is not None and path.is_file() else {}
    spec = DataSpec(size.source, root=root)
    data, test = datasets.load_images(spec, folder), datasets.load_test(spec, folder)
    test = Split(np.array(test.images[: size.test]), test.labels[: size.test], test.ids[: size.test])
    for seed in size.seeds:
        few = thinned(data, size.most, seed)
        teacher = None
        for mix in MIXES:
            if mix == "kd":
                taught = teach(
                    few, {**size.student, "width": 4 * size.student["width"]}, directory=folder / f"teacher-{seed}",
                    epochs=size.epochs, seed=seed,
                )  # fmt: skip
                teacher = teachers.load_teacher(taught, few)
            for arm in ARMS:
                key = f"{mix} / {arm} / {seed}"
                if key in stored:
                    continue
                start = time.perf_counter()
                stored[key] = train(few, test, size, arm=arm, mix=mix, seed=seed, teacher=teacher)
                stored[key]["seconds"] = time.perf_counter() - start
                print(f"{key}: balanced accuracy {stored[key]['balanced_accuracy']:.4f}", flush=True)
                if path is not None:
                    path.write_text(json.dumps({"runs": stored}, indent=1) + "\n")
    return {"runs": stored, "images": len(few.train), "test_images": len(test), "table": table(stored, size)}


def table(runs: dict[str, Any], size: Size) -> dict[str, Any]:
    """Summarise the runs: mean and standard deviation over the seeds, and the gain over ``neither``."""
    out: dict[str, Any] = {}
    for mix in MIXES:
        plain = _over(runs, mix, "neither", size)
        for arm in ARMS:
            found = _over(runs, mix, arm, size)
            spread = max(plain["balanced_accuracy"][1], found["balanced_accuracy"][1])
            gain = found["balanced_accuracy"][0] - plain["balanced_accuracy"][0]
            out[f"{mix} / {arm}"] = {**found, "gain": gain, "spread": spread, "wins": gain > spread}
    return out


def _over(runs: dict[str, Any], mix: str, arm: str, size: Size) -> dict[str, tuple[float, float]]:
    rows = [runs[f"{mix} / {arm} / {seed}"] for seed in size.seeds]
    names = (*MEASURES, "rare_recall", "frequent_recall")
    return {name: _mean_std([row[name] for row in rows]) for name in names}


def _mean_std(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file of all figures; finished trainings in it are not repeated")
    parser.add_argument("--quick", action="store_true", help="digits, one seed")
    parser.add_argument("--root", default="/usr/share/datasets/fashion-mnist", help="folder of Fashion-MNIST")
    parser.add_argument("--most", type=int, help="training images of the most frequent class")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = QUICK if arguments.quick else FULL
    if arguments.most:
        size = replace(size, most=arguments.most)
    root = None if arguments.quick else arguments.root
    with tempfile.TemporaryDirectory() as folder:
        found = run(size, root, Path(folder), arguments.json)
    print(f"{found['images']} training images, {found['test_images']} test images, {len(size.seeds)} seeds")
    print(f"{'setting':40s}  balanced accuracy   gain    worst recall  rare classes  frequent classes")
    for name, row in found["table"].items():
        mean, std = row["balanced_accuracy"]
        shown = [f"{row[key][0]:.3f}" for key in ("worst_recall", "rare_recall", "frequent_recall")]
        wins = "*" if row["wins"] else " "
        print(f"{name:40s}  {mean:.4f} ± {std:.4f}  {row['gain']:+.4f}{wins}  {'          '.join(shown)}")
    print("* the gain in balanced accuracy exceeds the spread of the seeds")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
