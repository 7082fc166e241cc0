"""Benchmark of the whole command on real images at equal wall time: the default search, random search and TPE.

    python benchmarks/real_search.py --data fashion_mnist --data-root DIR --teacher runs/teacher --json out.json

Each run is ``autodistill search`` in a process of its own, with one worker and one thread. ``--jobs`` runs go on at the
same time. They belong to different methods, so that a slow minute of the machine affects all methods alike. The script
prints the hypervolume in one common box (mean and standard deviation over seeds) after a quarter, half and all of the
time, the best accuracy, and the number of trials. Finished runs are kept in ``--work`` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

METHODS: dict[str, tuple[str, ...]] = {
    "default": (),
    "random, no rungs": ("--sampler", "random", "--rungs", "off"),
    "tpe": ("--sampler", "tpe"),
}


def folder_of(work: Path, method: str, seed: int) -> Path:
    """Where the run of a method and a seed is kept."""
    return work / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"


def run_one(arguments: argparse.Namespace, method: str, seed: int) -> None:
    """One search; the same call again goes on with it until its budget is spent."""
    folder = folder_of(arguments.work, method, seed)
    if (folder / "done").exists():
        return
    command = [sys.executable, "-m", "autodistill", "search", "--data", arguments.data, "--dir", str(folder)]
    command += ["--budget", arguments.budget, "--workers", "1", "--seed", str(seed), "--name", folder.name]
    command += ["--space", arguments.space, "--epochs", str(arguments.epochs), *METHODS[method]]
    if arguments.data_root:
        command += ["--data-root", str(arguments.data_root)]
    if arguments.train_size:
        command += ["--train-size", str(arguments.train_size)]
    if arguments.teacher:
        command += ["--teacher", str(arguments.teacher)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    (folder / "done").touch()
    print(f"finished {method}, seed {seed}", file=sys.stderr, flush=True)


def summary(work: Path, seeds: Sequence[int], seconds: float) -> dict[str, Any]:
    """Compare all runs, with the hypervolume of each after parts of the time."""
    from autodistill.commands.console.reading import read_study
    from autodistill.search.analysis.compare import Group, compare
    from autodistill.search.analysis.trajectory import share_at

    groups = [Group(m, tuple(read_study(folder_of(work, m, s)).front() for s in seeds)) for m in METHODS]
    result = compare(groups)
    out = result.to_json()
    for row, facts in zip(result.rows, out["groups"], strict=True):
        for share in (0.25, 0.5, 1.0):
            facts[f"hypervolume_at_{share:g}"] = [share_at(curve, share * seconds) for curve in row.curves]
        counts = [len(read_study(folder_of(work, row.name, s)).trials()) for s in seeds]
        facts["trials"] = counts
    return out


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    parts = ("0.25", "0.5", "1")
    titles = "".join(f"{'HV at ' + part:>18}" for part in parts)
    print(f"{'method':20}{titles}{'best accuracy':>16}{'complete':>10}{'trials':>8}")
    for group in found["groups"]:
        cells = "".join(f"{spread(group[f'hypervolume_at_{part}']):>18}" for part in parts)
        trials = sum(group["trials"]) / len(group["trials"])
        print(f"{group['name']:20}{cells}{group['best']:16.4f}{group['complete']:10.1f}{trials:8.0f}")


def spread(values: Sequence[float]) -> str:
    """Format mean ± standard deviation."""
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5
    return f"{mean:.4f} ± {deviation:.4f}"


def main() -> None:
    """Read the arguments, run what is missing, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--teacher", type=Path, help="folder of 'autodistill teach'; default: each run trains its own")
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--budget", default="6m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/real_search"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, 40 s per run: checks the script")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.budget = 1, "40s"
    seeds = range(arguments.seeds)
    order = [(method, seed) for seed in seeds for method in METHODS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in [pool.submit(run_one, arguments, method, seed) for method, seed in order]:
            done.result()
    from autodistill.core.budget import Budget

    found = summary(arguments.work, list(seeds), Budget.parse(arguments.budget).seconds or 0.0)
    show(found)
    if arguments.json:
        given = {name: str(value) for name, value in vars(arguments).items()}
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        arguments.json.write_text(json.dumps({"arguments": given, "machine": machine, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
