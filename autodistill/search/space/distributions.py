"""Values of a parameter: description in words, validity checks, and conversion to and from a unit scale."""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.core.records import plain


def describe(distribution: BaseDistribution) -> str:
    """Return the values of a parameter in words, e.g. ``8, 16, 32`` or ``0.001 to 0.03 (log)``."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    log = " (log)" if distribution.log else ""
    step = f" step {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{step}{log}"


def allowed_words(d: BaseDistribution) -> str:
    """Return the allowed values in words, for messages about an invalid value."""
    return f"{describe(d)}{' (whole numbers)' if isinstance(d, IntDistribution) else ''}"


def contains(d: BaseDistribution, value: Any) -> bool:
    """Return whether a value is valid: one of the choices, or a number within the range and on its steps."""
    if isinstance(d, CategoricalDistribution):
        return value in d.choices
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not d.low <= value <= d.high:
        return False
    steps = 0.0 if d.step is None else (value - d.low) / d.step
    return abs(steps - round(steps)) < 1e-8  # Optuna's tolerance


def held(d: BaseDistribution, value: Any) -> Any:
    """Convert a value from outside to a Python number; a whole number of an integer parameter becomes an int."""
    value = plain(value)
    return int(value) if isinstance(d, IntDistribution) and contains(d, value) else value


def from_unit(d: BaseDistribution, unit: float) -> Any:
    """Return the value at ``unit`` in [0, 1] of the parameter's scale; exactly the bounds at 0 and 1."""
    if isinstance(d, CategoricalDistribution):
        return d.choices[min(int(unit * len(d.choices)), len(d.choices) - 1)]
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if unit in (0.0, 1.0):
        return d.high if unit else d.low  # logarithm and exponential would have a rounding error
    half = 0.5 if isinstance(d, IntDistribution) else 0.0
    low, high = d.low - half, d.high + half
    value = math.exp(math.log(low) + unit * math.log(high / low)) if d.log else low + unit * (high - low)
    if d.step is not None and not d.log:
        value = d.low + round((value - d.low) / d.step) * d.step
    value = min(max(value, d.low), d.high)
    return round(value) if isinstance(d, IntDistribution) else float(value)


def to_unit(d: BaseDistribution, value: float) -> float:
    """Return the position of a number in its range, 0 to 1 (in the logarithm if the range is logarithmic)."""
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if d.low == d.high:
        return 0.5
    if d.log:
        return math.log(value / d.low) / math.log(d.high / d.low)
    return (value - d.low) / (d.high - d.low)
