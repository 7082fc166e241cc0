"""Benchmark of how repeatable measured latencies are.

    python benchmarks/latency.py --json FILE [--quick]

The same students are surveyed twice, once more while two processes train, and once with ONNX Runtime. Targets:

- The two p50 of a student differ by at most 3 % for nine of ten students, and their rank correlation is at least 0.99.
- A p50 that is measured while two processes train waits for the measurement lock. It differs by at most 5 % from the
  quiet one for nine of ten students.

The rank correlation of torch and onnxruntime is printed without a target. Run it alone on the machine. Nothing is read
from or written to the memory of costs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from autodistill.core.records import LatencyTarget, Params
from autodistill.engines.timing.survey_pool import draw_pool
from autodistill.search.space.builtin import load_space
from autodistill.search.space.space import Space
from autodistill.training.costs.cost_memory import LATENCY, CostMemory
from autodistill.training.survey.survey import survey

SHAPE = {"image_size": 28, "channels": 1}
TRAINER = """
import torch
from autodistill.training.runtime import measurement_lock
from autodistill.training.students import build as students
torch.set_num_threads(1)
model = students.build_student({"family": "resnet", "width": 16}, image_size=28, channels=1, num_classes=10)
images = torch.randn(64, 1, 28, 28)
print("training", flush=True)
while True:
    measurement_lock.yield_to_measurement()
    model(images).square().mean().backward()
"""


def run(pool: list[Params], target: LatencyTarget, label: str) -> dict[str, Any]:
    """Run one survey in a new process, like the command. In a process that has surveyed before, runs are faster."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        found = fresh.submit(surveyed, pool, target, label).result()
    print(f"  {label:<26}{found['seconds']:6.1f} s, {found['noisy']} of {len(pool)} noisy", flush=True)
    return found


def surveyed(pool: list[Params], target: LatencyTarget, label: str) -> dict[str, Any]:
    """Return latencies in ms in the order of ``pool``, the seconds taken, and the number that did not settle."""
    begin = time.perf_counter()
    rows = survey(pool, **SHAPE, num_classes=10, metrics=["params", LATENCY], target=target, memory=CostMemory(None))
    return {
        "label": label,
        "seconds": time.perf_counter() - begin,
        "noisy": sum(row.noisy for row in rows),
        "p50_ms": [row.costs.get(LATENCY, float("nan")) for row in rows],
    }


def compare(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Return figures of how far two surveys agree."""
    first, second = np.array(one["p50_ms"]), np.array(other["p50_ms"])
    apart = np.abs(second / first - 1)
    return {
        "within_3": float(np.mean(apart <= 0.03)),
        "within_5": float(np.mean(apart <= 0.05)),
        "median_apart": float(np.nanmedian(apart)),
        "worst_apart": float(np.nanmax(apart)),
        "rank_correlation": float(spearmanr(first, second, nan_policy="omit").statistic),
    }


def while_two_train(pool: list[Params]) -> dict[str, Any]:
    """Run a survey that has to wait for the measurement lock repeatedly."""
    trainers = [subprocess.Popen([sys.executable, "-c", TRAINER], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for trainer in trainers:
            assert trainer.stdout is not None
            trainer.stdout.readline()
        return run(pool, LatencyTarget(), "torch, while two train")
    finally:
        for trainer in trainers:
            trainer.kill()
            trainer.wait()


def table(again: dict[str, float], busy: dict[str, float], runtimes: dict[str, float]) -> bool:
    """Print figures beside their targets; return whether all targets are met."""
    rows = [
        ("p50 of two surveys within 3 %", again["within_3"], 0.9),
        ("rank correlation of two surveys", again["rank_correlation"], 0.99),
        ("p50 while two train within 5 %", busy["within_5"], 0.9),
        ("rank correlation torch, onnxruntime", runtimes["rank_correlation"], None),
    ]
    print(f"\n{'figure':<38}{'found':>8}{'target':>9}")
    for name, value, target in rows:
        met = "" if target is None else "met" if value >= target else "MISSED"
        print(f"{name:<38}{value:>8.3f}{'' if target is None else f'>= {target:g}':>9}  {met}")
    print(f"median apart: two surveys {again['median_apart']:.2%}, while two train {busy['median_apart']:.2%}")
    return all(target is None or value >= target for _, value, target in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--quick", action="store_true", help="five students; figures mean nothing")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count = 5 if arguments.quick else arguments.students
    pool = draw_pool(Space.parse(load_space(arguments.space)), count, seed=0)[:count]
    begin = time.perf_counter()
    first = run(pool, LatencyTarget(), "torch, first")
    second = run(pool, LatencyTarget(), "torch, second")
    busy = while_two_train(pool)
    onnx = run(pool, LatencyTarget("onnxruntime"), "onnxruntime")
    figures = {"again": compare(first, second), "busy": compare(first, busy), "runtimes": compare(first, onnx)}
    met = table(**figures)
    print(f"{time.perf_counter() - begin:.0f} s in all, {len(pool)} students of {arguments.space}")
    if arguments.json is not None:
        surveys = [first, second, busy, onnx]
        text = json.dumps({"students": pool, "surveys": surveys, **figures, "met": met}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
