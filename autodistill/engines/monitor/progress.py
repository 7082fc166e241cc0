"""Progress of a running search on stderr: a live panel on a terminal, else a plain line from time to time.

The commands and the Python interface use the same display. It is a callback for :class:`Snapshot` objects, like one a
user may pass; it has no influence on the search.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.errors import LiveError
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autodistill.core.budget import format_seconds
from autodistill.core.terminal import clean, err

if TYPE_CHECKING:
    from autodistill.engines.monitor.budget_warning import BudgetWarning
    from autodistill.engines.monitor.watch import Snapshot
    from autodistill.engines.monitor.worker_line import WorkerLine

PLAIN_INTERVAL = 10.0
"""Shortest time between plain lines, in seconds."""

_STATES = ("COMPLETE", "PRUNED", "PARTIAL", "FAIL")
"""States whose trials are counted. Running trials have a line per worker; waiting candidates are not shown."""


@contextlib.contextmanager
def shown(progress: bool | Callable[[Snapshot], None]) -> Iterator[Callable[[Snapshot], None] | None]:
    """Yield the callback for the argument ``progress`` of a search: true is a ``Progress``, false is ``None``."""
    if callable(progress):
        yield progress
    elif progress:
        with Progress(leave=True) as on_stderr:
            yield on_stderr
    else:
        yield None


class Progress:
    """Display of snapshots: a context manager whose instance is the callback of ``search``.

    Args:
        console: Console to print to; stderr by default. A console that is not a terminal gets plain lines.
        clock: Monotonic clock in seconds.
        leave: Whether the last state stays as a line when the panel is removed.

    Attributes:
        shortage: The last budget warning; ``None`` if there was none or a training has completed since.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        leave: bool = False,
    ) -> None:
        self._console = console or err()
        self._clock = clock
        self._stage = self._printed = ""
        self._last = -PLAIN_INTERVAL
        self._leave, self._latest = leave, ""
        self.shortage: BudgetWarning | None = None
        self._live: Live | None = None
        if self._console.is_terminal:
            # output of the user's code to a file or a pipe is data and must not be drawn into the panel
            terminal = sys.stdout.isatty()
            self._live = Live(console=self._console, refresh_per_second=4, transient=True, redirect_stdout=terminal)

    def __enter__(self) -> Progress:
        if self._live is not None:
            try:
                self._live.start()
            except LiveError:  # the user's program has a display of its own
                self._live = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            if self._leave and self._latest:
                self._print(self._latest, self._clock())

    def __call__(self, snapshot: Snapshot) -> None:
        """Show one snapshot: in the panel on a terminal, else as a line at a new stage or result, or after a while."""
        now = self._clock()
        self._check_shortage(snapshot)
        if self._live is not None:
            self._live.update(panel(snapshot))
            self._latest = plain_line(snapshot)
        elif snapshot.stage != self._stage or now - self._last >= PLAIN_INTERVAL or _is_result(snapshot):
            self._print(plain_line(snapshot), now)
        self._stage = snapshot.stage

    def _print(self, line: str, now: float) -> None:
        """Print a plain line, unless it is the same as the last one."""
        if line != self._printed:
            self._last, self._printed = now, line
            self._console.print(Text(clean(line)), soft_wrap=True)

    def _check_shortage(self, snapshot: Snapshot) -> None:
        """Print a budget warning once; on a terminal the panel has a row for it."""
        if snapshot.shortage is not None:
            if self.shortage is None and self._live is None and snapshot.stage == "search":
                words = f"warning: {snapshot.shortage.words()}; {snapshot.shortage.advice()}."
                self._console.print(Text(words), soft_wrap=True)
            self.shortage = snapshot.shortage
        elif snapshot.states.get("COMPLETE"):
            self.shortage = None


def _is_result(snapshot: Snapshot) -> bool:
    """Return whether the snapshot is the result of a set-up stage rather than a step within it."""
    return snapshot.stage not in ("search", "done") and snapshot.done in (None, 1.0)


def plain_line(snapshot: Snapshot) -> str:
    """Return the state of the search as one line without control characters."""
    if snapshot.stage not in ("search", "done"):
        share = "" if snapshot.done is None else f" {snapshot.done:.0%}"
        return f"{snapshot.stage}{share}: {snapshot.message}".rstrip(": ")
    parts = [_states(snapshot), _front(snapshot), _clock_words(snapshot)]
    parts += [f"#{line.number} {_worker_words(line)}" for line in snapshot.workers]
    return " · ".join(part for part in parts if part)


def panel(snapshot: Snapshot) -> RenderableType:
    """Return the live panel: stage, trials by state, front, time, one line per worker."""
    if snapshot.stage not in ("search", "done"):
        rows: list[RenderableType] = [Text(clean(f"{snapshot.stage}: {snapshot.message}".rstrip(": ")), style="bold")]
        if snapshot.done is not None:
            rows.append(ProgressBar(total=1.0, completed=snapshot.done, width=40))
        return Group(*rows)
    table = Table.grid(padding=(0, 2))
    table.add_row("trials", Text(_states(snapshot) or "none yet"))
    table.add_row("front", Text(_front(snapshot) or "empty"))
    table.add_row("time", Text(_clock_words(snapshot)))
    if snapshot.shortage is not None and snapshot.stage == "search":
        table.add_row("warning", Text(f"{snapshot.shortage.words()}; {snapshot.shortage.advice()}", style="yellow"))
    for line in snapshot.workers:
        table.add_row(f"#{line.number}", Text(clean(_worker_words(line)), overflow="ellipsis", no_wrap=True))
    return table


def _states(snapshot: Snapshot) -> str:
    known = [(state, snapshot.states.get(state, 0)) for state in _STATES]
    return ", ".join(f"{count} {state}{_reasons(snapshot.reasons.get(state, {}))}" for state, count in known if count)


def _reasons(counts: Mapping[str, int]) -> str:
    """Return the reasons of the trials in one state, with counts if there are several."""
    if len(counts) < 2:
        return "".join(f" ({reason})" for reason in counts)
    return f" ({', '.join(f'{count} {reason}' for reason, count in sorted(counts.items()))})"


def _front(snapshot: Snapshot) -> str:
    if not snapshot.front_size or snapshot.best_accuracy is None:
        return ""
    members = f"{snapshot.front_size} on the front"
    return f"{members}, best {snapshot.best_accuracy:.4g}, hypervolume {snapshot.hypervolume:.4f}"


def _clock_words(snapshot: Snapshot) -> str:
    used = f"{format_seconds(round(snapshot.seconds_used))} used"
    if snapshot.seconds_waited >= 1:
        used += f" (trials waited {format_seconds(round(snapshot.seconds_waited))} for latency measurements)"
    return used if snapshot.seconds_left is None else f"{used}, {format_seconds(round(snapshot.seconds_left))} left"


def _worker_words(line: WorkerLine) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in line.metrics.items())
    epochs = f"epoch {round(line.epoch, 1):g}/{line.epochs:g}" if line.epochs else ""
    return ", ".join(part for part in (line.what, epochs, metrics, line.waiting) if part)
