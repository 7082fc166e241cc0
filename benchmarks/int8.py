"""Benchmark of int8: what it costs in accuracy, and what it saves in bytes.

    python benchmarks/int8.py --root DIR --json FILE [--quick]

DIR holds Fashion-MNIST's IDX files. Students of several families are trained, exported, quantized and measured. Every
figure is measured on a file: bytes on disk, accuracy of ONNX Runtime on the test images, and latency of one image on
one thread in interleaved rounds. Target: the int8 file has at most 0.40 of the bytes for students of 100,000 parameters
and more. Smaller students are printed too. Their layer descriptions, which quantization does not shrink, are as large
as their weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from autodistill.core.records import DataSpec, LatencyTarget, Params
from autodistill.training.costs.counts import known_costs
from autodistill.training.costs.file_latency import file_latencies
from autodistill.training.data import datasets
from autodistill.training.deployed.onnx_files import export_onnx, run_onnx
from autodistill.training.deployed.quantize import quantize_int8
from autodistill.training.students import build as students
from autodistill.training.students.student_input import StudentInput
from autodistill.training.trials.variants import calibration_images

LARGE = 100_000
POOL: list[Params] = [
    {"family": "resnet", "width": 16, "depth": 1},
    {"family": "resnetv2", "width": 32, "depth": 1, "stages": 3},
    {"family": "mobileone", "width": 32, "depth": 2, "branches": 1},
    {"family": "vit", "width": 96, "depth": 4, "patch": 4},
    {"family": "resnet", "width": 3, "depth": 1},
    {"family": "convnext", "width": 16, "depth": 1, "kernel": 3},
]


def _input(data: datasets.ImageData) -> StudentInput:
    return StudentInput(data.image_size, data.mean, data.std)


def trained(student: Params, data: datasets.ImageData, epochs: int) -> torch.nn.Module:
    """Train a student without a teacher (AdamW, one-cycle schedule), so that quantization has accuracy to lose."""
    model = students.build_student(
        student, image_size=data.image_size, channels=data.channels, num_classes=len(data.classes)
    )
    images = torch.from_numpy(_input(data).of_images(data.train.images))
    labels = torch.from_numpy(data.train.labels)
    steps = epochs * (len(labels) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(128)[: len(labels) // 128]:
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def measured(student: Params, data: datasets.ImageData, test: Any, epochs: int, folder: Path) -> dict[str, Any]:
    """Measure bytes, accuracy and latency of both files of one student."""
    model = trained(student, data, epochs)
    shape = {"image_size": data.image_size, "channels": data.channels}
    export_onnx(model, folder / "fp32.onnx", **shape)
    quantize_int8(folder / "fp32.onnx", folder / "int8.onnx", calibration=calibration_images(data, _input(data)))
    images = _input(data).of_images(test.images)
    files = [folder / "fp32.onnx", folder / "int8.onnx"]
    accuracy = [float(np.mean(run_onnx(path, images).argmax(1) == test.labels)) for path in files]
    latency = file_latencies(files, LatencyTarget("onnxruntime"))
    assert latency is not None
    return {
        "student": student,
        "params": known_costs(model, **shape, metrics=["params"])["params"],
        "bytes": [path.stat().st_size for path in files],
        "accuracy": accuracy,
        "latency_ms": latency,
    }


def show(rows: list[dict[str, Any]]) -> bool:
    """Print the table; return whether every student of ``LARGE`` parameters and more meets the target."""
    columns = ("student", "params", "fp32 kB", "int8 kB", "ratio", "fp32 acc", "int8 acc", "loss", "fp32 ms", "int8 ms")
    print(f"{columns[0]:<24}" + "".join(f"{name:>10}" for name in columns[1:]))
    for row in rows:
        (size, small), (before, after), (slow, fast) = row["bytes"], row["accuracy"], row["latency_ms"]
        print(
            f"{students.describe(row['student']):<24}{row['params']:>10,.0f}{size / 1e3:>10.1f}{small / 1e3:>10.1f}"
            f"{small / size:>10.3f}{before:>10.4f}{after:>10.4f}{before - after:>10.4f}{slow:>10.3f}{fast:>10.3f}"
        )
    large = [row for row in rows if row["params"] >= LARGE]
    met = all(row["bytes"][1] <= 0.40 * row["bytes"][0] for row in large)
    families = {row["student"]["family"] for row in large}
    print(f"int8 at most 0.40 of the bytes, {len(large)} students of {LARGE:,} parameters and more, "
          f"{len(families)} families: {'met' if met else 'MISSED'}")  # fmt: skip
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of Fashion-MNIST's files")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2,000 images, one epoch, two students")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    spec = DataSpec("fashion_mnist", root=arguments.root, train_size=2000 if arguments.quick else 20_000)
    data, test = datasets.load_images(spec), datasets.load_test(spec)
    begin = time.perf_counter()
    rows = []
    for student in POOL[:2] if arguments.quick else POOL:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(student, data, test, 1 if arguments.quick else arguments.epochs, Path(folder)))
    met = show(rows)
    print(f"{time.perf_counter() - begin:.0f} s in all")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"rows": rows, "met": met}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
