"""Budgets: the limits of a search, and what it has spent over all resumes.

Grammar: ``90s 30m 2h 1h30m``, ``40trials``, ``600epochs``, ``3gpu-hours``. Several limits are joined by commas; the
first one reached ends the search. A gpu-hour is one hour of one device, see :class:`Spent`. Time is measured with the
monotonic clock, so that changes of the system clock have no effect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autodistill.core.errors import UsageError

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_COUNT = re.compile(r"(\d+(?:\.\d+)?)(trials?|epochs?|gpu-?h(?:ours?|rs?)?)")
_EXAMPLE = "write e.g. 90s, 30m, 2h, 1h30m, 40trials, 600epochs or 3gpu-hours, several joined by commas"


@dataclass(frozen=True)
class Spent:
    """What a study has spent so far.

    Attributes:
        seconds: Wall-clock seconds of the driver, set-up included.
        trials: Trials that ended or were paused; each is counted once, the first time. Infeasible and duplicate
            proposals cost nothing and do not count.
        epochs: Epochs trained.
        device_seconds: Seconds of devices used by trials, summed over workers. A second of a trial on two GPUs counts
            twice; a second of each of four workers that share a GPU counts a quarter. Without GPUs, a worker (or each
            of its groups of threads) counts as a device.
    """

    seconds: float = 0.0
    trials: int = 0
    epochs: float = 0.0
    device_seconds: float = 0.0

    def to_json(self) -> dict[str, float]:
        """Return a plain dict for :meth:`from_json`."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Spent:
        """Return the value from the dict of :meth:`to_json`."""
        return Spent(float(data["seconds"]), int(data["trials"]), float(data["epochs"]), float(data["device_seconds"]))


@dataclass(frozen=True)
class Budget:
    """Limits of a search; ``None`` means no limit of that kind.

    Attributes:
        seconds: Wall-clock seconds.
        trials: Number of trials.
        epochs: Number of epochs.
        device_seconds: Seconds of devices, see :class:`Spent`.
    """

    seconds: float | None = None
    trials: int | None = None
    epochs: float | None = None
    device_seconds: float | None = None

    @staticmethod
    def parse(text: str | Budget | None) -> Budget:
        """Parse a budget in the grammar of this module; ``None`` and the empty text mean no limit.

        Raises:
            UsageError: A part cannot be parsed, is zero, or repeats a kind of limit.
        """
        if isinstance(text, Budget):
            return text
        limits: dict[str, float] = {}
        for part in (part.strip().lower().replace(" ", "") for part in str(text or "").split(",")):
            if not part and not str(text or "").strip(" ,"):
                continue
            kind, amount = _parse_part(part, str(text))
            if amount <= 0:
                raise UsageError(f"budget {text!r}: {part!r} is zero; {_EXAMPLE}.")
            if kind in limits:
                raise UsageError(f"budget {text!r} limits {kind.replace('_', ' ')} twice; give one limit.")
            limits[kind] = amount
        if limits.get("trials", 1) % 1:
            raise UsageError(f"budget {text!r}: trials must be a whole number.")
        trials = limits.pop("trials", None)
        return Budget(trials=None if trials is None else int(trials), **limits)

    def exhausted(self, spent: Spent, *, kept_back: float = 0.0) -> str:
        """Return which limit is reached, in words; empty if none is.

        Args:
            spent: What is spent so far.
            kept_back: Seconds of the time budget that are reserved for something else.
        """
        return self.ended(spent, kept_back=kept_back) or self.full(spent.trials)

    def full(self, trials: int) -> str:
        """Return, in words, that the limit of ``trials`` is reached, else empty; paused trials may still continue."""
        limited = self.trials is not None and trials >= self.trials
        return f"budget of {self.trials} trials is spent" if limited else ""

    def ended(self, spent: Spent, *, kept_back: float = 0.0) -> str:
        """Return which limit of time, epochs or device time is reached, in words; nothing may continue after it."""
        if self.seconds is not None and spent.seconds >= self.seconds - kept_back:
            kept = f", {format_seconds(kept_back)} of it reserved" if kept_back else ""
            return f"time budget of {format_seconds(self.seconds)} is spent{kept}"
        if self.epochs is not None and spent.epochs >= self.epochs:
            return f"budget of {self.epochs:g} epochs is spent"
        if self.device_seconds is not None and spent.device_seconds >= self.device_seconds:
            return f"budget of {self.device_seconds / 3600:g} gpu-hours is spent"
        return ""

    def seconds_left(self, spent: Spent, *, kept_back: float = 0.0) -> float:
        """Return the seconds of the time budget that are left; infinite without one."""
        return math.inf if self.seconds is None else max(0.0, self.seconds - kept_back - spent.seconds)

    def share(self, spent: Spent, *, kept_back: float = 0.0) -> float:
        """Return the largest spent share of the limits of time, epochs and device time; 0 without such limits."""
        whole = math.inf if self.seconds is None else max(self.seconds - kept_back, 1e-9)
        limits = ((spent.seconds, whole), (spent.epochs, self.epochs), (spent.device_seconds, self.device_seconds))
        return max(done / limit for done, limit in limits if limit)

    def __str__(self) -> str:
        parts = []
        if self.seconds is not None:
            parts.append(format_seconds(self.seconds).replace(" ", ""))
        if self.trials is not None:
            parts.append(f"{self.trials}trials")
        if self.epochs is not None:
            parts.append(f"{self.epochs:.15g}epochs")
        if self.device_seconds is not None:
            parts.append(f"{self.device_seconds / 3600:.15g}gpu-hours")
        return ",".join(parts)


def _parse_part(part: str, text: str) -> tuple[str, float]:
    time = _TIME.fullmatch(part)
    if part and time is not None and any(time.groups()):
        days, hours, minutes, seconds = (float(group or 0) for group in time.groups())
        return "seconds", ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    count = _COUNT.fullmatch(part)
    if count is None:
        raise UsageError(f"budget {text!r}: cannot read {part!r}; {_EXAMPLE}.")
    amount, unit = float(count.group(1)), count.group(2)
    if unit.startswith("gpu"):
        return "device_seconds", amount * 3600
    return ("trials" if unit.startswith("trial") else "epochs"), amount


def format_seconds(seconds: float) -> str:
    """Format a duration: ``5400`` as ``1h 30m``, ``42`` as ``42s``; parts that are zero are left out."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g}s" if seconds < 10 and seconds != whole else f"{whole}s"
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (left, "s")]
    return " ".join(f"{count}{unit}" for count, unit in parts if count)
