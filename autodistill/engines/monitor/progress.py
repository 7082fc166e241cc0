"""Progress of a running search on stderr: a live panel on a terminal, a plain line now and then elsewhere.

The commands and the Python API show the same. Nothing here drives or decides anything: it is one callback for
``Snapshot``s, like a user's own.
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
"""Seconds between plain lines, at least."""

_STATES = ("COMPLETE", "PRUNED", "PARTIAL", "FAIL")
"""Those that are counted. Of what runs each worker has a line, and candidates that wait concern nobody."""


@contextlib.contextmanager
def shown(progress: bool | Callable[[Snapshot], None]) -> Iterator[Callable[[Snapshot], None] | None]:
    """What a search tells its snapshots, from what its caller said: true is a ``Progress``, false is nobody."""
    if callable(progress):
        yield progress
    elif progress:
        with Progress(leave=True) as on_stderr:
            yield on_stderr
    else:
        yield None


class Progress:
    """Shows snapshots; a context manager whose instance is the callback of ``search``.

    Args:
        console: where to; stderr by default. A console that is no terminal gets plain lines.
        clock: seconds that only go forward.
        leave: where the panel goes away, its last state stays as a line.
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
        self._stage = self._said = ""
        self._last = -PLAIN_INTERVAL
        self._leave, self._latest = leave, ""
        self.shortage: BudgetWarning | None = None  # the last one; None once a training is complete
        self._live: Live | None = None
        if self._console.is_terminal:
            # what the user's code prints into a file or a pipe is data, and must not end up in the panel
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
                self._say(self._latest, self._clock())

    def __call__(self, snapshot: Snapshot) -> None:
        """Show one snapshot: at once on a terminal; plainly what is new in itself, and progress now and then."""
        now = self._clock()
        self._look(snapshot)
        if self._live is not None:
            self._live.update(panel(snapshot))
            self._latest = plain_line(snapshot)
        elif snapshot.stage != self._stage or now - self._last >= PLAIN_INTERVAL or _came_of(snapshot):
            self._say(plain_line(snapshot), now)
        self._stage = snapshot.stage

    def _say(self, line: str, now: float) -> None:
        if line != self._said:
            self._last, self._said = now, line
            self._console.print(Text(clean(line)), soft_wrap=True)

    def _look(self, snapshot: Snapshot) -> None:
        """Say plainly, and once, that the front may stay empty; on a terminal the panel has a row for it."""
        if snapshot.shortage is not None:
            if self.shortage is None and self._live is None and snapshot.stage == "search":
                words = f"warning: {snapshot.shortage.words()}; {snapshot.shortage.advice()}."
                self._console.print(Text(words), soft_wrap=True)
            self.shortage = snapshot.shortage
        elif snapshot.states.get("COMPLETE"):
            self.shortage = None


def _came_of(snapshot: Snapshot) -> bool:
    """Whether it is what came of a stage, and no step on the way."""
    return snapshot.stage not in ("search", "done") and snapshot.done in (None, 1.0)


def plain_line(snapshot: Snapshot) -> str:
    """One line: what is known of the search, without control characters."""
    if snapshot.stage not in ("search", "done"):
        share = "" if snapshot.done is None else f" {snapshot.done:.0%}"
        return f"{snapshot.stage}{share}: {snapshot.message}".rstrip(": ")
    parts = [_states(snapshot), _front(snapshot), _clock_words(snapshot)]
    parts += [f"#{line.number} {_worker_words(line)}" for line in snapshot.workers]
    return " · ".join(part for part in parts if part)


def panel(snapshot: Snapshot) -> RenderableType:
    """The live view: stage, trials by state, front, time, one line per worker."""
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
    """Why so many trials are in one state; a single reason is that of all."""
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
        used += f" ({format_seconds(round(snapshot.seconds_waited))} of work waited for latency measurements)"
    return used if snapshot.seconds_left is None else f"{used}, {format_seconds(round(snapshot.seconds_left))} left"


def _worker_words(line: WorkerLine) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in line.metrics.items())
    epochs = f"epoch {round(line.epoch, 1):g}/{line.epochs:g}" if line.epochs else ""
    return ", ".join(part for part in (line.what, epochs, metrics, line.waiting) if part)
