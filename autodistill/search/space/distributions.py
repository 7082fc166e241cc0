"""The values that one parameter may have: said in words, checked, and as places in the range."""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.core.records import plain


def describe(distribution: BaseDistribution) -> str:
    """The values of a parameter in words, e.g. ``8, 16, 32`` or ``0.001 to 0.03 (log)``."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    log = " (log)" if distribution.log else ""
    step = f" step {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{step}{log}"


def allowed_words(d: BaseDistribution) -> str:
    """The same, for messages about a value that is not among them."""
    return f"{describe(d)}{' (whole numbers)' if isinstance(d, IntDistribution) else ''}"


def contains(d: BaseDistribution, value: Any) -> bool:
    """Whether a parameter may have this value: one of its choices, or a number of its range and on its steps."""
    if isinstance(d, CategoricalDistribution):
        return value in d.choices
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not d.low <= value <= d.high:
        return False
    steps = 0.0 if d.step is None else (value - d.low) / d.step
    return abs(steps - round(steps)) < 1e-8  # as exact as Optuna is


def held(d: BaseDistribution, value: Any) -> Any:
    """A value of somebody else's in Python's own numbers, a whole one of integers as such."""
    value = plain(value)
    return int(value) if isinstance(d, IntDistribution) and contains(d, value) else value


def from_unit(d: BaseDistribution, unit: float) -> Any:
    """The value of a parameter at ``unit`` in [0, 1] of its scale; at its ends the bounds themselves."""
    if isinstance(d, CategoricalDistribution):
        return d.choices[min(int(unit * len(d.choices)), len(d.choices) - 1)]
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if unit in (0.0, 1.0):
        return d.high if unit else d.low  # a logarithm and back would miss them by a rounding error
    half = 0.5 if isinstance(d, IntDistribution) else 0.0
    low, high = d.low - half, d.high + half
    value = math.exp(math.log(low) + unit * math.log(high / low)) if d.log else low + unit * (high - low)
    if d.step is not None and not d.log:
        value = d.low + round((value - d.low) / d.step) * d.step
    value = min(max(value, d.low), d.high)
    return round(value) if isinstance(d, IntDistribution) else float(value)


def to_unit(d: BaseDistribution, value: float) -> float:
    """Where a number lies in its range, 0 to 1."""
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if d.low == d.high:
        return 0.5
    if d.log:
        return math.log(value / d.low) / math.log(d.high / d.low)
    return (value - d.low) / (d.high - d.low)
