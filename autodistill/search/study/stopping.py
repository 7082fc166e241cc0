"""Conditions that end a search early: failures caused by the set-up, and long runs of trials without a result."""

from __future__ import annotations

import re
from collections import Counter, deque

from autodistill.core.errors import UserCodeError
from autodistill.core.records import State
from autodistill.search.space import random_draws

MAX_REJECTED = 50  # consecutive refused proposals, or evaluations without a result, that end a search
MAX_BROKEN = 500  # the same for evaluations that violate a constraint: a tight constraint is not an error
MAX_EQUAL_FAILURES = 5  # consecutive equal failures that end a search: the set-up is at fault, not the candidates
OWN_NUMBERS = ("NAN", "OOM")
"""Failures that a student or recipe can cause: two of them are equal only if the numbers in their messages are."""

_ELSEWHERE = ("DUPLICATE", "INFEASIBLE", "CRASH", "WORKER_LOST", "HUNG")
"""Reason codes not counted as failures here: refusals, and lost workers, which engines count by student."""

IMAGES = "IMAGES"
"""Reason code of a worker that read other images than the driver: no later trial could be compared."""

_NUMBER = re.compile(r"[-+]?\d+(?:[.,_]\d+)*(?:[eE][-+]?\d+)?")

SET_UP = "The cause is the set-up, not the candidates; fix it and run the same command again."
ALIKE = (
    "The cause is most likely the set-up, not the candidates; fix it and run the same command again. "
    "If a student of your own evaluation cannot be trained, raise InfeasibleError, and the search goes on."
)


class Refusals:
    """Consecutive refused proposals since the last one that could be evaluated."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()

    def add(self, reason: str) -> bool:
        """Count a refusal and return whether the sampler has used its tries, so that a random draw is due."""
        self._reasons[reason] += 1
        tries = sum(self._reasons[one] for one in random_draws.REFUSED)
        return reason in random_draws.REFUSED and tries % random_draws.TRIES == 0

    @property
    def why(self) -> str:
        """Why the space counts as exhausted; empty while the refusals are few."""
        count = self._reasons.total()
        if count < MAX_REJECTED:
            return ""
        words = ", ".join(f"{n} {reason}" for reason, n in self._reasons.most_common())
        return f"space exhausted: the last {count} proposals were refused ({words})"


class Streak:
    """Consecutive ends of trials since the search started or resumed.

    Earlier ends are ignored: they do not describe the present set-up, and a search stopped by its failures could
    otherwise never resume.
    """

    def __init__(self) -> None:
        self._costly: deque[tuple[State, str, str]] = deque(maxlen=MAX_EQUAL_FAILURES)
        self._free, self._reason, self._description = 0, "", ""
        self._shown = False

    def ended(self, state: State, reason: str, message: str) -> None:
        """Record the end of a trial; a PARTIAL trial has not ended."""
        if state is not State.PARTIAL and reason not in _ELSEWHERE:
            self._costly.append((state, reason, message))

    def evaluated(self, reason: str, message: str, *, nothing: bool) -> None:
        """Record the end of an evaluation; ``nothing``: it gave no result, or cost nothing."""
        self._free = self._free + 1 if nothing else 0
        self._shown = self._shown or not nothing
        self._reason, self._description = reason, f"{reason}: {message}"

    @property
    def fruitless(self) -> str:
        """Why nothing new is evaluated any more, as some budgets would never run out; empty if it is."""
        if self._free < (MAX_BROKEN if self._reason == "INFEASIBLE" else MAX_REJECTED):
            return ""
        return f"the last {self._free} trials gave no result ({self._description})"

    def check(self) -> None:
        """Raise if the last trials all failed in the same way, or a worker has other images.

        Raises:
            UserCodeError: a worker has read other images than the driver, or the last :data:`MAX_EQUAL_FAILURES` trials
                that cost work failed with the same reason code and message. Until some trial has given a result,
                numbers in the messages are ignored.
        """
        if self._costly and self._costly[-1][1] == IMAGES:
            raise UserCodeError(f"{self._costly[-1][2].rstrip('.')}. {SET_UP}")
        equal = len(set(self._costly)) == 1
        alike = len({(state, reason, _alike(reason, message)) for state, reason, message in self._costly}) == 1
        if len(self._costly) < MAX_EQUAL_FAILURES or not (equal or (alike and not self._shown)):
            return
        state, reason, message = self._costly[-1]
        if state is State.FAIL:
            raise UserCodeError(
                f"the last {MAX_EQUAL_FAILURES} trials all failed in the same way ({reason}): {message.rstrip('.')}. "
                f"{SET_UP if equal else ALIKE}"
            )


def _alike(reason: str, message: str) -> str:
    """Return the message with its numbers masked: they may differ from trial to trial for the same fault."""
    return message if reason in OWN_NUMBERS else _NUMBER.sub("#", message)
