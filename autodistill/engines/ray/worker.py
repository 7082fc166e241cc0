"""A worker under Ray Tune: the trainable, and the code it runs on its node.

Importing this module loads Ray and no other heavy library: every worker of a cluster imports it, and the import time
limits how fast, say, 64 workers on two cores start.
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

KEY = "autodistill"  # key of the message in a result; a tuple, since Tune flattens dictionaries
PROGRESS_SECONDS = 0.5
_POLL_SECONDS = 0.25
WORN_OUT = "the device of this worker is broken"
"""Error message of a worker for its next candidate after an error that only a new process can recover from."""


def make_trainable(mailbox_name: str, context: WorkerContext) -> type:
    """Return the trainable of a search, one step of which is one report.

    It contains only the name of the mailbox; its worker fetches the factory from there.

    Args:
        mailbox_name: Name of the mailbox actor.
        context: Context of all workers; each fills in its number and callbacks.
    """

    class Worker(tune.Trainable):  # type: ignore[misc]
        """Worker that evaluates one candidate after the other; its evaluator is built once."""

        def setup(self, config: dict[str, Any]) -> None:
            limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
            os.environ.update({name: str(context.threads) for name in limits})  # before anything heavy is imported
            self._worker = RayWorker(ray.get_actor(mailbox_name), replace(context, index=config["slot"]))
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
    """Work of one worker: it builds the evaluator, and converts each report into one result for Tune."""

    def __init__(self, mailbox: Any, context: WorkerContext) -> None:
        self._mailbox, self._context = mailbox, context
        self._evaluate: Evaluate | None = None
        self._candidate: Any = None
        self._reports: Generator[Report, None, None] | None = None
        self._stop = self._broken = False
        self._pending: Any = None
        self._next_poll = self._next_progress = 0.0

    def begin(self, candidate: Any) -> None:
        """Begin another candidate.

        Raises:
            RuntimeError: The device is broken; Tune then gives the candidate to a new worker.
        """
        self.end()
        if self._broken:
            raise RuntimeError(WORN_OUT)
        self._candidate = candidate

    def end(self) -> None:
        """End the current candidate, and close its generator."""
        reports, self._reports = self._reports, None
        if reports is not None:
            reports.close()

    def leave(self) -> None:
        """Release the evaluator, so that its temporary files are removed before Ray kills the worker."""
        self.end()
        self._candidate = self._evaluate = None
        gc.collect()  # trainers contain reference cycles

    def step(self) -> dict[str, Any]:
        """Work until the next report. Errors of the evaluation are results too; for Tune only a dead worker fails."""
        try:
            report = self._next_report()
        except BaseException as error:
            self._reports = None
            self._broken = is_device_broken(error)
            return {KEY: pack_error(error), "done": True}
        if report is None:
            return {KEY: ("done",), "done": True}
        plain = {"rung": report.rung, "epochs": report.epochs, "seconds": report.seconds}
        return {**report.values, **plain, KEY: ("report", report)}  # plain values are for Tune's loggers

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
        sys.path.extend(path for path in paths if path not in sys.path)  # so that the user's modules can be imported
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
        """Return whether to stop. It is called between batches and never blocks; the answer may be 0.25 s old."""
        if self._stop:
            return True
        if self._pending is not None and ray.wait([self._pending], timeout=0)[0]:
            try:
                self._stop = bool(ray.get(self._pending))
            except ray.exceptions.RayActorError:
                self._stop = True  # the driver has ended
            self._pending = None
        elif self._pending is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + _POLL_SECONDS
            self._pending = self._mailbox.stopping.remote()
        return self._stop
