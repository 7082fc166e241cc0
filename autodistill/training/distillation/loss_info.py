"""What a loss says about itself: its keywords, their defaults and the ranges worth searching.

Documentation, validation of a loss mix and the built-in search spaces read the same record, so that a range
is written once: beside the formula that it belongs to.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from autodistill.core.errors import UnknownNameError, UsageError

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Range:
    """Values of a keyword that are worth searching; others stay allowed.

    Attributes:
        low: smallest.
        high: largest.
        log: sampled on a logarithmic axis.
    """

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class LossInfo:
    """A loss for people and for validation.

    Attributes:
        name: registered name.
        summary: one line.
        source: paper, or where the form is used.
        defaults: every keyword with its default.
        ranges: keywords worth searching; the others are settings of the formula.
        uses_target: false for a loss that needs no labels.
        task_weight: published weight of the task loss, used where calibration is off.
        distillation_weight: published weight of this term, used where calibration is off.
    """

    name: str
    summary: str
    source: str
    defaults: Mapping[str, float]
    ranges: Mapping[str, Range]
    uses_target: bool = False
    task_weight: float = 1.0
    distillation_weight: float = 1.0

    def check(self, keywords: Mapping[str, Any]) -> dict[str, float]:
        """``keywords`` as floats.

        Raises:
            UsageError: a keyword that the loss does not take, or a value that is not a usable number.
        """
        return {name: self._number(name, value) for name, value in keywords.items()}

    def _number(self, name: str, value: Any) -> float:
        if name not in self.defaults:
            raise UnknownNameError(f"keyword of loss {self.name!r}", name, sorted(self.defaults))
        usable = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
        if not usable or value < 0 or (value == 0 and name == "temperature"):
            allowed = "a number above 0" if name == "temperature" else "a finite number, 0 or more"
            tried = self.ranges.get(name)
            hint = f"; {tried.low:g} to {tried.high:g} is usual" if tried else ""
            raise UsageError(f"{name} of loss {self.name!r} is {value!r}; it must be {allowed}{hint}.")
        return float(value)


def describe(function: LossFunction, name: str, **facts: Any) -> LossInfo:
    """The record of ``function``: its keyword-only arguments and the first line of its docstring.

    Args:
        function: a loss; plugins need nothing more than its signature.
        name: registered name.
        **facts: further fields of ``LossInfo``.
    """
    defaults = {
        parameter.name: float(parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and isinstance(parameter.default, int | float)
    }
    summary = (inspect.getdoc(function) or name).split("\n", 1)[0]
    facts = {"source": "", "ranges": {}, **facts}
    unknown = set(facts["ranges"]) - set(defaults)
    if unknown:
        raise UsageError(f"loss {name!r} gives ranges for {sorted(unknown)}, which are not its keywords.")
    return LossInfo(name=name, summary=summary, defaults=defaults, **facts)
