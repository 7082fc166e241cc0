"""Benchmark of ``init: inherit``: what it gains in a search, and how much of that a fresh training keeps.

    python benchmarks/inherit.py --json out.json
    python benchmarks/inherit.py --quick --json out.json

Two searches have the same seed, the sampler ``random`` and one worker, so trial n has the same student and recipe in
both; in one of them students start from the best finished student of their family. Reported are, for each seed: the
gain of the later trial over its twin by position in the search, the gain of the best trial, and for the best trials of
both searches the validation accuracy of a training from random weights with a new seed (as ``verify`` trains), minus
that of the search: the bias of the selection and of the inheritance together.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import autodistill as ad
from autodistill.core.records import Candidate, TrialRecord, WorkerContext
from autodistill.delivery.verify.prepare import _task
from autodistill.training.trials.retraining import Retraining, RetrainingState

SPACE: dict[str, Any] = {
    "student": {"family": ["resnet"], "resnet": {"width": [4, 6, 8, 12], "depth": [1, 2]}},
    "distillation": {"loss": ["none", "kd"], "kd": {"temperature": [2.0], "alpha": [0.6]}},
    "train": {"lr": {"low": 0.002, "high": 0.03, "log": True}},
}


def searched(
    folder: Path, teacher: str, init: str, seed: int, *, trials: int, epochs: int, train_size: int
) -> ad.Study:
    """Run one search; every trial is trained in full."""
    study = ad.Study.create(
        data={"source": "digits", "train_size": train_size},
        teacher=teacher,
        space=SPACE,
        training={"init": init},
        objectives=["accuracy", "params"],
        epochs=epochs,
        rungs="off",
        survey="off",
        within="off",
        sampler="random",
        seed=seed,
        directory=folder,
    )
    ad.search(study, budget=f"{trials}trials", workers=1, progress=False)
    return study


def retrained(study: ad.Study, trial: TrialRecord, seed: int) -> float:
    """Train a trial's student from random weights with another seed; return its validation accuracy."""
    worker = RetrainingState(Retraining(_task(study)), WorkerContext())
    candidate = Candidate(trial.number, trial.student, trial.distillation, trial.train, 1000 + seed)
    return list(worker.trial(candidate).reports())[-1].values["accuracy"]


def compare(folder: Path, teacher: str, seed: int, *, best: int, **sizes: int) -> dict[str, Any]:
    """Compare both searches of one seed."""
    pairs = {init: searched(folder / init, teacher, init, seed, **sizes) for init in ("random", "inherit")}
    values = {init: [t for t in study.trials() if t.values] for init, study in pairs.items()}
    gains = [
        later.values["accuracy"] - plain.values["accuracy"]
        for plain, later in zip(values["random"], values["inherit"], strict=True)
    ]
    half = len(gains) // 2
    out: dict[str, Any] = {
        "seed": seed,
        "gain_first_half": statistics.mean(gains[:half]),
        "gain_second_half": statistics.mean(gains[half:]),
    }
    for init, study in pairs.items():
        top = sorted(values[init], key=lambda t: -t.values["accuracy"])[:best]
        out[f"best_{init}"] = top[0].values["accuracy"]
        fresh = [retrained(study, trial, seed) - trial.values["accuracy"] for trial in top]
        out[f"fresh_minus_searched_{init}"] = statistics.mean(fresh)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--quick", action="store_true", help="a few small trials, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-size", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"trials": given.trials, "epochs": given.epochs, "train_size": given.train_size}
    seeds, best = given.seeds, 4
    if given.quick:
        sizes, seeds, best = {"trials": 4, "epochs": 1, "train_size": 150}, 1, 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="autodistill-inherit-") as scratch:
        from autodistill.core.records import DataSpec
        from autodistill.training.data.datasets import load_images
        from autodistill.training.trials.teach import teach

        data = load_images(DataSpec("digits"))
        teacher = teach(data, directory=Path(scratch) / "teacher", epochs=1 if given.quick else 10)
        rows = []
        for seed in range(seeds):
            rows.append(compare(Path(scratch) / str(seed), teacher.source, seed, best=best, **sizes))
            print(json.dumps(rows[-1]), file=sys.stderr)
    names = [name for name in rows[0] if name != "seed"]
    spread = {name: statistics.stdev([row[name] for row in rows]) if len(rows) > 1 else None for name in names}
    result = {
        "settings": {**sizes, "seeds": seeds, "teacher": asdict(teacher)["source"].rsplit("/", 1)[-1]},
        "rows": rows,
        "mean": {name: statistics.mean(row[name] for row in rows) for name in names},
        "std": spread,
        "seconds": time.monotonic() - started,
        "machine": {"python": platform.python_version(), "torch": torch.__version__, "processor": platform.machine()},
    }
    given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["mean"], indent=1))


if __name__ == "__main__":
    main()
