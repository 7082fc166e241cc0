"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: two test processes share two cores

from collections.abc import Iterator

import pytest

from autodistill.core.records import Objective
from autodistill.search.objectives.objectives import resolve


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test caches goes to, or comes from, the user's cache folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTODISTILL_CACHE", str(tmp_path_factory.mktemp("user-cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def workers_of_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A single worker trains in the test's process: a spawned one imports torch for seven seconds, in each test.

    ``isolated`` gives a test what users have. Measurements of the tests stop nobody else's trainings.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTODISTILL_IN_PROCESS", "1")
    patch.setenv("AUTODISTILL_LEASE", str(tmp_path_factory.mktemp("lease")))
    yield
    patch.undo()


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single worker trains in a process of its own, as by default."""
    monkeypatch.delenv("AUTODISTILL_IN_PROCESS")


@pytest.fixture
def three_objectives() -> tuple[Objective, ...]:
    return resolve(["accuracy", "params", "latency_ms"])


@pytest.fixture(autouse=True, scope="session")
def hangups_count() -> None:
    """Undo an ignored SIGHUP, as under ``nohup``: children inherit it, and tests send that signal."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
