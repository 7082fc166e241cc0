"""Objective values as losses: smaller is better, and counts and times can be taken to their logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autodistill.core.records import Objective


def to_losses(objectives: Sequence[Objective], values: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Return losses (smaller is better) in the objectives' own units, ``(trials, objectives)``."""
    rows = [[o.loss(float(v[o.name])) for o in objectives] for v in values]
    return np.array(rows, dtype=float).reshape(len(values), len(objectives))


def axis_losses(objectives: Sequence[Objective], values: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Return losses like :func:`to_losses`, with the logarithm of objectives on a logarithmic axis."""
    rows = [
        [o.loss(math.log(max(float(v[o.name]), 1e-12))) if o.log else o.loss(float(v[o.name])) for o in objectives]
        for v in values
    ]
    return np.array(rows, dtype=float).reshape(len(values), len(objectives))
