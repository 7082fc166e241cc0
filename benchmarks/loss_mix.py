"""Benchmark of distillation: every loss against the same student without a teacher, at equal epochs.

    python benchmarks/loss_mix.py --json loss_mix.json [--quick] [--root FASHION_MNIST_FOLDER]

The data are digits and Fashion-MNIST, 200 and 1,000 training images, with a small student each. The teacher is trained
on all training images of the data set. The students, ``none`` included, are trained on the subset, because that is the
situation that distillation is for.

The settings of every loss, ``none`` included, are listed below and were not tuned. Per loss, the setting with the best
validation accuracy is chosen. The table shows its *test* accuracy over three seeds: mean, standard deviation, gain over
``none``, and whether the gain exceeds the larger of the two deviations. The best loss is the one with the highest
validation accuracy, so its test accuracy has no selection bias.

Every training is stored in the JSON file as soon as it ends, so the same command continues after an interruption. The
speed of the machine does not affect the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autodistill.core.records import DataSpec, stable_key
from autodistill.training.data import datasets
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.teacher_outputs import CachedTeacher
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.students import build as students
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.trials.teach import teach

VIEW_SEED = 0
SEEDS = (0, 1, 2)
MIXES: dict[str, list[dict[str, Any]]] = {
    "none": [{}, {"label_smoothing": 0.1}],
    "kd": [
        {"temperature": 4.0, "alpha": 0.5},
        {"temperature": 4.0, "alpha": 0.9},
        {"temperature": 2.0, "alpha": 0.9},
    ],
    "dkd": [{"temperature": 4.0, "beta": 2.0, "alpha": 0.5}, {"temperature": 4.0, "beta": 8.0, "alpha": 0.9}],
    "dist": [{"temperature": 1.0, "alpha": 0.5}, {"temperature": 4.0, "alpha": 0.9}],
    "logit_std": [{"temperature": 2.0, "alpha": 0.5}, {"temperature": 2.0, "alpha": 0.9}],
    "nkd": [{"temperature": 1.0, "alpha": 0.5}, {"temperature": 1.0, "alpha": 0.9}],
    "hard": [{"alpha": 0.5}, {"alpha": 0.9}],
    "logit_mse": [{"alpha": 0.5}, {"alpha": 0.9}],
    "soft_ce": [{"temperature": 1.0, "alpha": 0.9}, {"temperature": 4.0, "alpha": 1.0}],
    "kd+embed_cosine": [{"temperature": 4.0, "alpha": 0.9, "embedding": "embed_cosine", "embedding_weight": 0.3}],
    "kd+rkd": [{"temperature": 4.0, "alpha": 0.9, "embedding": "rkd", "embedding_weight": 0.3}],
    "kd+crd": [{"temperature": 4.0, "alpha": 0.9, "embedding": "crd", "embedding_weight": 0.3}],
}


@dataclass(frozen=True)
class Setting:
    """One data set with its students.

    Attributes:
        source: data source.
        train_size: number of images that students (and ``none``) train on.
        epochs: epochs of every student.
        batch_size: images per step.
        teacher_epochs: epochs of the teacher on all training images; ``None`` chooses them by the number of images.
        students: short name to architecture.
    """

    source: str
    train_size: int
    epochs: int
    batch_size: int
    teacher_epochs: int | None
    students: Mapping[str, Mapping[str, Any]]


FULL = (
    Setting(
        "digits", 200, 60, 16, None,
        {
            "resnetv2-8x2": {"family": "resnetv2", "width": 8, "depth": 1, "stages": 2},
        },
    ),
    Setting(
        "fashion_mnist", 1000, 60, 64, 6,
        {
            "resnetv2-8": {"family": "resnetv2", "width": 8, "depth": 1, "stages": 3, "reduction": 16},
        },
    ),
)  # fmt: skip
QUICK = (Setting("digits", 200, 8, 32, 8, {"resnetv2-8x2": FULL[0].students["resnetv2-8x2"]}),)


class Stored:
    """Finished trainings, kept in a JSON file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        self.runs: dict[str, dict[str, Any]] = stored.get("runs", {})

    def add(self, key: str, run: dict[str, Any]) -> None:
        """Store one training."""
        self.runs[key] = run
        self.write({})

    def write(self, more: Mapping[str, Any]) -> None:
        """Write all trainings, and ``more``, atomically."""
        if self._path is not None:
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps({**more, "runs": self.runs}, indent=1) + "\n")
            fresh.replace(self._path)


class Experiment:
    """Images, teacher and teacher cache of one setting."""

    def __init__(self, setting: Setting, root: str | None, folder: Path) -> None:
        self.setting = setting
        root = root if setting.source == "fashion_mnist" else None
        every = DataSpec(setting.source, root=root)
        self.data = datasets.load_images(DataSpec(setting.source, root=root, train_size=setting.train_size), folder)
        self.test = datasets.load_test(every, folder)
        self.feed = Feed.of(self.data)
        self.recipe = Recipe(batch_size=setting.batch_size, ema=0.0)
        spec = teach(
            datasets.load_images(every, folder), directory=folder / f"teacher-{setting.source}",
            epochs=setting.teacher_epochs, progress=_teaching,
        )  # fmt: skip
        self.teacher = teachers.load_teacher(spec, self.data)
        policy = self.recipe.policy()
        key = CacheKey(self.data.fingerprint, self.teacher.fingerprint, policy.view_key(), VIEW_SEED, "own size")
        self.cache = TeacherCache.open(
            folder / "cache", key, images=self.data.pool_size, classes=len(self.data.classes), views=setting.epochs,
            embedding=self.teacher.embedding_width(),
        )  # fmt: skip

    def train(self, student: Mapping[str, Any], mix: Mapping[str, Any], seed: int) -> dict[str, float]:
        """One student: accuracy on validation and test, parameters, CPU seconds."""
        data, epochs = self.data, self.setting.epochs
        start = time.process_time()
        model = students.build_student(
            student, image_size=data.image_size, channels=data.channels, num_classes=len(data.classes), seed=seed
        )
        teacher_outputs = CachedTeacher(self.teacher, self.cache, self.recipe.policy(), VIEW_SEED, embedding=True)
        criterion = Distillation(
            LossMix.parse(mix), teacher_outputs, student=model, teacher_width=self.teacher.embedding_width(), seed=seed
        )
        trainer = Trainer(
            model, self.feed, criterion, self.recipe, epochs=epochs, seed=seed, view_seed=VIEW_SEED, view_count=epochs
        )
        trainer.run(epochs)
        return {
            "validation": _accuracy(trainer, data.val),
            "test": _accuracy(trainer, self.test),
            "params": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": time.process_time() - start,
        }

    def teacher_accuracy(self) -> float:
        """On the test images."""
        pieces = torch.from_numpy(self.test.images).split(512)
        logits = torch.cat([self.teacher(piece.float().div(255)) for piece in pieces])
        return scores(logits, torch.from_numpy(self.test.labels))["accuracy"]


def _accuracy(trainer: Trainer, split: datasets.Split) -> float:
    logits: Tensor = trainer.predict(trainer.evaluation_model(), torch.from_numpy(split.images))
    return scores(logits, torch.from_numpy(split.labels))["accuracy"]


def _teaching(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
    if epoch == epochs:
        print(f"teacher: {epochs:g} epochs, {metrics['accuracy']:.4f} on validation", flush=True)


def mixes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each loss and the keywords for ``LossMix.parse``."""
    for name, settings in MIXES.items():
        for keywords in settings:
            yield name, {"loss": name.split("+")[0], **keywords}


def run(setting: Setting, root: str | None, folder: Path, stored: Stored) -> dict[str, Any]:
    """Run the trainings of one data set that are not stored yet, and return its table."""
    experiment = Experiment(setting, root, folder)
    tables = {}
    for name, student in setting.students.items():
        todo = [(kind, mix, seed) for kind, mix in mixes() for seed in SEEDS]
        rows = []
        for done, (kind, mix, seed) in enumerate(todo, 1):
            key = stable_key([asdict(setting) | {"students": None}, dict(student), mix, seed])
            if key not in stored.runs:
                found = experiment.train(student, mix, seed)
                stored.add(key, {"data": setting.source, "student": name, "kind": kind, "seed": seed, **mix, **found})
                result = f"{kind} seed {seed}: {found['validation']:.4f}, {found['seconds']:.1f} CPU s"
                print(f"{setting.source} {name} {done}/{len(todo)} {result}", flush=True)
            rows.append((kind, mix, stored.runs[key]))
        tables[name] = table(rows)
    return {"teacher_test": experiment.teacher_accuracy(), "setting": asdict(setting), "students": tables}


def table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return for every loss the setting that is best on validation, and its test accuracy."""
    picks: dict[str, dict[str, Any]] = {}
    for kind in MIXES:
        groups: dict[str, list[dict[str, Any]]] = {}
        for found_kind, mix, found in rows:
            if found_kind == kind:
                groups.setdefault(json.dumps(mix), []).append(found)
        mix, best = max(groups.items(), key=lambda item: statistics.mean(run["validation"] for run in item[1]))
        tests = [run["test"] for run in best]
        picks[kind] = {
            "mix": json.loads(mix),
            "validation": statistics.mean(run["validation"] for run in best),
            "test": statistics.mean(tests),
            "std": statistics.stdev(tests),
            "tests": tests,
        }
    base = picks["none"]
    for pick in picks.values():
        pick["gain"] = pick["test"] - base["test"]
        pick["spread"] = max(pick["std"], base["std"])
    best = max((kind for kind in picks if kind != "none"), key=lambda kind: picks[kind]["validation"])
    beats = picks[best]["gain"] > picks[best]["spread"]
    return {"params": rows[0][2]["params"], "best": best, "best_beats_none": beats, "kinds": picks}


def show(found: dict[str, Any]) -> None:
    setting = found["setting"]
    print(
        f"\n{setting['source']}: {setting['train_size']} training images, {setting['epochs']} epochs, "
        f"{len(SEEDS)} seeds; teacher {found['teacher_test']:.4f} on test (taught on all training images)"
    )
    for name, student in found["students"].items():
        print(f"\n{name}, {student['params']:,} parameters; test accuracy of the setting picked on validation")
        print(f"{'loss':16} {'mean':>7} {'std':>7} {'gain':>8}  over the spread   setting")
        for kind, pick in student["kinds"].items():
            mark = "-" if kind == "none" else ("yes" if pick["gain"] > pick["spread"] else "no")
            words = " ".join(f"{key}={value}" for key, value in pick["mix"].items() if key != "loss") or "-"
            print(f"{kind:16} {pick['test']:7.4f} {pick['std']:7.4f} {100 * pick['gain']:+7.2f}p  {mark:16}  {words}")
        best = student["kinds"][student["best"]]
        outcome = "beats" if student["best_beats_none"] else "does NOT beat"
        print(
            f"best on validation: {student['best']}; on test it {outcome} none by more than the spread of the seeds "
            f"({100 * best['gain']:+.2f} points, spread {100 * best['spread']:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures and the finished trainings")
    parser.add_argument("--quick", action="store_true", help="digits only, one student, 8 epochs")
    parser.add_argument("--root", help="folder of the Fashion-MNIST files")
    parser.add_argument("--work", type=Path, help="folder for teachers and caches; default: a temporary folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored = Stored(arguments.json)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.work or Path(name)
        found = [run(setting, arguments.root, folder, stored) for setting in (QUICK if arguments.quick else FULL)]
    for one in found:
        show(one)
    stored.write({"quick": arguments.quick, "seeds": SEEDS, "data": {one["setting"]["source"]: one for one in found}})


if __name__ == "__main__":
    main()
