"""How far latencies can be believed: the same students surveyed twice, and by two runtimes.

    python benchmarks/latency.py --students 30

Prints the seconds of each survey, the share of students whose two p50 agree within 3 %, rank correlations, and the
p50 that is measured while two processes train, against the quiet one. Nothing is read from or written to the memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
from scipy.stats import spearmanr

from autodistill.engines.prepare import draw_pool
from autodistill.records import LatencyTarget, SurveyRow
from autodistill.search.space import Space
from autodistill.search.spaces import load
from autodistill.training.cost_memory import LATENCY, CostMemory
from autodistill.training.survey import survey

SHAPE = {"image_size": 28, "channels": 1}
TRAINER = """
import torch
from autodistill.training import lease, students
torch.set_num_threads(1)
model = students.build({"family": "resnet", "width": 16}, image_size=28, channels=1, num_classes=10)
images = torch.randn(64, 1, 28, 28)
print("training", flush=True)
while True:
    lease.breathe()
    model(images).square().mean().backward()
"""


def run(pool: list, target: LatencyTarget, label: str) -> np.ndarray:
    """Latencies in milliseconds, in the order of ``pool``."""
    begin = time.perf_counter()
    rows: list[SurveyRow] = survey(
        pool, **SHAPE, num_classes=10, metrics=["params", LATENCY], target=target, memory=CostMemory(None)
    )
    noisy = sum(row.noisy for row in rows)
    print(f"{label:<28}{time.perf_counter() - begin:6.1f} s, {noisy} of {len(rows)} noisy", flush=True)
    return np.array([row.costs.get(LATENCY, np.nan) for row in rows])


def compare(label: str, one: np.ndarray, other: np.ndarray) -> None:
    """Print how far two series agree."""
    apart = np.abs(other / one - 1)
    rank = spearmanr(one, other, nan_policy="omit").statistic
    print(
        f"{label:<28}within 3 %: {np.mean(apart <= 0.03):.0%}, within 5 %: {np.mean(apart <= 0.05):.0%}, "
        f"median apart {np.nanmedian(apart):.1%}, rank correlation {rank:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--space", default="tiny")
    arguments = parser.parse_args()
    pool = draw_pool(Space.parse(load(arguments.space)), arguments.students, seed=0)[: arguments.students]
    first = run(pool, LatencyTarget(), "torch, first")
    compare("torch, first and second", first, run(pool, LatencyTarget(), "torch, second"))
    trainers = [subprocess.Popen([sys.executable, "-c", TRAINER], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for trainer in trainers:
            assert trainer.stdout is not None
            trainer.stdout.readline()
        busy = run(pool, LatencyTarget(), "torch, while two train")
    finally:
        for trainer in trainers:
            trainer.kill()
            trainer.wait()
    compare("quiet and while two train", first, busy)
    compare("torch and onnxruntime", first, run(pool, LatencyTarget("onnxruntime"), "onnxruntime"))


if __name__ == "__main__":
    main()
