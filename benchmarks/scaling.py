"""Benchmark of how a search scales with workers.

- ``training``: trials per hour of two workers against one, one thread each, on digits; memory of each worker.
- ``local``, ``ray``: 64 workers whose trials sleep; the share of their time in which they work, and the overhead per
  trial.

Utilisation is measured from the moment when every worker has begun its first trial to the moment when the last trial is
handed out. Utilisation of the whole run, with the start of the workers, is printed beside it::

    python benchmarks/scaling.py --json FILE [--quick] [--parts training,local,ray]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import autodistill as ad

WORKERS = 64
GOALS = {"training": 1.7, "local": 0.95, "ray": 0.95}
_KEYS = ("began", "ended", "worker")


def sleep(candidate: ad.Candidate) -> Iterator[ad.Report]:
    """Sleep for ``train.seconds``, up to 10 % more or less, and report."""
    known = {"params": float(candidate.student["width"])}
    yield ad.Report(0, known)
    began = time.time()
    seconds = candidate.train["seconds"] * random.Random(candidate.seed).uniform(0.9, 1.1)
    time.sleep(seconds)
    ended = time.time()
    values = {"began": began, "ended": ended, "worker": float(os.getpid())}
    yield ad.Report(1, {"accuracy": 0.5, **known, **values}, 1.0, ended - began)


def simulated(engine: str, workers: int, trials: int, seconds: float) -> dict[str, Any]:
    """Run ``trials`` sleeping trials on ``workers`` workers."""
    keys = {
        "name": "sleep",
        "space": {"student": {"width": {"low": 1, "high": 10**9}}, "train": {"seconds": seconds}},
        "objectives": ["accuracy", "params"],
        "sampler": "random",
        "rungs": "off",
    }
    options: dict[str, Any] = {"cpus_per_worker": 0.01} if engine == "ray" else {}
    with tempfile.TemporaryDirectory() as folder:
        study = ad.Study.create(**keys, directory=folder)
        started, used = time.time(), time.process_time()
        ad.search(
            study, evaluate=sleep, budget=f"{trials}trials", workers=workers, engine=engine, progress=False, **options
        )
        used = time.process_time() - used
        records = study.trials()
    spans = [tuple(t.rungs[1][key] for key in _KEYS) for t in records if t.state.value == "COMPLETE"]
    assert len(spans) == trials, [(t.number, t.state, t.message) for t in records if t.state.value != "COMPLETE"]
    return {
        "engine": engine,
        "workers": workers,
        "trials": trials,
        "sleep_s": seconds,
        **occupancy(spans, workers, started),
    } | {"driver_ms_per_trial": 1000 * used / trials}


def occupancy(spans: Sequence[tuple[float, ...]], workers: int, started: float) -> dict[str, float]:
    """Return the utilisation of workers, from the (began, ended, worker) of trials."""
    first: dict[float, float] = {}
    for began, _, worker in sorted(spans):
        first.setdefault(worker, began)
    assert len(first) >= workers, f"{len(first)} of {workers} workers began before the last trial: give more trials."
    low, high = sorted(first.values())[workers - 1], max(began for began, _, _ in spans)
    busy = sum(max(0.0, min(ended, high) - max(began, low)) for began, ended, _ in spans)
    room = workers * (high - low)
    within = sum(low <= began <= high for began, _, _ in spans)
    last = max(ended for _, ended, _ in spans)
    return {
        "utilisation": busy / room,
        "utilisation_whole_run": sum(ended - began for began, ended, _ in spans) / (workers * (last - started)),
        "idle_ms_per_trial": 1000 * (room - busy) / within,
        "start_s": low - started,
        "seconds": last - started,
    }


def training(trials: int, epochs: int) -> dict[str, Any]:
    """Measure trials per hour of two workers and of one, one thread each; data, teacher and cache exist before."""
    out: dict[str, Any] = {"trials": trials, "epochs": epochs}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            rate, memory = _training_rate(Path(folder), workers, trials, epochs)
        out[f"trials_per_hour_{workers}"] = rate
        if workers == 2:
            out["memory_mb"] = memory
    out["ratio"] = out["trials_per_hour_2"] / out["trials_per_hour_1"]
    return out


def _training_rate(folder: Path, workers: int, trials: int, epochs: int) -> tuple[float, list[dict[str, float]]]:
    from autodistill import api as run
    from autodistill.engines.driving.slots import Slot

    slots = tuple(Slot(index, "cpu", 1) for index in range(workers))
    study = ad.Study.create(
        data="digits",
        teacher={"source": "auto", "options": {"epochs": 3}, "accept_weak": True},
        space={
            "student": {"family": "resnet", "width": 16, "depth": 1},
            "distillation": {"loss": "kd", "temperature": 4.0, "alpha": 0.5},
            "train": {"lr": {"low": 1e-3, "high": 1e-2, "log": True}},
        },
        objectives=["accuracy", "params"],
        epochs=epochs,
        rungs="off",
        sampler="random",
        survey="off",
        directory=folder,
    )
    ends: list[float] = []
    original_close = study.close

    def close(*args: Any, **options: Any) -> Any:
        ends.append(time.monotonic())
        return original_close(*args, **options)

    one_thread_each = mock.patch.object(run, "make_slots", return_value=slots)  # one thread also for a single worker
    with one_thread_each:
        ad.search(study, budget="1trials", workers=workers, progress=False)  # prepares data, teacher and its cache
        study.close = close
        with _Memory() as memory:
            ad.search(study, budget=f"{1 + trials + 2 * workers}trials", workers=workers, progress=False)
    ends.sort()  # the first and last trial of each worker overlap with starts and with idle others
    return 3600 * trials / (ends[-workers - 1] - ends[workers - 1]), memory.peak()


class _Memory:
    """Sampler of the memory of child processes that have loaded torch."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def peak(self) -> list[dict[str, float]]:
        """Return each worker's peak in MiB: private (``uss``), with its part of shared pages (``pss``), ``rss``."""
        return sorted(self._seen.values(), key=lambda row: -row["pss"])[:2]

    def _watch(self) -> None:
        import psutil

        while not self._stop.wait(0.5):
            for child in psutil.Process().children():
                try:
                    info = child.memory_full_info()
                except psutil.Error:
                    continue
                row = {name: getattr(info, name) / 2**20 for name in ("uss", "pss", "rss")}
                if row["pss"] > self._seen.get(child.pid, {"pss": 100.0})["pss"]:
                    self._seen[child.pid] = row


def show(part: str, row: dict[str, Any]) -> None:
    """Print one part."""
    if part == "training":
        one, two = (row[f"trials_per_hour_{workers}"] for workers in (1, 2))
        print(f"training: {one:.0f} trials per hour on one worker, {two:.0f} on two")
        print(f"  ratio {row['ratio']:.2f} (goal {GOALS[part]})")
        for index, memory in enumerate(row["memory_mb"]):
            print(f"  worker {index}: " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory.items()))
        return
    print(f"{part}: {row['workers']} workers, {row['trials']} trials of {row['sleep_s']:g} s in {row['seconds']:.0f} s")
    print(f"  utilisation {row['utilisation']:.3f} (goal {GOALS[part]}), whole run {row['utilisation_whole_run']:.3f}")
    print(
        f"  per trial: {row['idle_ms_per_trial']:.0f} ms of a worker, {row['driver_ms_per_trial']:.1f} ms of the driver"
    )
    print(f"  {row['start_s']:.0f} s until every worker had begun")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="8 workers, short trials: checks only the script")
    parser.add_argument("--parts", default="training,local,ray")
    parser.add_argument("--sleep", type=float, help="seconds of a sleeping trial")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for part in options.parts.split(","):
        if part == "training":
            rows[part] = training(*((2, 1) if options.quick else (16, 20)))
        else:
            size = (8, 240, options.sleep or 0.5) if options.quick else (WORKERS, 2000, options.sleep or 6.0)
            rows[part] = simulated(part, *size)
        show(part, rows[part])
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
