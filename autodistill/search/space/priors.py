"""Priors of a space: weights of choices, and expected best values of numbers.

A prior changes how often a value is drawn. It excludes nothing: the model can still propose every value, and in its
ranking the prior counts less with every trial (πBO; Hvarfner et al., ICLR 2022). Weights are as in ConfigSpace. The
prior of a number is that of NePS: a normal distribution around the expected best value, truncated at the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.search.space.distributions import contains, from_unit, to_unit

Floats = npt.NDArray[np.float64]

SPREAD = 0.25
"""Default standard deviation of a number's prior, as a share of its range; the middle of NePS's settings."""

DECAY = 4.0
"""Trials at which a prior has its full effect; after ``n`` trials it is raised to the power 4 / n. The paper uses a
tenth of all trials. A short search on a small machine has forty, and a longer one needs a prior less."""


@dataclass(frozen=True)
class Weights:
    """Prior of a categorical parameter: how often each choice is drawn.

    Attributes:
        shares: probabilities in the order of the choices; they sum to 1.
    """

    shares: tuple[float, ...]

    def unit(self, uniform: float) -> float:
        """Convert a uniform number in [0, 1) to one that ``from_unit`` maps to the drawn choice."""
        total = np.cumsum(self.shares)
        index = int(np.searchsorted(total, uniform * total[-1], side="right"))
        return (min(index, len(self.shares) - 1) + 0.5) / len(self.shares)

    def log_share(self, d: BaseDistribution, value: Any) -> float:
        """Return the logarithm of a choice's weight relative to the largest weight; 0 for the likeliest choice."""
        assert isinstance(d, CategoricalDistribution)
        same = [c == value and isinstance(c, bool) == isinstance(value, bool) for c in d.choices]
        index = same.index(True)
        return math.log(self.shares[index] / max(self.shares))


@dataclass(frozen=True)
class Centre:
    """Prior of a number: a truncated normal distribution around the expected best value.

    Attributes:
        at: position of that value in the range, 0 to 1 (of the logarithm if the range is logarithmic).
        spread: standard deviation in the same unit.
    """

    at: float
    spread: float = SPREAD

    def unit(self, uniform: float) -> float:
        """Convert a uniform number to a quantile of the truncated normal distribution."""
        normal = NormalDist(self.at, self.spread)
        low, high = normal.cdf(0.0), normal.cdf(1.0)
        inner = min(max(low + uniform * (high - low), 1e-12), 1 - 1e-12)  # 0 and 1 have no finite quantile
        return min(max(normal.inv_cdf(inner), 0.0), 1.0)

    def log_share(self, d: BaseDistribution, value: Any) -> float:
        """Return the logarithm of the density relative to the centre; 0 at the centre."""
        return float(self.log_at(np.asarray(to_unit(d, value))))

    def log_at(self, unit: Floats) -> Floats:
        """Return the same for positions in the range, 0 to 1."""
        return -0.5 * ((unit - self.at) / self.spread) ** 2


Prior = Weights | Centre


def at_unit(prior: Prior | None, uniform: float) -> float:
    """Convert a uniform number in [0, 1) to a position in the range by the prior; unchanged without a prior."""
    return uniform if prior is None else prior.unit(uniform)


def read_prior(d: BaseDistribution, value: Mapping[Any, Any]) -> tuple[Prior | None, str]:
    """Read the prior in a parameter's mapping; return it, or ``None``, and an error message, or an empty text.

    Keys are ``weights`` with ``values``; ``prior`` (the value expected to be best) and ``spread`` with ``low`` and
    ``high``.
    """
    if isinstance(d, CategoricalDistribution):
        if "prior" in value or "spread" in value:
            return None, "prior and spread apply to a range; for choices give weights, one number above 0 for each"
        return _weights(d, value["weights"]) if "weights" in value else (None, "")
    if "weights" in value:
        return None, "weights apply to choices (values: [...]); for a range give prior, the value expected to be best"
    if "prior" not in value:
        return None, "spread needs a prior: the value expected to be best" if "spread" in value else ""
    at, spread = value["prior"], value.get("spread", SPREAD)
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if not _number(at) or not d.low <= at <= d.high:
        return None, f"prior is {at!r}; it must be a number from {d.low:g} to {d.high:g}, the one expected to be best"
    if not _number(spread) or not 0 < spread <= 10:
        return None, f"spread is {spread!r}; it must be a number above 0 and up to 10, a share of the range"
    if not contains(d, at) and isinstance(d, IntDistribution):
        return None, f"prior is {at!r}; it must be one of the range's whole numbers"
    return Centre(to_unit(d, at), float(spread)), ""


class HasPrior(Protocol):
    """Interface of a parameter, as this module uses it."""

    @property
    def distribution(self) -> BaseDistribution:
        """Values of the parameter."""
        ...

    @property
    def prior(self) -> Prior | None:
        """Prior of its values, if any."""
        ...


def words(parameter: HasPrior) -> str:
    """Return the prior of a parameter in words, for tables; empty if there is none."""
    d, prior = parameter.distribution, parameter.prior
    if prior is None:
        return ""
    if isinstance(prior, Weights):
        return "drawn " + ", ".join(f"{share:.0%}" for share in prior.shares)
    return f"around {from_unit(d, prior.at):.3g}"


def _weights(d: CategoricalDistribution, weights: Any) -> tuple[Prior | None, str]:
    if not isinstance(weights, Sequence) or isinstance(weights, str) or len(weights) != len(d.choices):
        return None, f"weights must list one number for each of the {len(d.choices)} values, got {weights!r}"
    bad = [w for w in weights if not _number(w) or w <= 0]
    if bad:
        return None, f"a weight is a number above 0, got {bad[0]!r}; leave out a value that is never to be drawn"
    return Weights(tuple(float(w) / math.fsum(weights) for w in weights)), ""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
