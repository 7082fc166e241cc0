"""Example of a search over your own evaluation, here a formula, instead of timm training.

Run it:  python examples/search_a_table.py
It takes a few seconds, trains nothing and writes nothing.

You provide three things:

- *space*: a plain dict, with the same grammar as in YAML;
- *costs*: a function that returns the known costs of a student, by objective name;
- *evaluate*: a generator that yields one report per rung, the known costs first. The search stops the generator if
  further training does not pay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import autodistill as ad

SPACE = {
    "student": {"width": [8, 16, 32, 64], "depth": [1, 2, 3, 4]},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
}
EPOCHS = (2, 6, 18)  # at rungs 1, 2 and 3


def costs(student: Mapping[str, Any]) -> dict[str, float]:
    return {"params": 9.0 * student["width"] ** 2 * student["depth"]}


def evaluate(candidate: ad.Candidate) -> Iterator[ad.Report]:
    known = costs(candidate.student)
    yield ad.Report(rung=0, values=known)
    capacity = 1 - 0.4 * (known["params"] / 500) ** -0.3
    tuning = math.exp(-((math.log10(candidate.train["lr"]) + 2) ** 2))
    for rung, epochs in enumerate(EPOCHS, start=1):
        accuracy = capacity * (0.7 + 0.3 * tuning) * (1 - math.exp(-epochs / 5))
        yield ad.Report(rung=rung, values={"accuracy": accuracy}, epochs=epochs, seconds=0.0)


def main() -> None:
    study = ad.Study.create(
        name="table",
        space=SPACE,
        objectives=["accuracy", "params"],
        epochs=EPOCHS[-1],
        rungs={"eta": 3, "levels": list(EPOCHS)},
        sampler="random",
    )
    front = ad.search(study, evaluate=evaluate, costs=costs, budget="40trials")
    for trial in front.trials:
        print(f"{trial.values['accuracy']:.3f}  {trial.values['params']:8,.0f} parameters  {dict(trial.student)}")
    best = front.pick("params <= 20000")
    print(f"best below 20,000 parameters: {dict(best.student)}")


if __name__ == "__main__":
    main()
