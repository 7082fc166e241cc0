"""Helper processes of a worker that trains each candidate on several devices (``runtime/distributed.py``).

Rank 0 is the worker itself: it measures, saves and reports. Each helper is a process with its own device. It builds
the same training from the same seeds and checkpoint, and runs the same steps as rank 0. Helpers live as long as the
worker. After any failure they are killed, and new ones are started for the next trial.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import Task, WorkerContext
from autodistill.core.scratch import ScratchFolder
from autodistill.training.runtime.distributed import Team
from autodistill.training.trials.training_spec import TrainingSpec

Body = Callable[[Connection, Task, WorkerContext, str, int, int], None]
"""Main function of a helper; its arguments are pipe to rank 0, task, context, rendezvous file, rank and size."""

_FAILURE_SECONDS = 3.0  # how long to wait for a helper's error message after a failure


class HelperProcesses:
    """The helper processes of one worker.

    Args:
        task: what the study trains.
        context: context of the worker; its ``devices`` are those of rank 0 and the helpers.
        body: main function of a helper process.
    """

    def __init__(self, task: Task, context: WorkerContext, body: Body) -> None:
        self._task, self._context, self._body = task, context, body
        self._helpers: list[tuple[SpawnProcess, Connection]] = []
        self._folder: ScratchFolder | None = None
        self._team: Team | None = None

    @contextlib.contextmanager
    def training(self, spec: TrainingSpec) -> Iterator[Team]:
        """Start a training in the helpers.

        Yields:
            The team, as rank 0.

        Raises:
            MemoryError: a helper ran out of memory.
            RuntimeError: a helper failed in another way.
        """
        team = self._team or self._start()
        self._send("begin", spec)
        try:
            yield team
        except (InterruptedTrialError, GeneratorExit):  # all processes are between the same two steps
            self._send("end")
            raise
        except BaseException as error:
            failure = self._read_failure()
            self.close()
            if failure is not None:
                kind, text = failure
                raise (MemoryError if kind in ("OutOfMemoryError", "MemoryError") else RuntimeError)(
                    f"a helper of this training failed with {kind}: {text}"
                ) from error
            raise
        self._send("end")

    def run(self, epochs: int) -> None:
        """Let the helpers train until ``epochs`` epochs are done; rank 0 must do the same right afterwards."""
        self._send("run", epochs)

    def close(self) -> None:
        """Kill the helper processes and remove their temporary folder."""
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
            self._folder.close()
            self._folder = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit, needed modules may be gone
            self.close()

    def _start(self) -> Team:
        spawn = multiprocessing.get_context("spawn")
        devices = self._context.devices
        self._folder = ScratchFolder("team")
        file = str(self._folder.path / "rendezvous")
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

    def _send(self, *message: object) -> None:
        for _, pipe in self._helpers:
            with contextlib.suppress(OSError):  # the next step detects a dead helper
                pipe.send(message)

    def _read_failure(self) -> tuple[str, str] | None:
        """Return type and message of a helper's error; None if no helper sent one."""
        for _, pipe in self._helpers:
            with contextlib.suppress(EOFError, OSError):
                if pipe.poll(_FAILURE_SECONDS):
                    kind, text = pipe.recv()
                    return str(kind), str(text)
        return None
