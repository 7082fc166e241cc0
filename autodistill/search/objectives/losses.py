"""Objective values as losses: smaller is better, and counts and times on a logarithmic axis where they have one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autodistill.core.records import Objective


def to_losses(objectives: Sequence[Objective], values: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Losses (smaller is better) in the objectives' own units, ``(trials, objectives)``."""
    rows = [[o.loss(float(v[o.name])) for o in objectives] for v in values]
    return np.array(rows, dtype=float).reshape(len(values), len(objectives))


def axis_losses(objectives: Sequence[Objective], values: Sequence[Mapping[str, float]]) -> np.ndarray:
    """As :func:`to_losses`, with objectives that live on a logarithmic axis taken to their logarithm."""
    rows = [
        [o.loss(math.log(max(float(v[o.name]), 1e-12))) if o.log else o.loss(float(v[o.name])) for o in objectives]
        for v in values
    ]
    return np.array(rows, dtype=float).reshape(len(values), len(objectives))
