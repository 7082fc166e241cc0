"""Benchmark of recipes for one student on photographs, beside a plain script of the same student.

    python benchmarks/photo_recipe.py --data-root PHOTOS --teacher teachers/photos --json out.json
    python benchmarks/photo_recipe.py --data-root PHOTOS --teacher teachers/photos --arms given,plain,plain_kd \
        --student '{"family": "repvit", "width": 16, "depth": 1}' --train '{"lr": 0.02, "augment": "flip_crop"}' \
        --distillation '{"loss": "kd", "temperature": 1.5, "alpha": 0.6}' --split test --json out.json

The arms ``plain`` and ``plain_kd`` use only torch and torchvision: an ``ImageFolder``, random resized crops, flips,
colour jitter, label smoothing, and AdamW with a cosine schedule. ``plain_kd`` adds distillation at temperature 3 from
the teacher's outputs for the same batch. Every other arm is a trial as the search runs it, with the settings in
``ARMS``. The arm ``given`` uses ``--train`` and ``--distillation``, for example those of a student that a search has
found. Every arm trains the same network for the same number of epochs on one thread.

The folder of images has ``train``, ``validation`` and ``test`` folders of classes. Recipes are compared on validation
images; use ``--split test`` only for a recipe that has been chosen. ``--quick`` draws its own images and trains a small
teacher.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext

KD = {"loss": "kd", "alpha": 0.5, "temperature": 3.0}
CROP = {"augment": "flip_resized_crop"}

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {"train": {"augment": "none"}},
    "crop": {"train": {"augment": "crop"}},
    "flip_crop": {"train": {"augment": "flip_crop"}},
    "flip_resized_crop": {"train": CROP},
    "photo": {"train": {"augment": "photo"}},
    "rand_photo": {"train": {"augment": "rand_photo"}},
    "smoothing": {"train": {**CROP, "label_smoothing": 0.1}},
    "mixup": {"train": {**CROP, "mixup": 0.2}},
    "cutmix": {"train": {**CROP, "cutmix": 1.0}},
    "kd_flip_crop": {"train": {"augment": "flip_crop"}, "distillation": KD},
    "kd": {"train": CROP, "distillation": KD},
    "kd_t1": {"train": CROP, "distillation": {**KD, "temperature": 1.0}},
    "kd_photo": {"train": {"augment": "photo"}, "distillation": KD},
    "kd_rand_photo": {"train": {"augment": "rand_photo"}, "distillation": KD},
    "kd_smoothing": {"train": {**CROP, "label_smoothing": 0.1}, "distillation": KD},
    "kd_mixup": {"train": {**CROP, "mixup": 0.2}, "distillation": KD},
    "kd_cutmix": {"train": {**CROP, "cutmix": 1.0}, "distillation": KD},
}
PLAIN = {"plain": False, "plain_kd": True}
"""Arms of the plain script, and whether they are distilled."""

STUDENT = {"family": "fasternet", "width": 16, "depth": 1}
SPLITS = {"validation": ("validation", "val", "valid"), "test": ("test", "testing")}

TeacherFunction = Callable[[Tensor], Tensor]


def trial(arguments: argparse.Namespace, data: DataSpec, settings: Mapping[str, Any], seed: int) -> float:
    """Return the accuracy of one trial as a search runs it, without rungs."""
    from autodistill.training.data import datasets
    from autodistill.training.loop.trainer import scores
    from autodistill.training.trials.evaluate import WorkerState
    from autodistill.training.trials.trial_files import load_student

    cache = arguments.work / "cache"
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        task = Task(
            data, TeacherSpec(str(arguments.teacher)), folder, (arguments.epochs,), ("accuracy",), cache=str(cache)
        )
        train = {"batch_size": arguments.batch_size, "lr": arguments.lr, **settings.get("train", {})}
        mix = settings.get("distillation", {"loss": "none"})
        candidate = Candidate(0, arguments.student, mix, train, seed)
        state = WorkerState(task, WorkerContext(threads=arguments.threads))
        found = [report.values for report in state.evaluate(candidate)][-1]["accuracy"]
        if arguments.split == "validation":
            return float(found)
        test, student = datasets.load_test(data, cache), load_student(folder, 0)
        trainer = state.trial(candidate).trainer(student)
        logits = trainer.predict(student.eval(), torch.from_numpy(test.images))
        return scores(logits, torch.from_numpy(test.labels))["accuracy"]


def plain(arguments: argparse.Namespace, teacher: TeacherFunction | None, seed: int) -> float:
    """Return the accuracy of the plain script; ``teacher`` returns logits of images in [0, 1]."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.manual_seed(seed)
    size, mean, std = arguments.image_size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4)
    drawn = [transforms.RandomResizedCrop(size, scale=(0.35, 1.0)), transforms.RandomHorizontalFlip(), jitter]
    whole = [transforms.Resize(size), transforms.CenterCrop(size)]
    into = transforms.ToTensor()
    train = ImageFolder(str(arguments.data_root / "train"), transforms.Compose([*drawn, into]))
    other = ImageFolder(str(split_folder(arguments.data_root, arguments.split)), transforms.Compose([*whole, into]))
    normalize = transforms.Normalize(mean, std)
    model = network(arguments.student, size, len(train.classes), seed).to(memory_format=torch.channels_last)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr)
    loader = torch.utils.data.DataLoader(train, batch_size=arguments.batch_size, shuffle=True, drop_last=True)
    steps, warm = arguments.epochs * len(loader), max(1, len(loader) // 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warm))
    for _ in range(arguments.epochs):
        model.train()
        for images, labels in loader:
            logits = model(normalize(images).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
            if teacher is not None:
                loss = 0.5 * loss + 0.5 * soft_loss(logits, teacher(images), 3.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(other, batch_size=256):
            right += int((model(normalize(images)).argmax(1) == labels).sum())
    return right / len(other)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return Hinton's distillation loss of logits ``(batch, classes)``."""
    soft, log = F.softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return F.kl_div(log, soft, reduction="batchmean") * temperature**2


def _rate(step: int, steps: int, warm: int) -> float:
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def network(student: Mapping[str, Any], size: int, classes: int, seed: int) -> nn.Module:
    """Build the student's architecture, newly initialised."""
    from autodistill.training.students import build as students

    return students.build_student(dict(student), image_size=size, channels=3, num_classes=classes, seed=seed)


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split.

    Raises:
        SystemExit: there is no such folder.
    """
    found = next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)
    if found is None:
        raise SystemExit(f"{root} has no folder {' or '.join(SPLITS[split])}")
    return found


def draw_photos(root: Path) -> None:
    """Write small class folders of drawn shapes, for ``--quick``."""
    from PIL import Image

    from autodistill.training.data import datasets

    data = datasets.load_images(DataSpec("synthetic", image_size=32, options={"classes": 3, "count": 240}))
    for name, part in (("train", data.train), ("validation", data.val), ("test", data.val)):
        for row, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            folder = root / name / data.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{row}.png")


def summary(results: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation over seeds of every arm."""
    return {
        arm: {
            "accuracy": list(found),
            "mean": statistics.fmean(found),
            "deviation": statistics.stdev(found) if len(found) > 1 else 0.0,
        }
        for arm, found in results.items()
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train every arm with every seed; finished trainings are read from the result file."""
    from autodistill.training.data import datasets
    from autodistill.training.teachers import load as teachers

    data = DataSpec("image_folder", root=str(arguments.data_root), image_size=arguments.image_size)
    facts = {
        name: getattr(arguments, name) for name in ("student", "epochs", "image_size", "lr", "batch_size", "split")
    }
    given = {"train": arguments.train, **({"distillation": arguments.distillation} if arguments.distillation else {})}
    arms = {**ARMS, "given": given}
    kept = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    same = all(kept.get(name) == value for name, value in facts.items()) and kept.get("given") in (None, given)
    results: dict[str, list[float]] = {a: r["accuracy"] for a, r in kept.get("arms", {}).items()} if same else {}
    teacher: TeacherFunction | None = None
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            if len(results.get(arm, [])) > seed:
                continue
            began = time.perf_counter()
            if arm not in PLAIN:
                accuracy = trial(arguments, data, arms[arm], seed)
            else:
                if PLAIN[arm] and teacher is None:
                    spec = TeacherSpec(str(arguments.teacher))
                    teacher = teachers.load_teacher(spec, datasets.load_images(data, arguments.work / "cache"), "cpu")
                accuracy = plain(arguments, teacher if PLAIN[arm] else None, seed)
            results.setdefault(arm, []).append(accuracy)
            took = time.perf_counter() - began
            print(f"{arm:20} seed {seed} {accuracy:.4f} ({took:.0f} s)", file=sys.stderr, flush=True)
            found = {**facts, "given": given, "arms": summary(results), "torch": torch.__version__}
            found["machine"] = f"{platform.machine()}, {arguments.threads} threads"
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return {**facts, "arms": summary(results)}


def parsed() -> argparse.Namespace:
    """Parse the arguments; make a data set and a teacher for ``--quick``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="folder with train, validation and test")
    parser.add_argument("--teacher", type=Path, help="folder of 'autodistill teach'; needed by all arms but plain")
    parser.add_argument("--student", type=json.loads, default=STUDENT, help="a student as JSON")
    parser.add_argument("--train", type=json.loads, default={}, help="training settings of the arm 'given', as JSON")
    parser.add_argument("--distillation", type=json.loads, default={}, help="loss mix of the arm 'given', as JSON")
    parser.add_argument("--arms", default=",".join([*ARMS, *PLAIN]), help="arms, comma-separated")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=4e-3, help="learning rate of the arms that set none")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", choices=tuple(SPLITS), default="validation")
    parser.add_argument("--work", type=Path, default=Path("runs/photo_recipe"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="drawn images, one seed, two epochs: checks the script")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.work = Path(tempfile.mkdtemp(prefix="photo-recipe-"))
        _quick(arguments)
    arguments.work = arguments.work.absolute()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.arms = arguments.arms.split(",")
    known = [*ARMS, *PLAIN, "given"]
    if unknown := [arm for arm in arguments.arms if arm not in known]:
        parser.error(f"--arms: unknown {', '.join(unknown)}; allowed: {', '.join(known)}")
    if arguments.data_root is None:
        parser.error("--data-root: give the folder of the photographs, or --quick")
    if arguments.teacher is None and (needing := [arm for arm in arguments.arms if PLAIN.get(arm, True)]):
        names = ", ".join(needing)
        parser.error(f"--teacher: {names} need one (trials report their agreement with it); give its folder")
    return arguments


def _quick(arguments: argparse.Namespace) -> None:
    from autodistill.training.data import datasets
    from autodistill.training.trials.teach import teach

    arguments.data_root, arguments.teacher = arguments.work / "photos", arguments.work / "teacher"
    arguments.image_size, arguments.epochs, arguments.seeds = 32, 2, 1
    arguments.student = {"family": "fasternet", "width": 8, "depth": 1}
    draw_photos(arguments.data_root)
    data = datasets.load_images(DataSpec("image_folder", root=str(arguments.data_root), image_size=32))
    teach(data, {"family": "fasternet", "width": 16, "depth": 1}, directory=arguments.teacher, epochs=2)


def main() -> None:
    """Measure what is missing and print the table."""
    arguments = parsed()
    found = measure(arguments)
    print(f"accuracy on {arguments.split}, {arguments.epochs} epochs, {json.dumps(arguments.student)}")
    for arm, row in sorted(found["arms"].items(), key=lambda pair: -pair[1]["mean"]):
        print(f"{arm:20} {row['mean']:.4f} ± {row['deviation']:.4f}  ({len(row['accuracy'])} seeds)")


if __name__ == "__main__":
    main()
