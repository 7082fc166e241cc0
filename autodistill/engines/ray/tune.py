"""The shapes that Ray Tune calls in the driver: searcher, scheduler, callback and stopper over a desk.

Everything that has to be decided is decided by the study; Tune places workers, reuses them and says when one died.
Importing this module loads Ray.
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
_ADVICE = "Some common causes"  # from here on Ray's text is the same for every dead worker


def words_of_loss(text: str) -> str:
    """The line of Ray's report that says how a worker was lost, without the general advice after it."""
    lines = [line.partition(_ADVICE)[0].strip() for line in text.splitlines()]
    return next((line for line in lines if _LOST.search(line)), "a worker died")


def is_node_loss(text: str) -> bool:
    """Whether Ray's words about a lost worker say that it went with its node.

    Ray often sees only the connection break, and calls the worker unavailable; of a process that died on a node that
    lives, it says so. A worker whose device was broken by an earlier trial counts as one, too.
    """
    return WORN_OUT in text or bool(_NODE_LOST.search(words_of_loss(text)))


class WorkerMailbox:
    """A small actor beside the driver: workers fetch the factory and the wish to stop, and leave their progress."""

    def __init__(self, parcel: bytes) -> None:
        self._parcel = parcel
        self._stop = False
        self._progress: dict[int, tuple[float, float, dict[str, float]]] = {}
        self._waits: dict[int, tuple[str, float]] = {}

    def parcel(self) -> bytes:
        """The pickled factory with the driver's import path."""
        return self._parcel

    def stop(self) -> None:
        """Ask all workers to save and stop."""
        self._stop = True

    def stopping(self) -> bool:
        """Whether workers are asked to save and stop."""
        return self._stop

    def put(self, number: int, epoch: float, epochs: float, metrics: dict[str, float]) -> None:
        """Leave the latest progress of a candidate."""
        self._progress[number] = (epoch, epochs, metrics)

    def take(self) -> dict[int, tuple[float, float, dict[str, float]]]:
        """What came in since the last call."""
        out, self._progress = self._progress, {}
        return out

    def wait(self, number: int, what: str, seconds: float) -> None:
        """Leave for what a candidate waits."""
        self._waits[number] = (what, self._waits.get(number, ("", 0.0))[1] + seconds)

    def take_waits(self) -> dict[int, tuple[str, float]]:
        """For what candidates wait, with the seconds since the last call."""
        out, self._waits = self._waits, {}
        return out


def make_mailbox(factory: EvaluateFactory) -> tuple[Any, str]:
    """Start the board on the driver's own node (it must outlive the others).

    Returns:
        Its handle, and its name for the workers.

    Raises:
        Exception: whatever pickling the factory raises.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    paths = [path for path in sys.path if path]
    parcel = cloudpickle.dumps((paths, cloudpickle.dumps(factory)))
    name = f"autodistill-{os.getpid()}-{time.time_ns():x}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(WorkerMailbox).options(name=name, num_cpus=0, scheduling_strategy=here).remote(parcel)
    return mailbox, name


class BridgeSearcher(Searcher):  # type: ignore[misc]
    """``suggest`` is the study's ``ask``. It has no state of its own to save."""

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next candidate, ``None`` while every slot is taken, ``FINISHED`` when the search is over."""
        job = self._bridge.hand_out(trial_id)
        if job is None:
            return str(Searcher.FINISHED) if self._bridge.finished else None
        return {"candidate": job.candidate, "slot": job.slot}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The scheduler files ends; Tune tells both."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is stored already."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to save: the study is stored already."""


class BridgeScheduler(FIFOScheduler):  # type: ignore[misc]
    """Reports go to the study, and its decision back to Tune."""

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """No preference: Tune's own queue gives a worker that is free to a trial that has none.

        FIFO's choice gives it to the first in line, whose own worker may be starting and is then thrown away: with
        trials shorter than the start of a worker, only one would ever work.
        """
        del tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A rung was reached."""
        del tune_controller
        decision = self._bridge.report(trial.trial_id, result[KEY][1])
        return str(TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial ended, or was stopped by the answer to its last report."""
        del tune_controller
        self._bridge.end(trial.trial_id, result[KEY])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A worker died; errors of the evaluation never come this way."""
        del tune_controller
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
        why = words_of_loss(text)
        self._bridge.lose(trial.trial_id, why, node=is_node_loss(text), by_student=not _NO_MEMORY.search(why))


class BridgeCallback(tune.Callback):  # type: ignore[misc]
    """Looks at the clock and at the board's progress in every turn of Tune's loop, without ever waiting."""

    def __init__(self, bridge: StudyBridge, mailbox: Any) -> None:
        self._bridge, self._mailbox = bridge, mailbox
        self._asked: Any = None
        self._next = 0.0

    def on_trial_start(self, **info: Any) -> None:
        """A worker took the trial up."""
        self._bridge.started(info["trial"].trial_id)

    def on_step_end(self, **info: Any) -> None:
        """Pass on progress, notice the wish to stop."""
        del info
        self._bridge.tick()
        self._bridge.refill()
        if self._asked is None:
            if time.monotonic() >= self._next:
                self._asked = [self._mailbox.take.remote(), self._mailbox.take_waits.remote()]
        elif len(ray.wait(self._asked, num_returns=2, timeout=0)[0]) == 2:
            progress, waits = ray.get(self._asked)
            for number, line in progress.items():
                self._bridge.progress(number, *line)
            for number, wait in waits.items():
                self._bridge.waits(number, *wait)
            self._asked, self._next = None, time.monotonic() + PROGRESS_SECONDS


class BridgeStopper(tune.Stopper):  # type: ignore[misc]
    """Ends Tune when trials that were asked to stop do not."""

    def __init__(self, bridge: StudyBridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Single trials are the study's to stop."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether the grace is over."""
        return self._bridge.overdue

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its stopper into a snapshot that nobody reads; a study cannot be pickled
