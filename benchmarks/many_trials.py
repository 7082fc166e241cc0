"""Benchmark of opening and reading a study of many trials: time and memory of ``open``, ``front`` and ``report``.

A short simulated search makes a study; its database is then filled directly, because asking for 100,000 trials would
take hours. The filled rows have the same form as the search's own. Each step runs in a process of its own::

    python benchmarks/many_trials.py --json FILE [--quick] [--sizes 1000,10000,100000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOALS = {"open_s": 5.0, "open_mb": 500.0, "front_s": 8.0, "report_s": 60.0}
"""Bounds at 100,000 trials."""

FAMILIES = ("mobilenetv3", "resnet", "efficientnet_lite", "ghostnet")
TOP = (1, 3, 9)
SPACE = {
    "student": {"family": list(FAMILIES), "width": {"low": 0.25, "high": 2.0}, "depth": {"low": 1, "high": 6}},
    "distillation": {"loss": ["none", "kd", "dkd"], "temperature": {"low": 1.0, "high": 10.0}},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "augmentation": ["none", "flip_crop"]},
}


def _costs(student: dict[str, Any]) -> dict[str, float]:
    size = float(student["width"]) ** 2 * int(student["depth"])
    return {"params": 1e5 * size, "latency_ms": 0.5 + size}


def _evaluate(candidate: Any) -> Iterator[Any]:
    import autodistill as ad

    known = _costs(candidate.student)
    yield ad.Report(0, known)
    for rung, epochs in enumerate(TOP, 1):
        yield ad.Report(rung, {"accuracy": 0.5 + 0.1 * rung, "loss": 1.0, **known}, float(epochs), 2.0 * epochs)


def build(directory: Path, trials: int) -> None:
    """Make a study and fill its database up to ``trials`` trials."""
    import autodistill as ad

    study = ad.Study.create(
        name="many",
        space=SPACE,
        objectives=["accuracy", "params", "latency_ms"],
        epochs=9,
        sampler="random",
        directory=directory,
    )
    ad.search(study, evaluate=_evaluate, budget="6trials", progress=False)
    fill(directory / "study.db", trials)


def fill(path: Path, trials: int) -> None:
    """Add rows to a database until it holds ``trials`` trials."""
    connection = sqlite3.connect(path)
    (study,) = connection.execute("SELECT study_id FROM studies").fetchone()
    pattern = connection.execute("SELECT max(trial_id) FROM trials WHERE state = 'COMPLETE'").fetchone()[0]
    attributes = dict(
        connection.execute("SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?", (pattern,))
    )
    kinds = dict(connection.execute("SELECT param_name, distribution_json FROM trial_params"))
    first = connection.execute("SELECT max(trial_id), max(number) FROM trials").fetchone()
    rng = random.Random(0)
    rows: dict[str, list[tuple[Any, ...]]] = {"trials": [], "values": [], "params": [], "attributes": []}
    for number in range(first[1] + 1, trials):
        _one(rows, rng, study, first[0] + number - first[1], number, json.loads(attributes["candidate"]), kinds)
        if len(rows["trials"]) == 5000 or number == trials - 1:
            _write(connection, rows)
    connection.execute("ANALYZE")
    connection.commit()
    connection.close()


def _one(
    rows: dict[str, list[tuple[Any, ...]]],
    rng: random.Random,
    study: int,
    identifier: int,
    number: int,
    candidate: dict[str, Any],
    kinds: dict[str, str],
) -> None:
    """Add one trial: a third trained to the end, half stopped at a rung, the rest refused or failed."""
    params: dict[str, Any] = {
        "student.family": rng.randrange(len(FAMILIES)),
        "student.width": rng.uniform(0.25, 2.0),
        "student.depth": rng.randint(1, 6),
        "distillation.loss": rng.randrange(3),
        "distillation.temperature": rng.uniform(1.0, 10.0),
        "train.lr": 10 ** rng.uniform(-4, -1),
        "train.augmentation": rng.randrange(2),
    }
    student = {
        "family": FAMILIES[params["student.family"]],
        "width": params["student.width"],
        "depth": params["student.depth"],
    }
    distillation = {
        "loss": ("none", "kd", "dkd")[params["distillation.loss"]],
        "temperature": params["distillation.temperature"],
    }
    train = {"lr": params["train.lr"], "augmentation": ("none", "flip_crop")[params["train.augmentation"]]}
    own = {
        **candidate,
        "student": student,
        "distillation": distillation,
        "train": train,
        "seed": rng.randrange(2**31),
        "key": f"{rng.getrandbits(64):016x}",
    }
    kind = rng.random()
    reached = len(TOP) if kind < 1 / 3 else rng.randint(1, 2) if kind < 0.85 else 0
    state = "COMPLETE" if reached == len(TOP) else "PRUNED" if kind < 0.95 else "FAIL"
    reason = {"COMPLETE": "", "PRUNED": "RUNG_RULE" if reached else "INFEASIBLE", "FAIL": "NAN"}[state]
    known = _costs(student)
    limit = 0.95 - 0.4 / (1 + known["params"] / 1e5) - rng.expovariate(8)
    told: dict[str, Any] = {"candidate": own, "rung:0": {**known, "epochs": 0.0, "seconds": 0.1}}
    for rung in range(1, reached + 1):
        values = {"accuracy": max(0.1, limit - 0.2 / rung), "loss": rng.random(), **known}
        told[f"rung:{rung}"] = {**values, "epochs": float(TOP[rung - 1]), "seconds": 2.0 * TOP[rung - 1]}
        why = f"stopped at rung {rung} ({TOP[rung - 1]} of {TOP[-1]} epochs): 3 of 5 trials are better"
        told[f"decision:{rung}"] = {"why": [why], "unbeaten": rng.random() < 0.01}
    spent = {"seconds": 20.0 * number, "trials": number, "epochs": 4.0 * number, "device_seconds": 10.0 * number}
    told |= {"state": state, "reason": reason, "message": "" if state == "COMPLETE" else "as it was", "spent": spent}
    started = f"2026-12-01 {number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000000"
    rows["trials"].append((identifier, number, study, state, started, started))
    rows["params"] += [(identifier, name, float(value), kinds[name]) for name, value in params.items()]
    rows["attributes"] += [(identifier, key, json.dumps(value)) for key, value in told.items()]
    if state == "COMPLETE":
        final = (told[f"rung:{len(TOP)}"]["accuracy"], known["params"], known["latency_ms"])
        rows["values"] += [(identifier, place, value, "FINITE") for place, value in enumerate(final)]


def _write(connection: sqlite3.Connection, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    into = {
        "trials": "trials (trial_id, number, study_id, state, datetime_start, datetime_complete)",
        "values": "trial_values (trial_id, objective, value, value_type)",
        "params": "trial_params (trial_id, param_name, param_value, distribution_json)",
        "attributes": "trial_user_attributes (trial_id, key, value_json)",
    }
    for name, table in into.items():
        if rows[name]:
            marks = ", ".join("?" * len(rows[name][0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[name])
        rows[name].clear()
    connection.commit()


def measure(step: str, directory: Path) -> dict[str, float]:
    """Run one step in this process and return its seconds and the memory that it added, in MB."""
    import autodistill as ad
    from autodistill.api import open_study  # the imports belong to no step

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    if step == "open":
        assert len(ad.Study.open(directory)._log) > 6
    else:
        from typer.testing import CliRunner

        from autodistill.cli import app

        argv = [step, str(directory)] + (["--json"] if step == "front" else [])
        result = CliRunner().invoke(app, argv)
        if result.exit_code:
            raise SystemExit(f"{step} failed: {result.output} {result.exception!r}")
    del open_study
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"s": seconds, "mb": peak - before, "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few hundred trials: checks only the script")
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--steps", default="open,front,trials,report")
    parser.add_argument("--keep", type=Path, help="folder for the studies, which are then kept and used again")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step[0], Path(options.step[1]))))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in [200, 400] if options.quick else [int(text) for text in options.sizes.split(",")]:
            directory = (options.keep or Path(scratch)) / str(size)
            if not (directory / "study.db").is_file():
                build(directory, size)
            row: dict[str, Any] = {"trials": size}
            for step in options.steps.split(","):
                call = [sys.executable, __file__, "--step", step, str(directory)]
                done = subprocess.run(call, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr[-3000:])
                found = json.loads(done.stdout.splitlines()[-1])
                row |= {f"{step}_s": found["s"], f"{step}_mb": found["peak_mb"]}
            rows.append(row)
            print(", ".join(f"{name} {value:,.4g}" for name, value in row.items()), flush=True)
    _growth(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _growth(rows: list[dict[str, Any]]) -> None:
    """Print how much longer each step takes per tenfold size, and what misses its bound."""
    for before, after in itertools.pairwise(rows):
        times = after["trials"] / before["trials"]
        for name in (name for name in after if name.endswith("_s")):
            ratio = after[name] / before[name] / times
            print(f"{before['trials']:,} to {after['trials']:,}, {name}: {ratio:.2f} of linear")
    last = rows[-1]
    for name, bound in GOALS.items():
        if last["trials"] == 100_000 and name in last:
            print(f"{name}: {last[name]:.3g} (bound {bound:g}){'' if last[name] <= bound else ' MISSED'}")


if __name__ == "__main__":
    main()
