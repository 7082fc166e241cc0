"""Variants of the front sampler with one part switched off, for ablations.

A variant runs the shipped code with one function or number replaced for the time of the run. In :mod:`search` the
methods are named ``without-…``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from autodistill.search.model import front_model as model
from autodistill.search.model import model_input
from autodistill.search.model.gaussian_process import GroupedMatern
from autodistill.search.model.model_input import ModelInput
from autodistill.search.sampler import front_sampler as sampler
from autodistill.search.sampler import initial_design

Floats = npt.NDArray[np.float64]
Patches = Callable[[], contextlib.AbstractContextManager[Any]]


def _constant(inputs: Callable[..., Floats]) -> Callable[..., Floats]:
    return lambda self, *given: np.zeros_like(inputs(self, *given))  # a constant column carries no information


def _last(features: Floats, *others: Any) -> int:
    del others
    return len(features) - 1  # random choice, because the pool is shuffled


def _no_effects(self: GroupedMatern, features: Floats) -> Floats:
    del self
    return np.zeros((len(features), 1))


WITHOUT_BOUND = "without-bound"
"""Variant that hides the accuracy bound from the sampler; used only with ``--floor``."""

PATCHES: dict[str, Patches] = {
    "without-cost-inputs": lambda: mock.patch.object(ModelInput, "_inputs", _constant(ModelInput._inputs)),
    "without-spread-design": lambda: mock.patch.object(initial_design, "most_different", _last),
    "without-main-effects": lambda: mock.patch.object(GroupedMatern, "main", _no_effects),
    "without-prior-mean": lambda: mock.patch.object(model, "CAPACITY", 0.0),
    "without-low-reference": lambda: mock.patch.object(model_input, "REFERENCE_QUANTILE", 1.0),
    "without-logarithm": lambda: mock.patch.object(model, "SHIFT", 1e3),
    WITHOUT_BOUND: lambda: mock.patch.object(sampler, "worst_wanted", return_value={}),
}


def under(make: Patches, run: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    """Return ``run`` with the patch applied around it."""

    def patched(trace: Any, seed: int) -> None:
        with make():
            run(trace, seed)

    return patched
