"""What ends a trial: errors to states and reason codes, reported values checked, seeds derived."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from autodistill.errors import DivergedError, InfeasibleError, InterruptedTrialError
from autodistill.records import Objective, State


UNFINISHED = (State.PARTIAL, "INTERRUPTED", "stopped before its next rung; goes on when the study is resumed")
"""A trial that was let go of without a verdict."""


def is_valid(name: str, value: Any, objectives: Sequence[Objective]) -> bool:
    """Whether a reported value is a finite number, and a fraction where its objective is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    fraction = any(o.name == name and o.unit == "fraction" for o in objectives)
    return not fraction or -1e-9 <= value <= 1 + 1e-9


def verdict_of(error: BaseException, budget: str) -> tuple[State, str, str]:
    """State, reason code and message of a trial that an error ended."""
    if isinstance(error, InterruptedTrialError):
        if budget:
            return State.PARTIAL, "BUDGET", f"{budget}; goes on when the study is resumed"
        return State.PARTIAL, "INTERRUPTED", "interrupted; goes on when the study is resumed"
    if isinstance(error, InfeasibleError):
        return State.PRUNED, error.reason, str(error)
    if isinstance(error, DivergedError):
        return State.FAIL, "NAN", str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return State.FAIL, "OOM", str(error) or "out of memory"
    if hasattr(error, "reason"):  # it happened in a worker, which has named the error already
        return State.FAIL, str(error.reason), str(error)
    return State.FAIL, "ERROR", f"{type(error).__name__}: {error}"


def ended_early(rung: int, levels: Sequence[int]) -> str:
    """What is said of an evaluation that ended by itself after ``rung``."""
    wanted = ", ".join(f"Report({k}, …) after {epochs} epochs" for k, epochs in enumerate(levels, 1))
    return (
        f"the evaluation ended by itself after rung {rung}. It has to yield a report of every rung up to the top "
        f"({wanted}), unless the study stops it; raise InfeasibleError for a student that cannot be trained."
    )


def derive_seed(seed: int, number: int, purpose: str) -> int:
    """A 31-bit seed from the study's seed and a count, independent for each purpose."""
    digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
