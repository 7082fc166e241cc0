"""Problem of students and recipes together, from trainings that were really run.

Tables have students without recipes. LCBench has recipes of one kind of network. This problem has both, with rungs, two
known costs and a pool of small students. ``benchmarks/data/digits.jsonl.gz`` holds trainings of the space ``digits`` on
the real images (accuracy after 1, 3 and 9 epochs). A Gaussian process on the logit of the accuracy interpolates between
them. A replayed training shows its prediction plus the noise that the process estimated. Regret counts the accuracy
without noise::

    python benchmarks/recorded.py record --teacher DIR --minutes 12 --seed 0 --out runs.jsonl  # more trainings
    python benchmarks/recorded.py pack runs.jsonl [more.jsonl]                                 # the data, fitted anew
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodistill.core.records import Constraint, Objective
from autodistill.search.space import moves
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.space import Space

DATA = Path(__file__).parent / "data"
COSTS = ("params", "latency_ms")
HINTS = ("macs",)
LEAST, MOST = 0.05, 0.998  # accuracies are clipped to this range before their logit is computed

Values = Mapping[str, Any]


class Recorded:
    """Students and recipes of one space, with the interface of :class:`tables.Table`.

    Args:
        name: name of the files in ``benchmarks/data``.
    """

    rungs = (1, 3, 9)
    constraints: tuple[Constraint, ...] = ()
    complete = True
    costs_names = COSTS
    objectives = (
        Objective("accuracy", "maximize", "fraction", "trained"),
        *(Objective(name, "minimize", "", "known", log=True) for name in COSTS),
    )

    def __init__(self, name: str) -> None:
        self.name = f"recorded_{name}"
        facts = json.loads((DATA / f"{name}.json").read_text())
        self.space: dict[str, Any] = facts["space"]
        self._parsed = Space.parse(self.space, name)
        self._encoder = Encoder.of(self._parsed)
        self._known = {_name(one["student"]): one["costs"] for one in facts["students"]}
        self._validation = facts["validation_images"]
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as file:
            runs = [json.loads(line) for line in file]
        self._processes = [_fitted(theta, *self._rows(runs, k)) for k, theta in enumerate(facts["theta"])]
        self._noise = [float(np.sqrt(p.kernel_.k2.noise_level) * p._y_train_std) for p in self._processes]
        self._time_coefficients = _time_coefficients(
            runs, [self.known(self._parsed.nest(run["values"])["student"]) for run in runs]
        )
        self._mean_rate = float(np.mean([self._rate(costs) for costs in self._known.values()]))

    def _rows(self, runs: Sequence[Mapping[str, Any]], rung: int) -> tuple[np.ndarray, np.ndarray]:
        shown = np.clip([run["accuracy"][rung] for run in runs], LEAST, MOST)
        return self._features([run["values"] for run in runs]), np.log(shown / (1 - shown))

    def _features(self, values: Sequence[Values]) -> np.ndarray:
        costs = [self.known(self._parsed.nest(one)["student"]) for one in values]
        logs = np.log([[one[name] for name in (*COSTS, *HINTS)] for one in costs])
        return np.hstack([self._encoder.encode(values), logs])

    def known(self, student: Values) -> dict[str, float]:
        """Return all known costs, objectives first."""
        return dict(self._known[_name(student)])

    def costs(self, student: Values) -> dict[str, float]:
        """Return the known costs that are objectives."""
        return {name: self._known[_name(student)][name] for name in COSTS}

    def accuracy(self, sections: Mapping[str, Values], epochs: int) -> float:
        """Return the noisy accuracy after ``epochs``; equal candidates give equal values."""
        rung, values = self.rungs.index(epochs), self._parsed.flatten(sections)
        seed = int(hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:15], 16)
        noise = np.random.default_rng(seed).normal(size=len(self.rungs))[rung] * self._noise[rung]
        shown = _unit(self._logits([values], rung) + noise)[0]
        return float(np.round(shown * self._validation) / self._validation)

    def worth(self, sections: Mapping[str, Values]) -> float:
        """Return the accuracy at the top rung without noise."""
        return float(_unit(self._logits([self._parsed.flatten(sections)], -1))[0])

    def rate(self, sections: Mapping[str, Values]) -> float:
        """Return the work of one epoch; 1 for the mean student."""
        return self._rate(self._known[_name(sections["student"])]) / self._mean_rate

    def _rate(self, costs: Mapping[str, float]) -> float:
        return float(np.exp(self._time_coefficients @ [1.0, np.log(costs["latency_ms"]), np.log(costs["macs"])]))

    def _logits(self, values: Sequence[Values], rung: int) -> np.ndarray:
        found: np.ndarray = self._processes[rung].predict(self._features(values))
        return found

    @functools.cached_property
    def scale(self) -> Any:
        """Axes of the problem, and the hypervolume of the best recipe of every student.

        The best recipe is found among 200 draws and four rounds of moves around the best of them.
        """
        from tables import Axis, Scale

        costs = np.array([[one[name] for name in COSTS] for one in self._known.values()])
        axes = tuple(Axis(0.95 * column.min(), 1.05 * column.max(), log=True) for column in costs.T)
        scale = Scale(Axis(0.1, 1.0), axes)
        rng, students = np.random.default_rng(0), self._parsed.section("student")
        best = []
        for name in self._known:
            student = students.flatten({"student": json.loads(name)})
            drawn = [moves.complete(self._parsed, student, rng) for _ in range(200)]
            for _ in range(4):
                logits = self._logits(drawn, -1)
                top = [drawn[i] for i in np.argsort(-logits)[:5]]
                moved = [m for one in top for m in moves.neighbours(self._parsed, one, rng, student)]
                drawn = [*top, *moved]
            best.append(float(self._logits(drawn, -1).max()))
        scale.best = scale.volume(scale.losses(_unit(np.array(best)), costs))
        return scale


def _name(student: Values) -> str:
    return json.dumps(dict(student), sort_keys=True)


def _unit(logits: np.ndarray) -> np.ndarray:
    out: np.ndarray = 1 / (1 + np.exp(-logits))
    return out


def _fitted(theta: Sequence[float] | None, features: np.ndarray, logits: np.ndarray) -> Any:
    """Fit the process of one rung, with hyperparameters ``theta`` if they are given."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    spread = features.std(axis=0)
    lengths = 3.0 * np.where(spread > 1e-9, spread, 1.0)
    bounds = np.stack([0.1 * lengths, 30 * lengths], axis=1)
    kernel = ConstantKernel(4.0) * Matern(lengths, bounds, nu=2.5) + WhiteKernel(0.1, (1e-3, 2.0))
    optimizer = "fmin_l_bfgs_b" if theta is None else None
    kernel = kernel if theta is None else kernel.clone_with_theta(np.array(theta))
    process = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=optimizer, random_state=0)
    with warnings.catch_warnings():  # a length scale at its bound belongs to a parameter without effect
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(features, logits)


def _time_coefficients(runs: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Regress the logarithm of a training's seconds on the logarithms of latency and MACs; return the coefficients."""
    inputs = np.array([[1.0, np.log(one["latency_ms"]), np.log(one["macs"])] for one in costs])
    found: np.ndarray = np.linalg.lstsq(inputs, np.log([run["seconds"] for run in runs]), rcond=None)[0]
    return found


def record(teacher: Path, minutes: float, seed: int, out: Path) -> None:
    """Train random candidates and append their runs to ``out``.

    Most of them are residual networks, because most of the cheap students are.
    """
    import autodistill as ad
    from autodistill.core.records import Candidate, WorkerContext
    from autodistill.engines.monitor.watch import Watch
    from autodistill.engines.setup.prepare import prepare

    kept = {"resnet": 1.0, "vit": 0.6}
    with tempfile.TemporaryDirectory() as folder, out.open("a") as file:
        study = ad.Study.create(
            data="digits", teacher=str(teacher), space="digits", epochs=Recorded.rungs[-1], survey="off",
            objectives=["accuracy", "params"], directory=Path(folder) / "study",
        )  # fmt: skip
        evaluate = prepare(study, Watch())(WorkerContext())
        rng, end, number = np.random.default_rng(seed), time.monotonic() + 60 * minutes, 0
        while time.monotonic() < end:
            values = study.space.sample(rng)
            if rng.random() > kept.get(values["student.family"], 0.2):
                continue
            parts = study.space.nest(values)
            sections = (parts["student"], parts["distillation"], parts["train"])
            began, number = time.monotonic(), number + 1
            reports = list(evaluate(Candidate(number, *sections, int(rng.integers(2**31)))))
            accuracy = [one.values["accuracy"] for one in reports if one.rung]
            run = {"values": values, "accuracy": accuracy, "seconds": round(time.monotonic() - began, 2)}
            file.write(json.dumps(run) + "\n")
            file.flush()


def pack(paths: Sequence[Path], name: str = "digits") -> None:
    """Write the files of a problem from recorded trainings, and print how well each rung is predicted."""
    from sklearn.model_selection import cross_val_predict

    from autodistill.core.records import LatencyTarget
    from autodistill.search.space.builtin import load_space
    from autodistill.training.costs.cost_memory import CostMemory, cache_folder
    from autodistill.training.survey.survey import survey

    runs = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    space = load_space(name)
    parsed = Space.parse(space, name).section("student")
    every = [parsed.nest(values)["student"] for values in parsed.enumerate() or ()]
    metrics = [*COSTS, *HINTS]
    rows = survey(
        every, image_size=8, channels=1, num_classes=10, metrics=metrics, target=LatencyTarget(),
        memory=CostMemory(cache_folder()),
    )  # fmt: skip
    students = [{"student": dict(row.student), "costs": row.costs} for row in rows if not row.error]
    facts = {"space": space, "validation_images": 216, "students": students, "theta": []}
    DATA.mkdir(exist_ok=True)
    with gzip.GzipFile(DATA / f"{name}.jsonl.gz", "wb", mtime=0) as file:
        file.write("".join(json.dumps(run) + "\n" for run in runs).encode())
    (DATA / f"{name}.json").write_text(json.dumps(facts))
    made = Recorded(name)
    for rung in range(len(Recorded.rungs)):
        features, logits = made._rows(runs, rung)
        process = _fitted(None, features, logits)
        facts["theta"].append([round(float(x), 4) for x in process.kernel_.theta])
        guess = cross_val_predict(_unfitted(process), features, logits, cv=5)
        noise = float(np.sqrt(process.kernel_.k2.noise_level) * logits.std())
        explained = 1 - np.var(guess - logits) / np.var(logits)
        print(f"{Recorded.rungs[rung]} epochs: {explained:.3f} of the variance explained (5 folds), noise {noise:.2f}")
    (DATA / f"{name}.json").write_text(json.dumps(facts) + "\n")


def _unfitted(process: Any) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(process.kernel_, normalize_y=True, optimizer=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("record", help="train random candidates and append their runs to --out")
    one.add_argument("--teacher", type=Path, required=True)
    one.add_argument("--minutes", type=float, default=12.0)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", type=Path, required=True)
    parts.add_parser("pack", help="fit the processes and write the files of the problem").add_argument(
        "runs", type=Path, nargs="+"
    )
    args = parser.parse_args()
    if args.part == "record":
        record(args.teacher, args.minutes, args.seed, args.out)
    else:
        pack(args.runs)
