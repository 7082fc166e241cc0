"""When a search should not go on: failures that are the set-up's fault, and evaluations that all end for nothing."""

from __future__ import annotations

import re
from collections import Counter, deque

from autodistill.core.errors import UserCodeError
from autodistill.core.records import State
from autodistill.search.space import random_draws as within

MAX_REJECTED = 50  # proposals refused, or evaluations without a result, in a row before a search ends
MAX_BROKEN = 500  # the same where the evaluations end by a bound that they break: a tight one is no fault
MAX_EQUAL_FAILURES = 5  # equal failures in a row before the search stops: it is the set-up, not the candidates
OWN_NUMBERS = ("NAN", "OOM")
"""Reasons that a student or a recipe may well have: such failures are equal only where their numbers are, too."""

_ELSEWHERE = ("DUPLICATE", "INFEASIBLE", "CRASH", "WORKER_LOST", "HUNG")
"""Reasons that no streak counts: refusals, and lost workers, of which engines count the different students."""

_NUMBER = re.compile(r"[-+]?\d+(?:[.,_]\d+)*(?:[eE][-+]?\d+)?")

SET_UP = "This is the set-up, not the candidates; mend it and run the same command again."
ALIKE = (
    "This is most likely the set-up, not the candidates; mend it and run the same command again. "
    "An evaluation of your own raises InfeasibleError for a student that cannot be trained, and the search goes on."
)


class Refusals:
    """Proposals that were refused in a row, since something was proposed that could be evaluated."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()

    def add(self, reason: str) -> bool:
        """One more, for this reason; whether it is once more than the sampler may before one is drawn."""
        self._reasons[reason] += 1
        tries = sum(self._reasons[one] for one in within.REFUSED)
        return reason in within.REFUSED and tries % within.TRIES == 0

    @property
    def why(self) -> str:
        """What they say of the space, once they are too many; empty before."""
        count = self._reasons.total()
        if count < MAX_REJECTED:
            return ""
        words = ", ".join(f"{n} {reason}" for reason, n in self._reasons.most_common())
        return f"space exhausted: the last {count} proposals were refused ({words})"


class Streak:
    """What has ended in a row since a search began or went on.

    What ended before is left out: it says nothing about the set-up as it is now, and a search that was stopped by its
    failures could never go on.
    """

    def __init__(self) -> None:
        self._costly: deque[tuple[State, str, str]] = deque(maxlen=MAX_EQUAL_FAILURES)
        self._free, self._reason, self._said = 0, "", ""
        self._shown = False

    def ended(self, state: State, reason: str, message: str) -> None:
        """A trial ended; one that is PARTIAL has not."""
        if state is not State.PARTIAL and reason not in _ELSEWHERE:
            self._costly.append((state, reason, message))

    def evaluated(self, reason: str, message: str, *, nothing: bool) -> None:
        """The evaluation of a trial ended; ``nothing``: without a result, or at no cost."""
        self._free = self._free + 1 if nothing else 0
        self._shown = self._shown or not nothing
        self._reason, self._said = reason, f"{reason}: {message}"

    @property
    def barren(self) -> str:
        """Why nothing new is evaluated any more, since some budgets would never end; empty while something is."""
        if self._free < (MAX_BROKEN if self._reason == "INFEASIBLE" else MAX_REJECTED):
            return ""
        return f"the last {self._free} trials showed nothing ({self._said})"

    def check(self) -> None:
        """Stop a search whose trials all fail alike.

        Raises:
            UserCodeError: the last trials that cost something all failed with the same reason and the same message;
                until some trial has shown something, whatever the numbers in it.
        """
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
    """The message without its numbers, which differ from trial to trial where the fault is the same."""
    return message if reason in OWN_NUMBERS else _NUMBER.sub("#", message)
