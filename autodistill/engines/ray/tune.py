"""Interfaces of Ray Tune in the driver: searcher, scheduler, callback and stopper that use a :class:`StudyBridge`.

The study makes all decisions. Tune places workers, reuses them, and reports when one died. Importing this module loads
Ray.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from autodistill.core.records import Decision, EvaluateFactory
from autodistill.engines.ray.bridge import StudyBridge
from autodistill.engines.ray.worker import KEY, PROGRESS_SECONDS, WORN_OUT

_LOST = re.compile(r"(?:died|dead) because|unavailable|exit", re.IGNORECASE)
_NODE_LOST = re.compile(r"\bnode (?:has )?(?:died|was (?:\w+ )?terminated|is dead|failed)|unavailable", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out of memory|low on memory|OutOfMemory|memory usage", re.IGNORECASE)
_ADVICE = "Some common causes"  # Ray's text from here on is the same for every dead worker


def words_of_loss(text: str) -> str:
    """Return the line of Ray's report that states how a worker was lost, without the general advice after it."""
    lines = [line.partition(_ADVICE)[0].strip() for line in text.splitlines()]
    return next((line for line in lines if _LOST.search(line)), "a worker died")


def is_node_loss(text: str) -> bool:
    """Return whether, by Ray's report, a worker was lost because its node was lost.

    If only the connection breaks, Ray calls the worker unavailable, which counts as a lost node; if a process dies on a
    running node, Ray reports that. A worker whose device was broken by an earlier trial counts as a lost node too.
    """
    return WORN_OUT in text or bool(_NODE_LOST.search(words_of_loss(text)))


class WorkerMailbox:
    """Ray actor on the driver's node: workers read the factory and the stop flag from it, and store their progress."""

    def __init__(self, parcel: bytes) -> None:
        self._parcel = parcel
        self._stop = False
        self._progress: dict[int, tuple[float, float, dict[str, float]]] = {}
        self._waits: dict[int, tuple[str, float]] = {}

    def parcel(self) -> bytes:
        """Return the pickled factory with the driver's import path."""
        return self._parcel

    def stop(self) -> None:
        """Set the flag that makes all workers save and stop."""
        self._stop = True

    def stopping(self) -> bool:
        """Return whether workers should save and stop."""
        return self._stop

    def put(self, number: int, epoch: float, epochs: float, metrics: dict[str, float]) -> None:
        """Store the latest progress of a candidate."""
        self._progress[number] = (epoch, epochs, metrics)

    def take(self) -> dict[int, tuple[float, float, dict[str, float]]]:
        """Return the progress stored since the last call, by candidate number."""
        out, self._progress = self._progress, {}
        return out

    def wait(self, number: int, what: str, seconds: float) -> None:
        """Store what a candidate waits for, and add the seconds it waited."""
        self._waits[number] = (what, self._waits.get(number, ("", 0.0))[1] + seconds)

    def take_waits(self) -> dict[int, tuple[str, float]]:
        """Return what candidates wait for and their seconds since the last call, by candidate number."""
        out, self._waits = self._waits, {}
        return out


def make_mailbox(factory: EvaluateFactory) -> tuple[Any, str]:
    """Start the mailbox on the driver's node, so that it survives the loss of any other node.

    Returns:
        Its handle, and its name for the workers.

    Raises:
        Exception: The factory cannot be pickled.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    paths = [path for path in sys.path if path]
    parcel = cloudpickle.dumps((paths, cloudpickle.dumps(factory)))
    name = f"autodistill-{os.getpid()}-{time.time_ns():x}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(WorkerMailbox).options(name=name, num_cpus=0, scheduling_strategy=here).remote(parcel)
    return mailbox, name


class BridgeSearcher(Searcher):  # type: ignore[misc]
    """Tune searcher that gets its candidates from the study; it has no state of its own."""

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next candidate; ``None`` while every slot is taken, ``FINISHED`` when the search is over."""
        job = self._bridge.hand_out(trial_id)
        if job is None:
            return str(Searcher.FINISHED) if self._bridge.finished else None
        return {"candidate": job.candidate, "slot": job.slot}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler, which Tune calls as well, handles the end of a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is already stored."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: there is no state to restore."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing: the study is already stored."""


class BridgeScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune scheduler that passes reports to the study and returns its decisions."""

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Return no preference, so that Tune's queue gives a free worker to a trial without one.

        FIFO would give the free worker to the first trial in the queue, whose own worker may be starting and is then
        discarded: with trials shorter than the start of a worker, only one worker would ever be used.
        """
        del tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass the report of a rung to the study, and return its decision."""
        del tune_controller
        decision = self._bridge.report(trial.trial_id, result[KEY][1])
        return str(TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Close a trial that ended by itself, or was stopped after its last report."""
        del tune_controller
        self._bridge.end(trial.trial_id, result[KEY])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Handle the death of a worker; errors of the evaluation arrive as results instead."""
        del tune_controller
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
        why = words_of_loss(text)
        self._bridge.lose(trial.trial_id, why, node=is_node_loss(text), by_student=not _NO_MEMORY.search(why))


class BridgeCallback(tune.Callback):  # type: ignore[misc]
    """Tune callback that, in every iteration of Tune's loop, checks for a stop request and fetches progress.

    It never blocks.
    """

    def __init__(self, bridge: StudyBridge, mailbox: Any) -> None:
        self._bridge, self._mailbox = bridge, mailbox
        self._pending: Any = None
        self._next = 0.0

    def on_trial_start(self, **info: Any) -> None:
        """Record that a worker has begun the trial."""
        self._bridge.started(info["trial"].trial_id)

    def on_step_end(self, **info: Any) -> None:
        """Pass on progress, and check for a stop request."""
        del info
        self._bridge.tick()
        self._bridge.refill()
        if self._pending is None:
            if time.monotonic() >= self._next:
                self._pending = [self._mailbox.take.remote(), self._mailbox.take_waits.remote()]
        elif len(ray.wait(self._pending, num_returns=2, timeout=0)[0]) == 2:
            progress, waits = ray.get(self._pending)
            for number, line in progress.items():
                self._bridge.progress(number, *line)
            for number, wait in waits.items():
                self._bridge.waits(number, *wait)
            self._pending, self._next = None, time.monotonic() + PROGRESS_SECONDS


class BridgeStopper(tune.Stopper):  # type: ignore[misc]
    """Tune stopper that ends Tune if trials do not stop within the grace period."""

    def __init__(self, bridge: StudyBridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return false: the study decides when a single trial stops."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Return whether the grace period is over."""
        return self._bridge.overdue

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its stopper into a snapshot that is never read, and a study cannot be pickled
