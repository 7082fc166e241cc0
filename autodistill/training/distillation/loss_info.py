"""Description of a loss: its keywords, their defaults and the ranges worth searching.

The documentation, the validation of a loss mix and the built-in search spaces read the same record. Each range is
therefore written once, next to its formula.
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
    """Range of a keyword that is worth searching; values outside stay allowed.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether values are sampled on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class LossInfo:
    """Description of a loss, for documentation and validation.

    Attributes:
        name: registered name.
        summary: description in one line.
        source: paper that defines or uses this form of the loss.
        defaults: every keyword with its default.
        ranges: ranges of the keywords that are worth searching.
        uses_target: whether the loss needs labels.
        task_weight: published weight of the task loss, used without calibration.
        distillation_weight: published weight of this term, used without calibration.
        least_classes: smallest number of classes that the loss can teach; below it, its gradient is zero.
        why_least: the reason for more than two, in words.
    """

    name: str
    summary: str
    source: str
    defaults: Mapping[str, float]
    ranges: Mapping[str, Range]
    uses_target: bool = False
    task_weight: float = 1.0
    distillation_weight: float = 1.0
    least_classes: int = 2
    why_least: str = ""

    def check(self, keywords: Mapping[str, Any]) -> dict[str, float]:
        """Return ``keywords`` as floats.

        Raises:
            UnknownNameError: the loss does not take a keyword.
            UsageError: a value is not a finite number in the allowed range.
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
    """Build the record of a loss from its keyword-only arguments and the first line of its docstring.

    Args:
        function: the loss; for a plugin its signature is enough.
        name: registered name.
        **facts: further fields of ``LossInfo``. A plugin gives ``least_classes`` as an attribute of its function.

    Raises:
        UsageError: a range was given for something that is not a keyword of the loss.
    """
    defaults = {
        parameter.name: float(parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and isinstance(parameter.default, int | float)
    }
    summary = (inspect.getdoc(function) or name).split("\n", 1)[0]
    facts = {"source": "", "ranges": {}, "least_classes": getattr(function, "least_classes", 2), **facts}
    unknown = set(facts["ranges"]) - set(defaults)
    if unknown:
        raise UsageError(f"loss {name!r} gives ranges for {sorted(unknown)}, which are not its keywords.")
    return LossInfo(name=name, summary=summary, defaults=defaults, **facts)
