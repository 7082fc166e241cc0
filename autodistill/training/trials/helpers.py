"""Helper processes of a worker that trains each candidate on several devices (``distributed.py``).

Rank 0 is the worker itself: it measures, saves, reports. Each helper is a process with its own device that makes the
same training from the same seeds and checkpoint, and follows rank 0 step by step. Helpers live as long as the worker;
after any failure they are ended, and begun anew with the next trial.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import Candidate, Task, WorkerContext
from autodistill.training.runtime.distributed import Team

Body = Callable[[Connection, Task, WorkerContext, str, int, int], None]
"""What a helper does: given the pipe to rank 0, task, context, rendezvous file, rank and size."""

_LAST_WORDS = 3.0  # seconds that a helper has to say why it failed


class HelperProcesses:
    """The helpers of one worker.

    Args:
        task: what the study trains.
        context: the worker's; its ``devices`` are rank 0's and the helpers'.
        body: what a helper's process runs.
    """

    def __init__(self, task: Task, context: WorkerContext, body: Body) -> None:
        self._task, self._context, self._body = task, context, body
        self._helpers: list[tuple[SpawnProcess, Connection]] = []
        self._folder: Path | None = None
        self._team: Team | None = None

    @contextlib.contextmanager
    def training(self, candidate: Candidate) -> Iterator[Team]:
        """Have the helpers take up a candidate too.

        Yields:
            Rank 0's place in the team.

        Raises:
            MemoryError, RuntimeError: what a helper failed with.
        """
        team = self._team or self._start()
        self._tell("begin", candidate)
        try:
            yield team
        except (InterruptedTrialError, GeneratorExit):  # all are between two steps, and agree
            self._tell("end")
            raise
        except BaseException as error:
            said = self._last_words()
            self.close()
            if said is not None:
                kind, text = said
                raise (MemoryError if kind in ("OutOfMemoryError", "MemoryError") else RuntimeError)(
                    f"a helper of this training failed with {kind}: {text}"
                ) from error
            raise
        self._tell("end")

    def run(self, epochs: int) -> None:
        """Have the helpers train on until ``epochs`` are done; rank 0 has to do the same now."""
        self._tell("run", epochs)

    def close(self) -> None:
        """End the helpers."""
        for process, pipe in self._helpers:
            process.kill()
            process.join()
            pipe.close()
        self._helpers = []
        if self._team is not None:
            with contextlib.suppress(RuntimeError):
                self._team.leave()
            self._team = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the interpreter half of it is gone
            self.close()

    def _start(self) -> Team:
        spawn = multiprocessing.get_context("spawn")
        devices = self._context.devices
        self._folder = Path(tempfile.mkdtemp(prefix="ad-team-"))
        file = str(self._folder / "rendezvous")
        for rank, device in enumerate(devices[1:], 1):
            ours, theirs = spawn.Pipe()
            context = WorkerContext(self._context.index, device, self._context.threads)
            process = spawn.Process(
                target=self._body, args=(theirs, self._task, context, file, rank, len(devices)), daemon=True
            )
            process.start()
            theirs.close()
            self._helpers.append((process, ours))
        self._team = Team.join(file, 0, len(devices), devices[0])
        return self._team

    def _tell(self, *message: object) -> None:
        for _, pipe in self._helpers:
            with contextlib.suppress(OSError):  # a dead helper is noticed in the next step
                pipe.send(message)

    def _last_words(self) -> tuple[str, str] | None:
        for _, pipe in self._helpers:
            with contextlib.suppress(EOFError, OSError):
                if pipe.poll(_LAST_WORDS):
                    kind, text = pipe.recv()
                    return str(kind), str(text)
        return None
