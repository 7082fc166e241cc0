"""Benchmark of BatchNorm statistics at rungs: running statistics, and statistics computed anew.

    python benchmarks/rung_statistics.py --json rung_statistics.json [--quick] [--photos CLOTHING96_FOLDER]

Students of four families (inverted residuals, residual, ConvNeXt, ViT), two sizes of each, are trained on 300 digits.
With ``--photos`` they are also trained on a folder of photographs at 64 px. There is no teacher, and the recipe is the
default. At every rung the same weights are evaluated twice: with new statistics, as ``Trainer.evaluation_model``
returns them, and with the average of the running statistics.

The script prints mean and range of the validation accuracy by family, Spearman's correlation between the accuracies at
each rung and at the last one over all students of a seed, and the share of the training's CPU time (one thread) that
the new statistics took. Every training is stored in the JSON file as it ends, so the same command continues after an
interruption.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.datasets import ImageData
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.students import build as students

FAMILIES = ("mbconv", "resnet", "convnext", "vit")
WIDTHS: dict[str, tuple[int, int]] = {"mbconv": (8, 16), "resnet": (8, 16), "convnext": (12, 24), "vit": (32, 64)}
STUDENTS = [(family, width) for family in FAMILIES for width in WIDTHS[family]]


@dataclass(frozen=True)
class Setting:
    """Images, and the rungs of the training on them."""

    name: str
    data: DataSpec
    rungs: tuple[int, ...]


def settings(photos: Path | None, images: int, quick: bool) -> Iterator[Setting]:
    """Yield the settings to train with."""
    yield Setting("digits, 300 images", DataSpec("digits", train_size=300), (1, 3) if quick else (1, 3, 10, 30))
    if photos is not None:
        spec = DataSpec("image_folder", root=str(photos), image_size=64, train_size=300 if quick else images)
        yield Setting("photographs, 64 px", spec, (1, 2) if quick else (1, 3, 9))


def with_running_statistics(trainer: Trainer) -> nn.Module:
    """Return the evaluated weights with the average of the running statistics."""
    model: nn.Module = copy.deepcopy(trainer.model)
    trainer.average.copy_to(model)
    return model.eval()


def trained(setting: Setting, data: ImageData, family: str, width: int, seed: int) -> dict[str, Any]:
    """Return accuracy at every rung with both statistics, and CPU seconds of training and of statistics."""
    student = {"family": family, "width": width}
    shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
    trainer = Trainer(
        students.build_student(student, **shape, seed=seed), Feed.of(data), Distillation(LossMix()), Recipe(),
        epochs=setting.rungs[-1], seed=seed, view_seed=seed,
    )  # fmt: skip
    images, labels = torch.from_numpy(data.val.images), torch.from_numpy(data.val.labels)
    rows: list[dict[str, float]] = []
    for epochs in setting.rungs:
        start = time.process_time()
        trainer.run(epochs)
        training = time.process_time() - start
        old = with_running_statistics(trainer)
        copying = time.process_time() - start - training
        new = trainer.evaluation_model()
        renewing = time.process_time() - start - training - 2 * copying  # both evaluations copy the model
        found = {
            name: scores(trainer.predict(model, images), labels)["accuracy"]
            for name, model in (("running", old), ("anew", new))
        }
        rows.append({"epochs": epochs, "training_s": training, "statistics_s": max(0.0, renewing), **found})
    return {"setting": setting.name, "family": family, "width": width, "seed": seed, "rungs": rows}


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def summary(found: list[dict[str, Any]], setting: Setting) -> dict[str, Any]:
    """Return accuracies by family and rung, rank correlations by rung, and shares of time."""
    here = [one for one in found if one["setting"] == setting.name]
    out: dict[str, Any] = {"families": {}, "rank_correlation": {}, "share_of_time": {}}
    for family in FAMILIES:
        mine = [one["rungs"] for one in here if one["family"] == family]
        out["families"][family] = {
            way: [[rows[rung][way] for rows in mine] for rung in range(len(setting.rungs))]
            for way in ("running", "anew")
        }
    seeds = sorted({one["seed"] for one in here})
    for way in ("running", "anew"):
        out["rank_correlation"][way] = [
            [
                rank_correlation(
                    [one["rungs"][rung][way] for one in here if one["seed"] == seed],
                    [one["rungs"][-1]["anew"] for one in here if one["seed"] == seed],
                )
                for seed in seeds
            ]
            for rung in range(len(setting.rungs) - 1)
        ]
    for family in FAMILIES:
        rows = [row for one in here if one["family"] == family for row in one["rungs"]]
        out["share_of_time"][family] = sum(row["statistics_s"] for row in rows) / sum(row["training_s"] for row in rows)
    return out


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def show(setting: Setting, figures: dict[str, Any]) -> None:
    print(f"\n{setting.name}")
    for family, ways in figures["families"].items():
        for way, rungs in ways.items():
            cells = "  ".join(
                f"epoch {epoch}: {spread(values)}" for epoch, values in zip(setting.rungs, rungs, strict=True)
            )
            print(f"  {family:9} {way:8} {cells}")
        print(f"  {family:9} share of training time {figures['share_of_time'][family]:.1%}")
    for way, rungs in figures["rank_correlation"].items():
        cells = "  ".join(
            f"epoch {epoch}: {spread(values)}" for epoch, values in zip(setting.rungs, rungs, strict=False)
        )
        print(f"  rank correlation with the last rung, {way}: {cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs and images")
    parser.add_argument("--photos", type=Path, help="folder of class folders, such as clothing96")
    parser.add_argument("--images", type=int, default=1500, help="number of photographs to train on")
    parser.add_argument(
        "--sets", nargs="*", default=["digits", "photographs"], help="sets of images: digits, photographs"
    )
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import timm

    versions = {"torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()}
    print(
        f"{platform.machine()} CPU, 1 thread; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    )
    stored = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    found: list[dict[str, Any]] = stored.get("trainings", []) if stored.get("quick") == arguments.quick else []
    facts: dict[str, Any] = {"quick": arguments.quick, "versions": versions, "trainings": found}
    for setting in settings(arguments.photos, arguments.images, arguments.quick):
        if setting.name.split(",")[0] not in arguments.sets:
            continue
        data = datasets.load_images(setting.data)
        for seed in range(1 if arguments.quick else arguments.seeds):
            for family, width in STUDENTS:
                key = {"setting": setting.name, "family": family, "width": width, "seed": seed}
                if not any(key.items() <= one.items() for one in found):
                    found.append(trained(setting, data, family, width, seed))
                    if arguments.json:
                        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
        facts[setting.name] = summary(found, setting)
        show(setting, facts[setting.name])
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
