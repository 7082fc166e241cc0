"""Problems of the search benchmark: published tables, and the LCBench surrogate with its learning curves.

A table consists of ``NAME.csv.gz`` and ``NAME.json``. The JSON has the keys ``parameters`` (column to choices),
``accuracy`` (column in percent, maximised), ``costs`` (columns known before training, with ``"log"`` for a logarithmic
axis) and ``complete_grid``. No table is special-cased.

Accuracy is scaled between its 10 % quantile and its maximum. Costs are scaled between their extremes. The reference
point of the hypervolume has scaled accuracy 0 and scaled costs 1. Regret is 1 - HV / HV of the true front.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recorded import Recorded

from autodistill.core.records import Constraint, Objective
from autodistill.search.objectives import pareto

Values = Mapping[str, Any]
"""Optuna parameter name to value."""


@dataclass(frozen=True)
class Axis:
    """One scaled axis of the hypervolume."""

    low: float
    high: float
    log: bool = False

    def scale(self, values: Any) -> Any:
        """Scale values: 0 at ``low``, 1 at ``high``."""
        low, high = (np.log(self.low), np.log(self.high)) if self.log else (self.low, self.high)
        values = np.log(values) if self.log else np.asarray(values, dtype=float)
        return (values - low) / (high - low)


@dataclass
class Scale:
    """Axes of one problem, and the hypervolume of its true front (``best``)."""

    accuracy: Axis
    costs: tuple[Axis, ...]
    best: float = 1.0

    def losses(self, accuracy: Any, costs: Any) -> np.ndarray:
        """Return scaled losses ``(points, 1 + costs)``: 1 - accuracy, then costs. The reference point is all ones."""
        costs = np.atleast_2d(np.asarray(costs, dtype=float))
        columns = [1 - self.accuracy.scale(np.atleast_1d(accuracy))]
        columns += [axis.scale(costs[:, i]) for i, axis in enumerate(self.costs)]
        return np.stack(columns, axis=1)

    def volume(self, losses: np.ndarray) -> float:
        """Return the hypervolume of scaled losses."""
        return pareto.hypervolume(losses, np.ones(1 + len(self.costs))) if len(losses) else 0.0

    def regret(self, losses: np.ndarray) -> float:
        """Return the missing share of the true front's hypervolume."""
        return 1.0 - self.volume(losses) / self.best


class Table:
    """A table in which every row is one trained network.

    Args:
        directory: folder with ``NAME.json`` and ``NAME.csv.gz``.
        name: name of the table.
        costs: cost columns that are objectives beside accuracy.
        floor: quantile of the accuracy below which no network counts. The sampler receives it as a constraint. If None,
            the quantile is 0.1 and there is no constraint.
    """

    rungs: tuple[int, ...] = (1,)
    constraints: tuple[Constraint, ...]

    def __init__(self, directory: Path, name: str, costs: Sequence[str], floor: float | None = None) -> None:
        meta = json.loads((directory / f"{name}.json").read_text())
        frame = pd.read_csv(directory / f"{name}.csv.gz", keep_default_na=False)
        missing = [cost for cost in costs if cost not in meta["costs"]]
        if missing:
            raise SystemExit(f"table {name} has no cost {missing[0]!r}; it has {', '.join(meta['costs'])}")
        self.name = name if floor is None else f"{name}, floor {floor:g}"
        self.costs_names = tuple(costs)
        self.complete = bool(meta["complete_grid"])
        self.parameters: dict[str, list[Any]] = meta["parameters"]
        self.space = {"student": {column: {"values": choices} for column, choices in self.parameters.items()}}
        self.objectives = (
            Objective("accuracy", "maximize", "percent", "trained"),
            *(Objective(c, "minimize", "", "known", log=meta["costs"][c] == "log") for c in costs),
        )
        accuracy = frame[meta["accuracy"]].to_numpy(float)
        table = frame[list(costs)].to_numpy(float)
        hints = frame[[c for c in meta["costs"] if c not in costs]]
        axes = tuple(Axis(c.min(), c.max(), o.log) for c, o in zip(table.T, self.objectives[1:], strict=True))
        lowest = float(np.quantile(accuracy, 0.1 if floor is None else floor))
        self.constraints = () if floor is None else (Constraint("accuracy", ">=", lowest),)
        self.scale = Scale(Axis(lowest, float(accuracy.max())), axes)
        self.scale.best = self.scale.volume(self.scale.losses(accuracy, table))
        keys = zip(*(self._typed(frame[c], choices) for c, choices in self.parameters.items()), strict=True)
        self._rows = {key: (accuracy[i], table[i]) for i, key in enumerate(keys)}
        self._hints = dict(zip(self._rows, hints.to_dict("records"), strict=True))

    @staticmethod
    def _typed(column: pd.Series[Any], choices: list[Any]) -> list[Any]:
        by_text = {str(choice): choice for choice in choices}
        return [by_text[str(value)] for value in column]

    def costs(self, student: Values) -> dict[str, float] | None:
        """Return the objectives among the known costs; ``None`` if the table has no row."""
        row = self._rows.get(tuple(student[name] for name in self.parameters))
        return None if row is None else dict(zip(self.costs_names, map(float, row[1]), strict=True))

    def known(self, student: Values) -> dict[str, float] | None:
        """Return all costs known before training, objectives first; ``None`` if the table has no row."""
        costs = self.costs(student)
        return None if costs is None else costs | self._hints[tuple(student[name] for name in self.parameters)]

    def accuracy(self, sections: Mapping[str, Values], epochs: int) -> float:
        """Return the accuracy in percent after full training; ``epochs`` is ignored, because a table has no curves."""
        del epochs
        return float(self._rows[tuple(sections["student"][name] for name in self.parameters)][0])

    def rate(self, sections: Mapping[str, Values]) -> float:
        """Return the work of one epoch: 1, because all trainings of a table cost the same."""
        del sections
        return 1.0


class LCBench:
    """One task of the LCBench surrogate: architecture and hyperparameters, with the accuracy after every epoch.

    Work is counted in epochs, or in predicted seconds. Seconds are scaled so that the work of the mean full training
    equals its number of epochs.

    The known cost is the parameter count of a funnel MLP whose widths fall linearly from ``max_units`` to 10 outputs.
    The count assumes 64 inputs for every task, because the surrogate does not state them. The true front is that of
    20,000 random configurations, improved by 15 generations of mutation.
    """

    rungs = (3, 9, 27, 52)
    complete = True
    costs_names = ("params",)
    constraints: tuple[Constraint, ...] = ()
    objectives = (
        Objective("accuracy", "maximize", "percent", "trained"),
        Objective("params", "minimize", "count", "known", log=True),
    )
    columns = (
        "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout",
    )  # fmt: skip

    def __init__(self, directory: Path, task: str, unit: str = "epochs") -> None:
        self.name = f"lcbench_{task}" + ("" if unit == "epochs" else f"_{unit}")
        self.unit = unit
        config = json.loads((directory / "config_space.json").read_text())["hyperparameters"]
        self._bounds = {h["name"]: h for h in config if h["name"] in self.columns}
        codes = json.loads((directory / "encoding.json").read_text())["OpenML_task_id"]
        if task not in codes:
            raise SystemExit(f"LCBench has no task {task!r}; it has {', '.join(codes)}")
        self._code = codes[task]
        self._model = directory / "model.onnx"
        self.space = {
            "student": {name: self._range(name) for name in ("num_layers", "max_units")},
            "train": {name: self._range(name) for name in self.columns if name not in ("num_layers", "max_units")},
        }
        self.scale = self._scale()
        drawn = self._uniform(np.random.default_rng(1).random((2_000, len(self.columns))))
        self._rates: dict[tuple[float, ...], float] = {}
        self._mean_seconds = float(self._predicted(drawn, self.rungs[-1])[:, 0].mean())

    def _range(self, name: str) -> dict[str, Any]:
        h = self._bounds[name]
        kind = int if h["type"] == "uniform_int" else float
        return {"low": kind(h["lower"]), "high": kind(h["upper"]), "log": bool(h["log"])}

    @functools.cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(str(self._model), options)

    def _predicted(self, rows: np.ndarray, epochs: int) -> np.ndarray:
        """Return the surrogate's outputs for configurations ``(n, 7)``, ordered as ``columns``; seconds come first."""
        x = np.column_stack([np.full(len(rows), epochs), rows]).astype(np.float32)
        codes = np.full((len(rows), 1), self._code, dtype=np.int32)
        out: np.ndarray = self._session.run(None, {"x_cont": x, "x_cat": codes})[0]
        return out.astype(float)

    def _accuracies(self, rows: np.ndarray, epochs: int) -> np.ndarray:
        """Return validation accuracies in percent."""
        return np.clip(self._predicted(rows, epochs)[:, 1], 0.0, 100.0)

    def _params(self, rows: np.ndarray) -> np.ndarray:
        return np.array([funnel_parameters(int(row[4]), int(row[5])) for row in rows], dtype=float)

    def _uniform(self, unit: np.ndarray) -> np.ndarray:
        columns = []
        for i, name in enumerate(self.columns):
            h = self._bounds[name]
            low, high = (np.log(h["lower"]), np.log(h["upper"])) if h["log"] else (h["lower"], h["upper"])
            column = low + unit[:, i] * (high - low)
            column = np.exp(column) if h["log"] else column
            columns.append(np.round(column) if h["type"] == "uniform_int" else column)
        return np.stack(columns, axis=1)

    def _scale(self) -> Scale:
        rng = np.random.default_rng(0)
        unit = rng.random((20_000, len(self.columns)))
        rows = self._uniform(unit)
        accuracy, params = self._accuracies(rows, self.rungs[-1]), self._params(rows)
        axis = Axis(float(np.quantile(accuracy, 0.1)), float(accuracy.max()))
        scale = Scale(axis, (Axis(funnel_parameters(1, 64), funnel_parameters(5, 1024), log=True),))
        losses = scale.losses(accuracy, params[:, None])
        for _ in range(15):
            elite = np.flatnonzero(pareto.nondominated_ranks(losses) < 2)
            unit, losses = unit[elite], losses[elite]
            parents = unit[rng.integers(len(unit), size=2_000)]
            step = rng.normal(size=parents.shape) * (rng.random(parents.shape) < 0.4) * rng.choice([0.02, 0.1, 0.3])
            child = np.clip(parents + step, 0, 1)
            rows = self._uniform(child)
            accuracy, params = self._accuracies(rows, self.rungs[-1]), self._params(rows)
            unit = np.concatenate([unit, child])
            losses = np.concatenate([losses, scale.losses(accuracy, params[:, None])])
        scale.best = scale.volume(losses)
        return scale

    def costs(self, student: Values) -> dict[str, float]:
        """Return the parameter count."""
        return {"params": float(funnel_parameters(student["num_layers"], student["max_units"]))}

    known = costs

    def accuracy(self, sections: Mapping[str, Values], epochs: int) -> float:
        """Return the validation accuracy in percent after ``epochs``."""
        return float(self._accuracies(self._row(sections), epochs)[0])

    def rate(self, sections: Mapping[str, Values]) -> float:
        """Return the work of one epoch."""
        if self.unit == "epochs":
            return 1.0
        row = self._row(sections)
        key = tuple(row[0])
        if key not in self._rates:  # samplers request the same candidates at every step
            self._rates[key] = float(max(self._predicted(row, self.rungs[-1])[0, 0], 1e-3) / self._mean_seconds)
        return self._rates[key]

    def _row(self, sections: Mapping[str, Values]) -> np.ndarray:
        settings = {**sections["student"], **sections["train"]}
        return np.array([[settings[name] for name in self.columns]], dtype=float)


@functools.cache
def funnel_parameters(layers: int, width: int, inputs: int = 64, outputs: int = 10) -> int:
    """Count weights and biases of an MLP whose hidden widths fall linearly from ``width`` towards ``outputs``."""
    hidden = [round(width - i * (width - outputs) / layers) for i in range(layers)]
    sizes = [inputs, *hidden, outputs]
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


Problem = Table | LCBench | Recorded
