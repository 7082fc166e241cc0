"""Helper processes of a worker that trains each candidate on several devices (``distributed.py``).

Rank 0 is the worker itself: it measures, saves, reports. Each helper is a process with its own device that makes the
same training from the same seeds and checkpoint, and follows rank 0 step by step. Helpers live as long as the worker;
after any failure they are ended, and begun anew with the next trial.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.processes import die_with_parent
from autodistill.core.records import Candidate, Task, WorkerContext
from autodistill.training.runtime.distributed import Team

_LAST_WORDS = 3.0  # seconds that a helper has to say why it failed


class Crew:
    """The helpers of one worker.

    Args:
        task: what the study trains.
        context: the worker's; its ``devices`` are rank 0's and the helpers'.
    """

    def __init__(self, task: Task, context: WorkerContext) -> None:
        self._task, self._context = task, context
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
                target=_help, args=(theirs, self._task, context, file, rank, len(devices)), daemon=True
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


def _help(pipe: Connection, task: Task, context: WorkerContext, file: str, rank: int, size: int) -> None:
    """Body of a helper: follows rank 0's messages until the pipe ends."""
    from autodistill.training.trials.evaluate import Bench

    die_with_parent()
    try:
        team = Team.join(file, rank, size, context.device)
        bench = Bench(task, context)
        message = pipe.recv()
        while True:
            message = _follow(pipe, bench, team, message[1])
    except (EOFError, OSError):
        return
    except BaseException as error:
        with contextlib.suppress(OSError):
            pipe.send((type(error).__name__, str(error)))


def _follow(pipe: Connection, bench: Any, team: Team, candidate: Candidate) -> tuple[Any, ...]:
    """Train one candidate along; returns the message that begins the next."""
    from autodistill.training.trials.evaluate import Trial

    trainer = Trial(bench, candidate).follow(team)
    while True:
        message: tuple[Any, ...] = pipe.recv()
        if message[0] == "run":
            with contextlib.suppress(InterruptedTrialError):
                trainer.run(message[1], tick=functools.partial(_obey, team))
        elif message[0] == "begin":
            return message


def _obey(team: Team) -> None:
    """Before every step: stop where rank 0 stops."""
    if team.agree(False):
        raise InterruptedTrialError("rank 0 was asked to stop")
