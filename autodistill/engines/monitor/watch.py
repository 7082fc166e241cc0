"""Progress of a running search as frozen snapshots, and the request to stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING

from autodistill.core.records import State
from autodistill.engines.monitor.budget_warning import BudgetWarning, BudgetWatch
from autodistill.engines.monitor.worker_line import WorkerLine

if TYPE_CHECKING:
    from autodistill.search.study.study import Study


@dataclass(frozen=True)
class Snapshot:
    """The state of a search at one moment.

    Attributes:
        stage: ``search``, ``done``, or a stage of the set-up such as ``data``, ``teacher``, ``survey``, ``slots``.
        message: One line about the stage.
        done: Share of the stage that is done, in [0, 1]; ``None`` if unknown.
        states: Number of trials by state.
        reasons: For each state, number of trials by reason code.
        best_accuracy: Best value of the first objective on the front so far.
        hypervolume: Share of the reference box that the front dominates, in [0, 1].
        front_size: Number of students on the front.
        seconds_used: Seconds of the time budget that are spent, over all resumes.
        seconds_left: Seconds of the time budget that are left; ``None`` without one.
        workers: One line per busy worker.
        shortage: Warning that no known full training fits into the time left while no trial is complete, if so.
        seconds_waited: Seconds that trials waited for other processes, summed over the workers of this search.
    """

    stage: str
    message: str = ""
    done: float | None = None
    states: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    best_accuracy: float | None = None
    hypervolume: float = 0.0
    front_size: int = 0
    seconds_used: float = 0.0
    seconds_left: float | None = None
    workers: tuple[WorkerLine, ...] = ()
    shortage: BudgetWarning | None = None
    seconds_waited: float = 0.0


class Watch:
    """Collector of progress from engines: it sends snapshots to a callback, and holds the request to stop.

    Args:
        callback: Called with a :class:`Snapshot` after a change, at most every ``interval`` seconds. The end of a trial
            is sent at once, unless snapshots would take more than a twentieth of the driver's time.
        study: The study; ``None`` if only stages of a set-up are reported.
        interval: Shortest time between two snapshots, in seconds.

    Attributes:
        under_way: Set by the engine: returns the seconds of work, summed over running trials, that no report contains.
        signal: Number of the signal that stopped the search; ``None`` if there was none.
    """

    def __init__(
        self,
        callback: Callable[[Snapshot], None] | None = None,
        study: Study | None = None,
        *,
        interval: float = 0.5,
    ) -> None:
        self._callback, self._study = callback, study
        self._interval = interval
        self._last = self._cost = 0.0
        self._lines: dict[int, WorkerLine] = {}
        self._budget_watch, self._waited = BudgetWatch(), 0.0
        self._deadline: Callable[[], bool] = lambda: False
        self.under_way: Callable[[], float] = lambda: 0.0
        self._stop = threading.Event()
        self.signal: int | None = None
        self.at_once = False  # a second signal came

    def stage(self, stage: str, message: str = "", done: float | None = None) -> None:
        """Report that a stage of the set-up began or advanced.

        Args:
            stage: Name of the stage.
            message: One line about it.
            done: Share that is done, in [0, 1]; ``None`` if unknown.
        """
        if self._callback is not None:
            self._callback(Snapshot(stage, message, done))

    def until(self, deadline: Callable[[], bool]) -> None:
        """Make ``should_stop`` true as soon as ``deadline()`` is true."""
        self._deadline = deadline

    def should_stop(self) -> bool:
        """Return whether running trials should save and stop."""
        return self._stop.is_set() or self._deadline()

    def stop(self) -> None:
        """Request that running trials save and stop."""
        self._stop.set()

    def progress(self, line: WorkerLine, worker: int = 0) -> None:
        """Record the training progress of a worker."""
        self._lines[worker] = line
        self._budget_watch.note(line, time.monotonic())
        if time.monotonic() - self._last >= self._interval:
            self.update()

    def waits(self, line: WorkerLine, seconds: float, worker: int = 0) -> None:
        """Record that a worker waits for another process, or continues.

        Args:
            line: State of the worker with the reason of the wait; earlier epochs and metrics of the trial are kept.
            seconds: Seconds waited since the last call.
            worker: Number of its slot.
        """
        self._waited += seconds
        known = self._lines.get(worker)
        if known is not None and known.number == line.number:
            line = replace(known, waiting=line.waiting)
        self._lines[worker] = line
        self._budget_watch.forget(line.number)  # the speed must not include the wait
        if time.monotonic() - self._last >= self._interval:
            self.update()

    def ended(self, worker: int = 0) -> None:
        """Record that the trial of a worker ended."""
        line = self._lines.pop(worker, None)
        if line is not None:
            self._budget_watch.forget(line.number)
        if time.monotonic() - self._last >= 20 * self._cost:
            self.update()

    def update(self, stage: str = "search") -> None:
        """Send a snapshot of the study to the callback."""
        self._last = started = time.monotonic()
        study = self._study
        if self._callback is None or study is None:
            return
        trials, front, spent = study.trials(), study.front(), study.spent
        first = study.objectives[0]
        values = [t.values[first.name] for t in front.trials]
        limit = study.budget.seconds
        lines = tuple(self._lines[key] for key in sorted(self._lines))
        states = Counter(t.state for t in trials)
        short = None
        if limit is not None and not states[State.COMPLETE]:
            prospect = study.prospect(self._budget_watch.rates())
            over = stage == "done"
            short = self._budget_watch.shortage(lines, spent.seconds, study.seconds_left, prospect, over=over)
        self._callback(
            Snapshot(
                stage,
                study.ended,
                states={state.value: n for state, n in states.items()},
                reasons={
                    state.value: Counter(t.reason for t in trials if t.state is state and t.reason) for state in states
                },
                best_accuracy=min(values, key=first.loss) if values else None,
                hypervolume=front.hypervolume_share,
                front_size=len({t.number for t in front.trials}),  # forms of one student counted once
                seconds_used=spent.seconds,
                seconds_left=None if limit is None else study.seconds_left,
                workers=lines,
                shortage=short,
                seconds_waited=self._waited,
            )
        )
        self._last = time.monotonic()
        self._cost = self._last - started

    def pass_on(self) -> None:
        """End the program as the signal received inside :meth:`signals` requires; do nothing if there was none.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SystemExit: After SIGTERM or SIGHUP, with exit code 128 plus the number of the signal.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP: the first stops running trials after saving, a second ends the search.

        SIGHUP stays ignored where it was, as under ``nohup``.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can set handlers; in other threads the caller uses stop()
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if before[signal.SIGHUP] is signal.SIG_IGN:
            del before[signal.SIGHUP]
        terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

        def handle(number: int, frame: FrameType | None) -> None:
            del frame
            if number == signal.SIGHUP:
                _leave_closed(terminals)
            if self._stop.is_set():
                self.signal, self.at_once = number, True
                raise KeyboardInterrupt
            self.signal = number
            self._stop.set()

        for number in before:
            signal.signal(number, handle)
        try:
            yield
        except KeyboardInterrupt:
            if self.at_once:
                self.pass_on()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _leave_closed(terminals: Sequence[int]) -> None:
    """Write to nowhere what was for a terminal that is closed now: what is said while saving would be an error."""
    for descriptor in terminals:
        if not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
