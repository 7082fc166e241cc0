"""Studies for the tests of the report: made in a second, with hostile names, failures and a verification."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import autodistill as ad
from autodistill.search.results.front import Front
from autodistill.search.results.verified import Difference, Figure, Verified, VerifiedRow
from autodistill.search.study.study import Study

HOSTILE = "<script>window.hacked=1</script>"
QUOTES = "\"><img src=x onerror='window.hacked=1'>&lt;b&gt; </script> {{7*7}}"
EPOCHS = (2, 6, 18)
SPACE: dict[str, Any] = {
    "student": {"family": [HOSTILE, QUOTES, "resnet"], "width": [4, 8, 16, 32, 64, 128], "depth": [1, 2, 3, 4]},
    "distillation": {
        "loss": ["none", "kd"],
        "temperature": {"low": 1, "high": 20, "log": True, "when": {"loss": ["kd"]}},
    },
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
}


def costs(student: Mapping[str, Any]) -> dict[str, float]:
    params = 9.0 * student["width"] ** 2 * student["depth"]
    return {
        "params": params,
        "latency_ms": 0.05 * student["depth"] + params / 40000 + 0.1,
        "macs": params * (1 + student["depth"]),
        "bytes": 4 * params,
    }


def evaluate(candidate: ad.Candidate) -> Iterator[ad.Report]:
    known = costs(candidate.student)
    yield ad.Report(rung=0, values=known)
    if candidate.number % 11 == 7:
        raise ValueError(f"broken {HOSTILE}")
    capacity = 1 - 0.4 * (known["params"] / 500 + 1) ** -0.3
    tuning = math.exp(-((math.log10(candidate.train["lr"]) + 2) ** 2))
    taught = 0.06 if candidate.distillation["loss"] == "kd" else 0.0
    for rung, epochs in enumerate(EPOCHS, start=1):
        accuracy = min(1.0, (capacity * (0.8 + 0.2 * tuning) + taught) * (1 - math.exp(-epochs / 5)))
        yield ad.Report(rung, {"accuracy": accuracy, "loss": 1 - accuracy}, epochs=epochs, seconds=3.0 * epochs)


def make(
    objectives: Sequence[str] = ("accuracy", "params", "latency_ms"),
    *,
    trials: int = 40,
    directory: Path | None = None,
    **keys: Any,
) -> Study:
    """A study of ``trials`` trials; 0 makes none."""
    settings = {
        "name": "flowers",
        "space": SPACE,
        "objectives": list(objectives),
        "epochs": EPOCHS[-1],
        "rungs": {"eta": 3, "levels": list(EPOCHS)},
        "sampler": "random",
        "directory": directory,
        **keys,
    }
    study = ad.Study.create(**settings)
    names = [o.name for o in study.objectives if o.stage == "known"]
    if trials:
        study.optuna.set_user_attr("teacher", {"accuracy": 0.97, "params": 4e6, "latency_ms": 9.0})
        study.optuna.set_user_attr(
            "sources",
            {"data": "cd99668f5cbed234", "teacher": "feed5f8f0123abcd", "train_images": 900, "validation_images": 300,
             "image_size": 28, "channels": 1, "classes": [HOSTILE, QUOTES, "rose"]},
        )  # fmt: skip
        ad.search(
            study,
            evaluate=evaluate,
            costs=lambda student: {name: costs(student)[name] for name in names},
            budget=f"{trials}trials",
            workers=1,
        )
    return study


def verification(front: Front) -> Verified:
    """A verification of ``front``: the most accurate trial keeps its gain, the next may be chance, the last falls."""
    rows: list[VerifiedRow] = []
    for place, trial in enumerate(sorted(front.trials, key=lambda t: -t.values["accuracy"])):
        searched = trial.values["accuracy"]
        mean = searched - 0.01
        distilled = trial.distillation["loss"] != "none"
        rows.append(
            VerifiedRow(
                "student",
                f"student {trial.number}",
                trial=trial.number,
                student=trial.student,
                distillation=trial.distillation,
                train=trial.train,
                seeds=(11, 12, 13),
                planned=3,
                accuracy=Figure(mean, 0.002, mean - 0.006, mean + 0.006),
                agreement=Figure(0.95, 0.001),
                ece=Figure(0.02, 0.001),
                costs=dict(trial.values),
                file_bytes=5000,
                file_latency_ms=trial.values["latency_ms"] * 0.9,
                searched=searched,
                flattered=0.01,
                gain=Difference(0.015, 0.008 if place == 0 else -0.004, 0.022, 3) if distilled else None,
                before=True,
                verdict="falls" if place == len(front.trials) - 1 else "stays",
                rivals=(front.trials[0].number,) if place == 0 else (),
            )
        )
        if distilled:
            rows.append(
                VerifiedRow(
                    "twin",
                    "twin",
                    trial=trial.number,
                    seeds=(11, 12, 13),
                    planned=3,
                    accuracy=Figure(mean - 0.015, 0.003),
                )
            )
    rows.append(VerifiedRow("teacher", "teacher", accuracy=Figure(0.965), costs={}))
    return Verified(
        front.study,
        tuple((o.name, o.direction) for o in front.objectives),
        tuple(rows),
        3,
        epochs=18,
        test_images=1000,
        validation_images=300,
        of_files=("latency_ms",),
        judged="Verdicts take latency_ms of the exported file, which is what ships.",
        seconds=1800.0,
        finished=6,
        planned=6,
        data="cd99668f5cbed234",
        teacher="feed5f8f0123abcd",
    )
