"""A program that forks a search for each request, so that hundreds of faults take seconds; and the searches it runs.

A line of JSON on stdin is one request, a line on stdout the answer. Every search runs in a process of its own, which a
fault may kill at any step.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from places import ROOT, TESTS

TOP = (1, 3, 9)
SPACE: dict[str, Any] = {
    "student": {
        "family": ["resnet", "mobilenet", "ghostnet"],
        "width": {"low": 0.25, "high": 2.0},
        "depth": {"low": 1, "high": 6},
    },
    "distillation": {"loss": ["none", "kd", "dkd"], "alpha": {"low": 0.1, "high": 0.9}},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "augmentation": ["none", "flip"]},
}
STEPS = ("commit", "replace", "fsync", "write")
"""Kinds of steps that a fault can hit: commits to the database, renames, flushes, and lines of the results file."""


def costs(student: Any) -> dict[str, float]:
    """Parameters grow with width and depth."""
    return {"params": 1e5 * float(student["width"]) ** 2 * int(student["depth"])}


def evaluate(candidate: Any) -> Iterator[Any]:
    """A training in closed form, with a best learning rate and a gain by distillation."""
    import autodistill as ad

    yield ad.Report(0, costs(candidate.student))
    size = float(candidate.student["width"]) ** 2 * candidate.student["depth"]
    best = 0.95 - 0.4 / (1 + size) - 0.03 * abs(math.log10(candidate.train["lr"]) + 2.3)
    best -= 0.05 if candidate.distillation["loss"] == "none" else 0.0
    for rung, epochs in enumerate(TOP, 1):
        accuracy = max(0.05, best * (1 - 0.7 * math.exp(-epochs / 3)))
        yield ad.Report(rung, {"accuracy": accuracy, **costs(candidate.student)}, float(epochs), 0.01 * epochs)


def hungry(candidate: Any) -> Iterator[Any]:
    """As :func:`evaluate`, but deep students take more memory than there is."""
    reports = evaluate(candidate)
    yield next(reports)
    if candidate.student["depth"] > 5:
        bytearray(1 << 36)
    yield from reports


def make(folder: Path, sampler: str = "random", seed: int = 0) -> Any:
    """Create or resume the study in a folder."""
    import autodistill as ad

    return ad.Study.create(
        name="faulty",
        space=SPACE,
        objectives=["accuracy", "params"],
        epochs=TOP[-1],
        rungs={"levels": list(TOP)},
        sampler=sampler,
        seed=seed,
        directory=folder,
    )


def table(folder: Path, sampler: str = "random", seed: int = 0) -> list[Any]:
    """All of a study's trials, without the seconds that they took."""
    return [
        (
            t.number,
            t.state.value,
            t.reason,
            t.values,
            t.student,
            t.distillation,
            t.train,
            t.seed,
            {rung: {name: v for name, v in values.items() if name != "seconds"} for rung, values in t.rungs.items()},
        )
        for t in make(folder, sampler, seed).trials()
    ]


def ended(folder: Path) -> dict[int, str]:
    """State of each trial that has ended, read without opening the study."""
    path = folder / "study.db"
    if not path.is_file():
        return {}
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT number, state FROM trials WHERE state NOT IN ('RUNNING', 'WAITING')")
        return dict(found.fetchall())
    except sqlite3.OperationalError:  # killed before there were tables
        return {}
    finally:
        connection.close()


# -- in the process of the search ------------------------------------------------------------------------------------


class Faults:
    """Counts the steps of a search, and lets one of them fail.

    Args:
        at: kind of step to its number, from 1.
        do: ``kill``, ``ENOSPC`` or ``EIO``.
    """

    def __init__(self, at: dict[str, int], do: str) -> None:
        self.counts = dict.fromkeys(STEPS, 0)
        self._at, self._do = at, do

    def step(self, kind: str) -> None:
        """Count one step; fail if it is the one."""
        self.counts[kind] += 1
        if self._at.get(kind) != self.counts[kind]:
            return
        if self._do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = {"ENOSPC": 28, "EIO": 5}[self._do]
        if kind == "commit":
            raise sqlite3.OperationalError("database or disk is full" if number == 28 else "disk I/O error")
        raise OSError(number, os.strerror(number))

    def install(self) -> None:
        """Watch this process."""
        import sqlalchemy
        from sqlalchemy.engine import Engine

        sqlalchemy.event.listen(Engine, "commit", lambda _: self.step("commit"))
        for kind, owner, name in (("replace", os, "replace"), ("replace", os, "rename"), ("fsync", os, "fsync")):
            setattr(owner, name, self._before(kind, getattr(owner, name)))
        from autodistill.search.storage import results_file

        results_file.ResultsFile.add = self._before("write", results_file.ResultsFile.add)  # type: ignore[method-assign]

    def _before(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            self.step(kind)
            return function(*args, **keys)

        return call


def _search(request: dict[str, Any]) -> dict[str, Any]:
    """Run a search in this process."""
    import autodistill as ad
    from autodistill.core.errors import AutodistillError

    for name, value in request.get("limits", {}).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if "FSIZE" in request.get("limits", {}):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a program that checks its writes
    faults = Faults(request.get("at", {}), request.get("do", "kill"))
    faults.install()
    try:
        study = make(Path(request["folder"]), request["sampler"], request["seed"])
        chosen = hungry if request.get("hungry") else evaluate
        ad.search(study, evaluate=chosen, costs=costs, budget=request["budget"], progress=False, workers=1)
    except AutodistillError as error:
        return {"code": error.exit_code, "said": str(error), "counts": faults.counts}
    except BaseException as error:
        return {"code": 1, "said": f"{type(error).__name__}: {error}", "counts": faults.counts}
    return {"code": 0, "said": "", "counts": faults.counts}


def _serve() -> None:
    import autodistill as ad

    with tempfile.TemporaryDirectory() as folder:  # imports everything once, before all forks
        study = make(Path(folder) / "study", "front")
        ad.search(study, evaluate=evaluate, costs=costs, budget="40epochs", progress=False, workers=1)
        getattr(study.storage, "_backend", study.storage).engine.dispose()
        del study
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            answer = _search(json.loads(line))
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        answer = json.loads(told) if told else {"code": -os.WTERMSIG(status), "said": "", "counts": {}}
        print(json.dumps(answer), flush=True)


# -- in the test -----------------------------------------------------------------------------------------------------


class Runner:
    """The forking program; a context manager."""

    def __enter__(self) -> Runner:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def search(
        self, folder: Path, budget: str, *, sampler: str = "random", seed: int = 0, **fault: Any
    ) -> dict[str, Any]:
        """Run one search to its end, or to its fault; ``code`` is negative if a signal killed it."""
        request = {"folder": str(folder), "budget": budget, "sampler": sampler, "seed": seed, **fault}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        began = time.monotonic()
        line = self._process.stdout.readline()
        assert line, f"the runner has ended after {time.monotonic() - began:.0f} s"
        found: dict[str, Any] = json.loads(line)
        return found


if __name__ == "__main__":
    _serve()
