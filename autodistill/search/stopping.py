"""When a search should not go on: failures that are the set-up's fault."""

from __future__ import annotations

from collections.abc import Sequence

from autodistill.errors import UserCodeError
from autodistill.records import State, TrialRecord

MAX_EQUAL_FAILURES = 5  # equal failures in a row before the search stops: it is the set-up, not the candidates


def check_failures(trials: Sequence[TrialRecord]) -> None:
    """Stop a search whose trials all fail alike.

    Raises:
        UserCodeError: the last trials that cost something all failed with the same reason and message.
    """
    ended = [t for t in trials if t.state in (State.COMPLETE, State.PRUNED, State.FAIL)]
    last = [t for t in ended if t.reason not in ("DUPLICATE", "INFEASIBLE")][-MAX_EQUAL_FAILURES:]
    if len(last) < MAX_EQUAL_FAILURES or any(t.state is not State.FAIL for t in last):
        return
    if len({(t.reason, t.message) for t in last}) == 1:
        raise UserCodeError(
            f"the last {len(last)} trials all failed in the same way ({last[0].reason}): {last[0].message} "
            "This is the set-up, not the candidates; mend it and run the same command again."
        )
