"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults_runner import Runner


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked."""
    for item in items:
        if "tests/faults/" in item.nodeid or item.path.parent.name == "faults":
            item.add_marker("faults")


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with Runner() as one:
        yield one
