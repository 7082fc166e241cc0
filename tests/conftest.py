"""Fixtures that many tests share."""

from __future__ import annotations

import pytest

from autodistill.records import Objective
from autodistill.search.objectives import resolve


@pytest.fixture
def three_objectives() -> tuple[Objective, ...]:
    return resolve(["accuracy", "params", "latency_ms"])
