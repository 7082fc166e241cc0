"""What trials wait for the teacher: views of the images that no training has asked about yet.

The answers to a view are kept, so that one trial pays for it and all later ones find it. Trials that share their
augmentation share views, the first epoch the first one and so on: what the deepest of them has trained is paid for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from autodistill.core.records import Params, TrialRecord, stable_key

_VIEWS = ("augment", "views")
"""Beginnings of the names of training settings that say which views a trial sees."""


def says_views(name: str) -> bool:
    """Whether a parameter of this name says which views the teacher is asked about, or which teacher is."""
    key = name.rsplit(".", 1)[-1]
    return key.startswith(_VIEWS) or key == "teacher"


def views_key(distillation: Params, train: Params) -> str:
    """Equal for trials that ask the same teacher about the same views."""
    told = {name: value for name, value in train.items() if says_views(name)}
    return stable_key([told, distillation.get("teacher")])


class ColdViews:
    """Seconds of teacher that an epoch takes whose views nobody has asked about."""

    def __init__(self) -> None:
        self._deepest: dict[str, float] = {}
        self._paid: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._told: dict[int, tuple[float, float]] = {}
        self._keys: dict[int, str] = {}

    def learn(self, number: int, key: str, epochs: float, seconds: float) -> None:
        """Trial ``number`` with the views ``key`` has asked for ``seconds`` in all, in its first ``epochs`` epochs."""
        before, paid = self._told.get(number, (0.0, 0.0))
        new = epochs - max(before, self._deepest.get(key, 0.0))
        if new > 0:
            for one in (key, ""):
                self._paid[one][0] += max(0.0, seconds - paid)
                self._paid[one][1] += new
            self._deepest[key] = epochs
        self._told[number], self._keys[number] = (epochs, seconds), key

    def ahead(self, key: str, epochs: float, level: float) -> float:
        """Seconds of teacher that a trial at ``epochs`` has to pay up to ``level``, by what others paid."""
        new = level - max(epochs, self._deepest.get(key, 0.0))
        seconds, over = self._paid.get(key) or self._paid.get("") or (0.0, 0.0)
        return max(0.0, new) * seconds / over if over else 0.0

    def ahead_of(self, number: int, epochs: float, level: float) -> float:
        """The same of a trial that has reported; 0 for one that asks no teacher."""
        return self.ahead(self._keys[number], epochs, level) if number in self._keys else 0.0


def teacher_seconds(rungs: Mapping[int, Mapping[str, float]]) -> float | None:
    """Seconds that a trial's reports say it has asked the teacher; ``None`` where it asks none."""
    return max((v["teacher_seconds"] for v in rungs.values() if "teacher_seconds" in v), default=None)


def overhead(record: TrialRecord) -> float:
    """Seconds of a trial that were no training: before its first epoch, and of the teacher."""
    before = record.rungs.get(0, {}).get("seconds", 0.0)
    return before + (teacher_seconds(record.rungs) or 0.0)
