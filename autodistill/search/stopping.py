"""When a search should not go on: failures that are the set-up's fault, and evaluations that all end for nothing."""

from __future__ import annotations

from collections import deque

from autodistill.errors import UserCodeError
from autodistill.records import State

MAX_REJECTED = 50  # proposals refused, or evaluations without a result, in a row before a search ends
MAX_EQUAL_FAILURES = 5  # equal failures in a row before the search stops: it is the set-up, not the candidates


class Streak:
    """What has ended in a row since a search began or went on.

    What ended before is left out: it says nothing about the set-up as it is now, and a search that was stopped by its
    failures could never go on.
    """

    def __init__(self) -> None:
        self._costly: deque[tuple[State, str, str]] = deque(maxlen=MAX_EQUAL_FAILURES)
        self._free, self._said = 0, ""

    def ended(self, state: State, reason: str, message: str) -> None:
        """A trial ended; one that is PARTIAL has not."""
        if state is not State.PARTIAL and reason not in ("DUPLICATE", "INFEASIBLE"):
            self._costly.append((state, reason, message))

    def evaluated(self, reason: str, message: str, *, nothing: bool) -> None:
        """The evaluation of a trial ended; ``nothing``: without a result, or at no cost."""
        self._free = self._free + 1 if nothing else 0
        self._said = f"{reason}: {message}"

    @property
    def barren(self) -> str:
        """Why nothing new is evaluated any more, since some budgets would never end; empty while something is."""
        if self._free < MAX_REJECTED:
            return ""
        return f"the last {self._free} trials showed nothing ({self._said})"

    def check(self) -> None:
        """Stop a search whose trials all fail alike.

        Raises:
            UserCodeError: the last trials that cost something all failed with the same reason and message.
        """
        last = set(self._costly)
        if len(self._costly) < MAX_EQUAL_FAILURES or len(last) > 1:
            return
        ((state, reason, message),) = last
        if state is State.FAIL:
            raise UserCodeError(
                f"the last {MAX_EQUAL_FAILURES} trials all failed in the same way ({reason}): {message} "
                "This is the set-up, not the candidates; mend it and run the same command again."
            )
