"""Benchmark of the search's own time per trial, and a check that parallel proposals differ.

The stored trials are synthetic, and the space has 15 conditional parameters. A trial consists of ask, suggest, reports
of two rungs, and close. Times are means over several trials, so that they include the occasional fit of the process's
hyperparameters as in a real search. ``study`` is the time of a whole study in an SQLite file: ask, every report with
the decision on it, and close::

    python benchmarks/overhead.py --json FILE [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna

from autodistill.core.records import Decision, Objective, Report
from autodistill.search.rungs.levels import Rungs
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import Study

SPACE = {
    "student": {
        "family": ["resnet", "mobilenet", "vit"],
        "resnet": {"width": {"low": 8, "high": 64, "step": 8}, "depth": [1, 2, 3]},
        "mobilenet": {"width": {"low": 0.25, "high": 1.5, "step": 0.25}, "expand": [3, 4, 6]},
        "vit": {"width": {"low": 48, "high": 192, "step": 24}, "depth": {"low": 2, "high": 8}, "heads": [2, 4]},
    },
    "distillation": {
        "loss": ["none", "kd", "dkd", "dist"],
        "alpha": {"low": 0.0, "high": 1.0, "when": {"loss": ["kd", "dkd", "dist"]}},
        "temperature": {"low": 1.0, "high": 20.0, "log": True, "when": {"loss": ["kd", "dkd"]}},
    },
    "train": {
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "mixup": {"low": 0.0, "high": 0.5},
    },
}
OBJECTIVES = (
    Objective("accuracy", "maximize", "fraction", "trained"),
    Objective("params", "minimize", "count", "known", log=True),
    Objective("latency_ms", "minimize", "ms", "known", log=True),
)
RUNGS = (2, 6, 18)
LIMITS = {100: 50.0, 10_000: 150.0}


def costs(student: dict[str, Any]) -> dict[str, float]:
    """Return a synthetic parameter count and latency."""
    width, depth = float(student["width"]), float(student.get("depth", 4))
    scale = {"resnet": 300.0, "mobilenet": 2e5, "vit": 12.0}[student["family"]]
    return {"params": scale * width**2 * depth, "latency_ms": 0.1 * depth * math.sqrt(scale * width)}


def accuracy(sections: dict[str, Any], epochs: float) -> float:
    """Return a synthetic accuracy. It grows with size and epochs, and has an optimum in the learning rate."""
    size = math.log10(costs(sections["student"])["params"])
    tuned = (math.log10(sections["train"]["lr"]) + 2.5) ** 2
    bonus = 0.03 * (sections["distillation"]["loss"] != "none")
    return 1 - math.exp(-0.2 * size) - 0.02 * tuned + bonus - 0.2 / epochs


def stored(space: Space, count: int, seed: int) -> optuna.Study:
    """Make a study with ``count`` trials, a third of them complete."""
    study = optuna.create_study(directions=[o.direction for o in OBJECTIVES])
    rng, distributions = np.random.default_rng(seed), {p.name: p.distribution for p in space.parameters}
    trials = []
    for i in range(count):
        values = space.sample(rng)
        sections = space.nest(values)
        known, reached = costs(sections["student"]), 3 if i % 3 == 0 else 1
        curve = {k + 1: accuracy(sections, RUNGS[k]) for k in range(reached)}
        attributes = {f"rung:{k}": json.dumps({"accuracy": a, "epochs": RUNGS[k - 1]}) for k, a in curve.items()}
        attributes["rung:0"] = json.dumps(known)
        state = optuna.trial.TrialState.COMPLETE if reached == 3 else optuna.trial.TrialState.PRUNED
        trials.append(
            optuna.trial.create_trial(
                state=state,
                values=[curve[3], *known.values()] if reached == 3 else None,
                params=values,
                distributions={name: distributions[name] for name in values},
                user_attrs=attributes,
            )
        )
    study.add_trials(trials)
    return study


def measure(count: int, repeats: int) -> dict[str, float]:
    """Measure milliseconds per trial at ``count`` stored trials."""
    space = Space.parse(SPACE)
    study = stored(space, count, seed=0)
    study.sampler = FrontSampler(space, OBJECTIVES, costs=costs, rungs=RUNGS, seed=1)
    spans, work = [], []
    first = 0.0
    for i in range(repeats + 1):
        start, used = time.perf_counter(), time.process_time()
        trial = study.ask()
        sections = space.suggest(trial)
        for k in (1, 2):
            report = {"accuracy": accuracy(sections, RUNGS[k - 1]), "epochs": RUNGS[k - 1]}
            trial.set_user_attr(f"rung:{k}", json.dumps(report))
        study.tell(trial, [accuracy(sections, RUNGS[2]), *costs(sections["student"]).values()])
        if i:
            spans.append(1000 * (time.perf_counter() - start))
            work.append(1000 * (time.process_time() - used))
        else:
            first = 1000 * (time.perf_counter() - start)
    decisions = []
    for _ in range(repeats // 2):
        trial = study.ask()
        reached = accuracy(space.suggest(trial), RUNGS[0])
        used = time.process_time()
        trial.set_user_attr("rung:1", json.dumps({"accuracy": reached, "epochs": RUNGS[0]}))
        study.sampler.verdict(study, trial.number)
        decisions.append(1000 * (time.process_time() - used))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return {
        "stored": count,
        "first_ms": round(first, 1),  # reads the stored trials and fits from scratch
        "mean_ms": round(float(np.mean(spans)), 1),
        "cpu_ms": round(float(np.mean(work)), 1),  # excludes other work of the machine
        "median_ms": round(float(np.median(spans)), 1),
        "verdict_cpu_ms": round(float(np.mean(decisions)), 1),  # of one decision of the sampler's rung rule
        "limit_ms": LIMITS.get(count, math.nan),
    }


def of_study(count: int, repeats: int) -> dict[str, float]:
    """Measure milliseconds of a whole study per candidate, at ``count`` stored trials."""
    with tempfile.TemporaryDirectory() as folder:
        filled = _study(Path(folder), "random")
        with filled.running(f"{count}trials"):
            while _one(filled):
                pass
        study = _study(Path(folder), "front")
        with study.running(f"{count + repeats + 1}trials"):
            spans = [1000 * _one(study) for _ in range(repeats + 1)]
    return {"study_mean_ms": round(float(np.mean(spans[1:])), 1), "study_median_ms": round(float(np.median(spans)), 1)}


def _study(folder: Path, sampler: str) -> Study:
    space = Space.parse(SPACE)
    storage = store.open_storage(folder)
    study = Study(storage, "overhead", space=space, objectives=OBJECTIVES, sampler=sampler, rungs=Rungs(RUNGS))
    study.set_known_costs([], costs)
    return study


def _one(study: Study) -> float:
    """Return the seconds that the study spends on one candidate; 0 if there is none."""
    start = time.perf_counter()
    candidate = study.ask()
    if candidate is None:
        return 0.0
    sections = {"student": candidate.student, "distillation": candidate.distillation, "train": candidate.train}
    known = costs(candidate.student)
    for rung, epochs in enumerate((0, *RUNGS)):
        values = {"accuracy": accuracy(sections, epochs), **known} if rung else known
        if study.report(candidate, Report(rung, values, epochs, 0.01 * epochs)) is Decision.STOP:
            break
    study.close(candidate)
    return time.perf_counter() - start


def distinct(pending: int) -> bool:
    """Return whether ``pending`` parallel proposals differ."""
    space = Space.parse(SPACE)
    study = stored(space, 100, seed=1)
    study.sampler = FrontSampler(space, OBJECTIVES, costs=costs, rungs=RUNGS, seed=2)
    proposals = [json.dumps(space.suggest(study.ask()), sort_keys=True) for _ in range(pending)]
    return len(set(proposals)) == pending


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and up to 1,000 stored trials")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sizes, repeats = ((100, 1_000), 10) if args.quick else ((100, 1_000, 10_000), 30)
    rows = [measure(count, repeats) | of_study(count, repeats) for count in sizes]
    titles = ("mean ms", "cpu ms", "median", "decision", "first", "study", "limit")
    print(f"{'stored':>8s}" + "".join(f"{title:>10s}" for title in titles))
    for row in rows:
        names = ("mean_ms", "cpu_ms", "median_ms", "verdict_cpu_ms", "first_ms", "study_mean_ms", "limit_ms")
        cells = [row[name] for name in names]
        print(f"{row['stored']:8.0f}" + "".join(f"{cell:10.1f}" for cell in cells))
    result = {"results": rows, "distinct_with_4_pending": distinct(4)}
    print(f"4 parallel proposals distinct: {result['distinct_with_4_pending']}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
