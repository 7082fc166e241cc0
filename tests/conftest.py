"""Fixtures that many tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: two test processes share two cores

from collections.abc import Iterator

import pytest

from autodistill.records import Objective
from autodistill.search.objectives import resolve


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test caches goes to, or comes from, the user's cache folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTODISTILL_CACHE", str(tmp_path_factory.mktemp("user-cache")))
    yield
    patch.undo()


@pytest.fixture
def three_objectives() -> tuple[Objective, ...]:
    return resolve(["accuracy", "params", "latency_ms"])
