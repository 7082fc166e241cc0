"""Example of the main job from Python: from images, a teacher and a budget to a front of students.

Run it:  python examples/digits_python_api.py
It takes about a minute on two cores and writes into a temporary folder. A real search has a budget of minutes to days.
This example is small so that it ends soon.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import autodistill as ad


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "digits"
        study = ad.Study.create(
            data={"source": "digits", "train_size": 600},
            teacher={"source": "auto", "options": {"epochs": 12}},
            set={"student.family": "resnet", "student.resnet.width": [4, 6, 8, 10]},
            objectives=["accuracy", "params", "latency_ms"],
            epochs=12,
            rungs="off",
            survey=6,
            directory=folder,
        )
        # Progress goes to stderr: a live panel on a terminal, lines elsewhere. progress=False prints nothing.
        # progress=function calls your function with every snapshot.
        front = ad.search(study, budget="4trials", workers=1, progress=True)

        print(front.to_pandas()[["number", "accuracy", "params", "latency_ms", "distillation.loss"]])
        print("files:", ", ".join(sorted(path.name for path in folder.glob("front.*"))))

        # A study is a folder. Open it again from any program, and continue with a larger budget.
        again = ad.Study.open(folder)
        print("trials so far:", len(again.trials()))
        front = ad.search(again, budget="6trials", workers=1, progress=False)
        best = front.pick("params <= 1e6")
        print(f"most accurate below a million parameters: trial {best.number}, {dict(best.student)}")


if __name__ == "__main__":
    main()
