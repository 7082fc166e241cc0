"""Benchmark of the training loop with a filled teacher cache, against a bare loop and timm's distillation task.

    python benchmarks/training.py --json training.json [--quick] [--root FASHION_MNIST_FOLDER]

Three loops distil the same student by ``kd`` from the same teacher, with the same images, batch size and optimizer:

ours     ``Trainer`` with the teacher cache filled, as in every trial of a study but the first.
bare     The loop in this file: the same views, loss, optimizer, clipping and averaging of weights, with the teacher's
         logits in a table in memory. It is an upper bound of the speed. Target: ours reaches 0.95 of it.
timm     ``timm.task.LogitDistillationTask`` with the teacher in the loop, fed by a torch ``DataLoader`` with
         torchvision's random crop, without and with one loader process. The faster of the two counts. Target: ours is
         1.3 times as fast.

The loops alternate epoch by epoch, so that a busy machine slows all of them. Ratios are computed within a round, and
their median and range are printed. On a GPU the idle share of its time is printed for ours.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autodistill.core.records import DataSpec
from autodistill.training.augmentation import policy as views
from autodistill.training.data import datasets
from autodistill.training.distillation import distillation_losses as losses
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.teacher_outputs import CachedTeacher
from autodistill.training.loop.optimizers import build_optimizer, learning_rate
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer
from autodistill.training.students import build as students
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.teachers.teacher import Preprocessing, Teacher, freeze

TEACHER = {"family": "resnetv2", "width": 32, "depth": 1, "stages": 3}  # what `autodistill teach` trains at 28 px
STUDENTS = {
    "small": {"family": "resnetv2", "width": 8, "depth": 1, "stages": 3, "reduction": 16},
    "medium": {"family": "resnetv2", "width": 16, "depth": 1, "stages": 3, "reduction": 16},
}
TEMPERATURE, ALPHA, SEED = 4.0, 0.9, 0
MIX = LossMix(
    "kd", keywords={"temperature": TEMPERATURE}, calibrate=False, task_weight=1 - ALPHA, distillation_weight=ALPHA
)
RECIPE = Recipe(batch_size=64)
Epoch = Callable[[], None]


class Setup:
    """Images, the teacher and its filled cache. The teacher's weights are random, which takes the same time."""

    def __init__(self, root: str | None, images: int, epochs: int, folder: Path, device: torch.device) -> None:
        self.device, self.epochs = device, epochs
        self.data = datasets.load_images(DataSpec("fashion_mnist", root=root, train_size=images), folder)
        self.feed = Feed.of(self.data).near(device)
        network = freeze(self.build(TEACHER), device)
        expects = Preprocessing(self.data.image_size, self.data.channels, self.data.mean, self.data.std)
        self.teacher = Teacher("benchmark", "random weights", expects, device, network)
        self.policy = RECIPE.policy()
        key = CacheKey(self.data.fingerprint, "random weights", self.policy.view_key(), SEED, "own size")
        self.cache = TeacherCache.open(
            folder / "cache", key, images=self.data.pool_size, classes=len(self.data.classes), views=epochs
        )
        self.teacher_outputs = CachedTeacher(self.teacher, self.cache, self.policy, SEED)
        self.table = torch.stack([self._fill(view) for view in range(epochs)])

    def build(self, network: dict[str, Any]) -> nn.Module:
        """Build a network for these images, channels last."""
        data = self.data
        model = students.build_student(
            network, image_size=data.image_size, channels=data.channels, num_classes=len(data.classes), seed=SEED
        )
        return model.to(self.device, memory_format=torch.channels_last)

    def _fill(self, view: int) -> Tensor:
        """Fill the cache for one view, and return the teacher's logits of all training images in their order."""
        rows = {int(name): row for row, name in enumerate(self.feed.ids.tolist())}

        def compute(ids: Tensor) -> Tensor:
            chosen = torch.tensor([rows[name] for name in ids.tolist()])
            pixels = views.apply(self.policy, self.feed.images[chosen], ids, view, SEED)
            return self.teacher(pixels)

        pieces = [self.cache.targets(ids, view, compute) for ids in self.feed.ids.cpu().split(256)]
        return torch.cat(pieces).to(self.device)


def ours(setup: Setup, student: dict[str, Any]) -> Epoch:
    """Return a function that trains one epoch with the real trainer."""
    criterion = Distillation(MIX, setup.teacher_outputs)
    trainer = Trainer(
        setup.build(student), setup.feed, criterion, RECIPE, epochs=setup.epochs, seed=SEED, view_seed=SEED,
        view_count=setup.epochs, device=setup.device,
    )  # fmt: skip

    def epoch() -> None:
        trainer.run(int(trainer.epoch) + 1)

    return epoch


def bare(setup: Setup, student: dict[str, Any]) -> Epoch:
    """Return a function that trains one epoch with the bare operations."""
    model, feed, batch = setup.build(student).train(), setup.feed, RECIPE.batch_size
    optimizer = build_optimizer(model, RECIPE)
    live = [value.detach() for value in model.state_dict().values() if value.is_floating_point()]
    shadows = [value.clone() for value in live]
    mean, std = (torch.tensor(value, device=setup.device).view(1, -1, 1, 1) for value in (feed.mean, feed.std))
    kd, per_epoch = losses.losses.get("kd"), len(feed.labels) // batch
    steps = iter(range(setup.epochs * per_epoch))

    def epoch() -> None:
        order = torch.randperm(len(feed.labels))
        for start in range(0, per_epoch * batch, batch):
            step = next(steps)
            rows, view = order[start : start + batch].to(feed.images.device), step // per_epoch
            raw, target = feed.images[rows].to(setup.device), feed.labels[rows].to(setup.device)
            pixels = views.apply(setup.policy, raw, feed.ids[rows].to(setup.device), view, SEED)
            pixels = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(RECIPE, step, setup.epochs * per_epoch)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.device.type == "cuda"):
                logits = model(pixels)
            task = nn.functional.cross_entropy(logits.float(), target)
            soft = kd(logits, setup.table[view][rows.to(setup.device)], target, temperature=TEMPERATURE)
            ((1 - ALPHA) * task + ALPHA * soft).backward()
            nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip)
            optimizer.step()
            decay = min(RECIPE.ema, (2 + step) / (11 + step))
            torch._foreach_lerp_(shadows, live, 1 - decay)

    return epoch


def timm(setup: Setup, student: dict[str, Any], workers: int) -> Epoch:
    """Return a function that trains one epoch with timm's task, a DataLoader and an online teacher."""
    from timm.task import DistillationTeacher, LogitDistillationTask
    from timm.utils import ModelEmaV3

    model, teacher = setup.build(student), deepcopy(setup.build(TEACHER))
    for network in (model, teacher):
        network.pretrained_cfg = {"mean": setup.data.mean, "std": setup.data.std}
    task = LogitDistillationTask(
        model, DistillationTeacher(teacher), criterion=nn.CrossEntropyLoss(), task_loss_weight=1 - ALPHA,
        temperature=TEMPERATURE, device=setup.device, verbose=False,
    )  # fmt: skip
    task.train()
    optimizer, average = build_optimizer(model, RECIPE), ModelEmaV3(model, decay=RECIPE.ema, foreach=True)
    loader = torch.utils.data.DataLoader(
        Crops(setup), batch_size=RECIPE.batch_size, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0, pin_memory=setup.device.type == "cuda",
    )  # fmt: skip

    def epoch() -> None:
        for pixels, target in loader:
            pixels = pixels.to(setup.device, non_blocking=True, memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.device.type == "cuda"):
                loss = task(pixels, target.to(setup.device))["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip)
            optimizer.step()
            average.update(model)

    return epoch


class Crops(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The training images with torchvision's padded random crop, normalized."""

    def __init__(self, setup: Setup) -> None:
        from torchvision.transforms import v2

        data = setup.data
        self.images, self.labels = torch.from_numpy(np.asarray(data.train.images)), data.train.labels.tolist()
        padding = round(setup.policy.padding * data.image_size)
        self.transform = v2.Compose(
            [
                v2.RandomCrop(data.image_size, padding=padding),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(data.mean), list(data.std)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.images[row]), self.labels[row]


def seconds(epoch: Epoch, device: torch.device) -> float:
    """Return the wall-clock seconds of one epoch."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    epoch()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def rounds(setup: Setup, student: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Yield images per second of every loop, one epoch each; the first round warms up and is dropped."""
    ways = {
        "ours": ours(setup, student),
        "bare": bare(setup, student),
        "timm, no worker": timm(setup, student, 0),
        "timm, 1 worker": timm(setup, student, 1),
    }
    names = list(ways)
    count = len(setup.feed.labels) // RECIPE.batch_size * RECIPE.batch_size
    for turn in range(setup.epochs):
        shift = turn % len(names)
        taken = {name: seconds(ways[name], setup.device) for name in names[shift:] + names[:shift]}
        if turn:
            yield {name: count / taken[name] for name in names}


def idle_share(setup: Setup, student: dict[str, Any]) -> float | None:
    """Return the share of an epoch of ours in which the GPU is idle; ``None`` without a GPU."""
    if setup.device.type != "cuda":
        return None
    epoch = ours(setup, student)
    epoch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        wall = seconds(epoch, setup.device)
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    return max(0.0, 1 - busy / wall)


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Return speeds and the ratios within each round, with the medians of the ratios."""
    ratios = {
        "ours / bare": [one["ours"] / one["bare"] for one in found],
        "ours / timm": [one["ours"] / max(one["timm, no worker"], one["timm, 1 worker"]) for one in found],
    }
    speeds = {name: [one[name] for one in found] for name in found[0]}
    out = {"images_per_second": speeds, "ratios": ratios}
    return out | {name: statistics.median(values) for name, values in ratios.items()}


def show(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}: {figures['params']:,} parameters")
    for way, values in figures["images_per_second"].items():
        print(f"  {way:16} {statistics.median(values):9,.0f} images/s  ({min(values):,.0f} to {max(values):,.0f})")
    for ratio, bar in (("ours / bare", 0.95), ("ours / timm", 1.3)):
        values = figures["ratios"][ratio]
        outcome = "reached" if figures[ratio] >= bar else "MISSED"
        print(f"  {ratio:16} {figures[ratio]:9.2f}  ({min(values):.2f} to {max(values):.2f}); target {bar}: {outcome}")
    if figures["gpu_idle_share"] is not None:
        print(f"  GPU idle         {figures['gpu_idle_share']:9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds, the small student only")
    parser.add_argument("--root", help="folder of the Fashion-MNIST files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    images, turns = (1024, 4) if arguments.quick else (6400, 10)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU, 1 thread"
    import timm as timm_package

    versions = {"torch": torch.__version__, "timm": timm_package.__version__, "python": platform.python_version()}
    print(f"{machine}; " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(arguments.root, images, turns, Path(folder), device)
        for name, student in list(STUDENTS.items())[: 1 if arguments.quick else None]:
            figures[name] = summary(list(rounds(setup, student)))
            figures[name]["params"] = sum(parameter.numel() for parameter in setup.build(student).parameters())
            figures[name]["gpu_idle_share"] = idle_share(setup, student)
            show(name, figures[name])
        setup.cache.close()
    facts = {"quick": arguments.quick, "machine": machine, "versions": versions, "images": images, "rounds": turns - 1}
    smallest = {ratio: min(one[ratio] for one in figures.values()) for ratio in ("ours / bare", "ours / timm")}
    smallest = {name: value for name, value in smallest.items() if not math.isnan(value)}
    if arguments.json:
        arguments.json.write_text(json.dumps({**facts, **smallest, "students": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
