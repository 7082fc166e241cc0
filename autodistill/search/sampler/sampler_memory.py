"""What the front sampler remembers from one decision to the next, and keeps with the study.

A decision depends on the stored trials and on this memory alone, so that a search that was killed goes on exactly as
an uninterrupted one would have. A decision may be made again, because the process died before its result was stored:
it then starts from the memory before it, not from the memory that it left.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_CHARACTERS = 60_000
"""Longest text that is saved: a text column of MySQL holds 65,535 bytes."""

Moment = tuple[int, ...]
"""A place in the history of a study: counts of stored results that only grow."""


@dataclass(frozen=True)
class Shortlist:
    """New candidates that were promising a few trials ago.

    Attributes:
        trials: number of trials at that time.
        candidates: their parameter values.
    """

    trials: int
    candidates: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Remembered:
    """The memory after a decision.

    Attributes:
        at: moment of the decision.
        shortlist: candidates to compare paused trials with; ``None`` before the first.
        counted: settings of students beyond the surveyed pool whose costs were counted.
    """

    at: Moment = ()
    shortlist: Shortlist | None = None
    counted: tuple[tuple[Any, ...], ...] = ()


@dataclass
class SamplerMemory:
    """Memory of the sampler, with the memory before it.

    Attributes:
        now: memory of the present decision.
        thetas: hyperparameters of the model by objective; the same data and start always give the same ones.
        fitted_at: number of measurements that they were fitted to.
        save: called with a text whenever something has changed; does nothing by default.
    """

    now: Remembered = field(default_factory=Remembered)
    thetas: dict[int, Floats] = field(default_factory=dict)
    fitted_at: int = 0
    save: Callable[[str], None] = lambda _: None
    _before: Remembered = field(default_factory=Remembered)
    _saved: tuple[Remembered, int] = field(default_factory=lambda: (Remembered(), 0))

    def begin(self, at: Moment) -> Remembered:
        """Begin a decision and return the memory that it starts from."""
        if self.now.at != at:
            self._before = self.now
        self.now = replace(self._before, at=at)
        return self.now

    def keep(self, *, shortlist: Shortlist | None, counted: tuple[tuple[Any, ...], ...]) -> None:
        """End a decision and save what it has changed."""
        self.now = replace(self.now, shortlist=shortlist, counted=counted)
        then, fitted_at = self._saved
        if fitted_at != self.fitted_at or replace(then, at=()) != replace(self.now, at=()):
            self._saved = self.now, self.fitted_at
            text = self._text()
            self.save(text if len(text) <= MOST_CHARACTERS else "")

    def load(self, text: str) -> None:
        """Take over a saved memory; without it, or with a damaged one, decisions may differ from an unbroken run's."""
        if not text:
            return
        try:
            facts = json.loads(zlib.decompress(base64.b64decode(text)))
            self._before, self.now = (_remembered(one) for one in facts["remembered"])
            self.thetas = {int(j): np.array(theta) for j, theta in facts["thetas"].items()}
            self.fitted_at = int(facts["fitted_at"])
        except (ValueError, KeyError, TypeError, zlib.error):
            return
        self._saved = self.now, self.fitted_at

    def _text(self) -> str:
        facts = {
            "remembered": [asdict(one) for one in (self._before, self.now)],
            "thetas": {j: theta.tolist() for j, theta in self.thetas.items()},
            "fitted_at": self.fitted_at,
        }
        return base64.b64encode(zlib.compress(json.dumps(facts, separators=(",", ":")).encode(), 1)).decode()


def _remembered(facts: Mapping[str, Any]) -> Remembered:
    short = facts["shortlist"]
    return Remembered(
        tuple(facts["at"]),
        None if short is None else Shortlist(int(short["trials"]), tuple(short["candidates"])),
        tuple(tuple(settings) for settings in facts["counted"]),
    )
