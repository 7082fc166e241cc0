"""A worker under Ray Tune: the trainable, and what it does on its node.

Importing this module loads Ray and nothing else that is heavy: every worker of a cluster imports it, and 64 of them on
two cores are only as quick to start as this is.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray import cloudpickle, tune

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import Evaluate, EvaluateFactory, Report, WorkerContext
from autodistill.engines.driving.worker import is_device_broken, pack_error, reports_of

KEY = "autodistill"  # of the one object in a result; Tune flattens dictionaries, and leaves tuples alone
PROGRESS_SECONDS = 0.5
_POLL_SECONDS = 0.25
WORN_OUT = "the device of this worker is broken"
"""What a worker answers to its next candidate after an error that nothing survives but a new process."""


def make_trainable(board_name: str, context: WorkerContext) -> type:
    """The trainable of a search: one step is one report. It carries names only; the factory comes from the board.

    Args:
        board_name: name of the board's actor.
        context: what every worker is told; its number and connections are filled in there.
    """

    class Worker(tune.Trainable):  # type: ignore[misc]
        """Evaluates one candidate after the other; its evaluator is built once."""

        def setup(self, config: dict[str, Any]) -> None:
            limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
            os.environ.update({name: str(context.threads) for name in limits})  # before anything heavy is imported
            self._worker = RayWorker(ray.get_actor(board_name), replace(context, index=config["slot"]))
            self.reset_config(config)

        def step(self) -> dict[str, Any]:
            return self._worker.step()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._worker.begin(new_config["candidate"])
            return True

        def cleanup(self) -> None:
            self._worker.leave()

    return Worker


class RayWorker:
    """What a worker does on its node: builds the evaluator, turns each report into one result for Tune."""

    def __init__(self, mailbox: Any, context: WorkerContext) -> None:
        self._mailbox, self._context = mailbox, context
        self._evaluate: Evaluate | None = None
        self._candidate: Any = None
        self._reports: Generator[Report, None, None] | None = None
        self._stop = self._broken = False
        self._asked: Any = None
        self._next_poll = self._next_progress = 0.0

    def begin(self, candidate: Any) -> None:
        """Take up another candidate.

        Raises:
            RuntimeError: the device is broken: Tune then gives the candidate to a new worker.
        """
        self.end()
        if self._broken:
            raise RuntimeError(WORN_OUT)
        self._candidate = candidate

    def end(self) -> None:
        """Let go of the current one; its generator cleans up."""
        reports, self._reports = self._reports, None
        if reports is not None:
            reports.close()

    def leave(self) -> None:
        """The worker will be ended, and not by Python: let go of the evaluator, whose temporary files go with it."""
        self.end()
        self._candidate = self._evaluate = None
        gc.collect()  # what trains a network is full of circles

    def step(self) -> dict[str, Any]:
        """Work until the next report. Errors are results: to Tune, only a dead worker is a failure."""
        try:
            report = self._next_report()
        except BaseException as error:
            self._reports = None
            self._broken = is_device_broken(error)
            return {KEY: pack_error(error), "done": True}
        if report is None:
            return {KEY: ("done",), "done": True}
        plain = {"rung": report.rung, "epochs": report.epochs, "seconds": report.seconds}
        return {**report.values, **plain, KEY: ("report", report)}  # the plain ones are for loggers

    def _next_report(self) -> Report | None:
        if self._reports is None:
            if ray.get(self._mailbox.stopping.remote()):
                raise InterruptedTrialError("the search ended before the trial began")
            if self._evaluate is None:
                self._evaluate = self._build()
            self._reports = reports_of(self._evaluate, self._candidate)
        return next(self._reports, None)

    def _build(self) -> Evaluate:
        paths, factory = cloudpickle.loads(ray.get(self._mailbox.parcel.remote()))
        sys.path.extend(path for path in paths if path not in sys.path)  # the user's modules, before they are needed
        build: EvaluateFactory = cloudpickle.loads(factory)
        return build(replace(self._context, progress=self._progress, should_stop=self._should_stop, waits=self._waits))

    def _progress(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_SECONDS
            self._mailbox.put.remote(self._candidate.number, epoch, epochs, dict(metrics))

    def _waits(self, what: str, seconds: float) -> None:
        self._mailbox.wait.remote(self._candidate.number, what, seconds)

    def _should_stop(self) -> bool:
        """Asked between batches: never waits for the answer, which may be a quarter of a second old."""
        if self._stop:
            return True
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            try:
                self._stop = bool(ray.get(self._asked))
            except ray.exceptions.RayActorError:
                self._stop = True  # the driver is gone
            self._asked = None
        elif self._asked is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + _POLL_SECONDS
            self._asked = self._mailbox.stopping.remote()
        return self._stop
