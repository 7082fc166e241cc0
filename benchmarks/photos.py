"""Benchmark of the main job: photographs, the user's own teacher and a time budget.

    python benchmarks/photos.py --data-root DIR --teacher DIR --image-size 96 --budget 20m --seeds 3 --json out.json

Each run is ``autodistill search`` in a process of its own; the runs do not overlap. ``--busy 2`` lets two processes
compute all the time beside it. The script prints for each seed the time of the first trial, the length of the survey in
wall time, trials by state, workers that died, students on the front, the best accuracy, bounds of the space on which
half of the front lies, and by how much the command exceeded its budget. Finished runs are kept in ``--work`` and not
repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BURN = "x = 1.0\nwhile True:\n    x = x * 1.0000001 % 3.0\n"


def run(arguments: argparse.Namespace, seed: int) -> Path:
    """Run one search and record the times of its progress lines; a finished run is not repeated."""
    folder = arguments.work / f"seed-{seed}"
    record = arguments.work / f"seed-{seed}.json"
    if record.exists():
        return folder
    command = [sys.executable, "-m", "autodistill", "search", "--data", "image_folder", "--dir", str(folder)]
    command += ["--data-root", str(arguments.data_root), "--image-size", str(arguments.image_size)]
    command += ["--teacher", str(arguments.teacher), "--budget", arguments.budget, "--seed", str(seed), "--json"]
    command += ["--workers", str(arguments.workers), *arguments.more]
    arguments.work.mkdir(parents=True, exist_ok=True)
    beside = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(arguments.busy)]
    lines: list[tuple[float, str]] = []
    began = time.time()
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            for line in process.stderr:
                lines.append((time.time() - began, line.rstrip()))
                with (arguments.work / f"seed-{seed}.log").open("a") as log:
                    log.write(f"{lines[-1][0]:8.1f} {lines[-1][1]}\n")
            process.stdout.read()
    finally:
        for one in beside:
            one.kill()
            one.wait()
    seconds = time.time() - began
    facts = {"began": began, "seconds": seconds, "code": process.returncode, "survey": survey_seconds(lines)}
    record.write_text(json.dumps(facts) + "\n")
    print(
        f"finished seed {seed} after {seconds:.0f} s with exit code {process.returncode}", file=sys.stderr, flush=True
    )
    return folder


def survey_seconds(lines: Sequence[tuple[float, str]]) -> float:
    """Return the seconds from the first to the last progress line of the survey."""
    times = [at for at, line in lines if line.startswith("survey")]
    return times[-1] - times[0] if times else 0.0


def row(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the figures of one run."""
    from autodistill.commands.console.reading import read_study
    from autodistill.core.budget import Budget

    study = read_study(run(arguments, seed))
    facts = json.loads((arguments.work / f"seed-{seed}.json").read_text())
    trials, front = study.trials(), study.front()
    states = Counter(trial.state.value for trial in trials)
    reasons = Counter(trial.reason for trial in trials if trial.reason)
    numbers = {trial.number for trial in front.trials}
    begun = [one.datetime_start for one in study.optuna.get_trials(deepcopy=False) if one.datetime_start]
    members = [
        {"accuracy": one.values["accuracy"], **{k: one.values[k] for k in ("params", "latency_ms") if k in one.values}}
        | {"student": dict(one.student), "train": dict(one.train), "distillation": dict(one.distillation)}
        for one in front.trials
    ]
    seconds = Budget.parse(arguments.budget).seconds or 0.0
    return {
        "seed": seed,
        "exit_code": facts["code"],
        "first_trial": min(begun).timestamp() - facts["began"] if begun else None,
        "survey_seconds": facts["survey"],
        "survey_share": facts["survey"] / seconds if seconds else 0.0,
        "beyond_budget": facts["seconds"] - seconds,
        "states": dict(states),
        "reasons": dict(reasons),
        "front": len(numbers),
        "best": max((one["accuracy"] for one in members), default=0.0),
        "waste": study.waste().share,
        "bounds": [bound.words() for bound in study.range_bounds()],
        "members": sorted(members, key=lambda one: -one["accuracy"]),
        "epochs": study.rungs.levels[-1],
        "teacher": study.teacher_values().get("accuracy"),
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table, and the bounds on which fronts lie."""
    titles = ("seed", "first trial s", "survey", "COMPLETE", "lost", "trials", "front", "best", "wasted", "beyond s")
    print("  ".join(f"{title:>13}" for title in titles))
    for one in rows:
        lost = one["reasons"].get("WORKER_LOST", 0) + one["reasons"].get("CRASH", 0)
        cells = [
            one["seed"], f"{one['first_trial'] or 0:.0f}", f"{one['survey_share']:.1%}",
            one["states"].get("COMPLETE", 0), lost, sum(one["states"].values()), one["front"], f"{one['best']:.4f}",
            f"{one['waste']:.0%}", f"{one['beyond_budget']:+.0f}",
        ]  # fmt: skip
        print("  ".join(f"{cell!s:>13}" for cell in cells))
    best = [one["best"] for one in rows]
    spread = statistics.stdev(best) if len(best) > 1 else 0.0
    print(f"best accuracy {statistics.mean(best):.4f} ± {spread:.4f} over {len(best)} seeds")
    for one in rows:
        for words in one["bounds"]:
            print(f"seed {one['seed']}: {words}")


def main() -> None:
    """Read the arguments, run what is missing, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute all the time beside the search")
    parser.add_argument("--work", type=Path, default=Path("runs/photos"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, two minutes: checks the script")
    parser.add_argument("more", nargs="*", help="after --: further flags of autodistill search")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.budget = 1, "2m"
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    rows = [row(arguments, seed) for seed in seeds]
    show(rows)
    if arguments.json:
        import torch

        given = {name: str(value) for name, value in vars(arguments).items() if name not in ("json", "work")}
        given = {name: Path(value).name if name in ("data_root", "teacher") else value for name, value in given.items()}
        machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
        found = {"arguments": given, "machine": machine, "runs": rows}
        arguments.json.write_text(json.dumps(found, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
