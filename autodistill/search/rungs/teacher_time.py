"""Time that trials spend on teacher outputs for augmented images that no trial has used yet.

Teacher outputs are cached: one trial pays for them, and all later trials reuse them. Trials with the same augmentation
settings see the same augmented images in each epoch, so the epochs of the longest of them are already paid for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from autodistill.core.records import Params, TrialRecord, stable_key

_VIEWS = ("augment", "views")
"""Prefixes of the training settings that determine the augmented images of a trial."""


def changes_views(name: str) -> bool:
    """Return whether a parameter determines the augmented images that the teacher sees, or the teacher itself."""
    key = name.rsplit(".", 1)[-1]
    return key.startswith(_VIEWS) or key == "teacher"


def views_key(distillation: Params, train: Params) -> str:
    """Return a key that is equal for trials with the same teacher and the same augmented images."""
    settings = {name: value for name, value in train.items() if changes_views(name)}
    return stable_key([settings, distillation.get("teacher")])


class UncachedViews:
    """Seconds per epoch of computing teacher outputs for augmented images that are not cached."""

    def __init__(self) -> None:
        self._deepest: dict[str, float] = {}
        self._paid: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._reported: dict[int, tuple[float, float]] = {}
        self._keys: dict[int, str] = {}

    def learn(self, number: int, key: str, epochs: float, seconds: float) -> None:
        """Record that trial ``number`` spent ``seconds`` in all on teacher outputs in its first ``epochs`` epochs."""
        before, paid = self._reported.get(number, (0.0, 0.0))
        new = epochs - max(before, self._deepest.get(key, 0.0))
        if new > 0:
            for one in (key, ""):
                self._paid[one][0] += max(0.0, seconds - paid)
                self._paid[one][1] += new
            self._deepest[key] = epochs
        self._reported[number], self._keys[number] = (epochs, seconds), key

    def ahead(self, key: str, epochs: float, level: float) -> float:
        """Return the seconds of teacher outputs that a trial at ``epochs`` still computes up to epoch ``level``."""
        new = level - max(epochs, self._deepest.get(key, 0.0))
        seconds, over = self._paid.get(key) or self._paid.get("") or (0.0, 0.0)
        return max(0.0, new) * seconds / over if over else 0.0

    def ahead_of(self, number: int, epochs: float, level: float) -> float:
        """Return :meth:`ahead` for a trial that has reported; 0 if it uses no cached teacher."""
        return self.ahead(self._keys[number], epochs, level) if number in self._keys else 0.0


def teacher_seconds(rungs: Mapping[int, Mapping[str, float]]) -> float | None:
    """Return the seconds of teacher outputs that a trial has reported; ``None`` if it uses no cached teacher."""
    return max((v["teacher_seconds"] for v in rungs.values() if "teacher_seconds" in v), default=None)


def overhead(record: TrialRecord) -> float:
    """Return the seconds of a trial that were not training: before its first epoch, and on teacher outputs."""
    before = record.rungs.get(0, {}).get("seconds", 0.0)
    return before + (teacher_seconds(record.rungs) or 0.0)
