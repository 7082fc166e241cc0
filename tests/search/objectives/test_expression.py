from __future__ import annotations

import pytest

from autodistill.core.errors import UsageError
from autodistill.search.objectives.expression import matches

ROW = {"latency_ms": 4.0, "params": 2e5, "student.family": "resnet", "accuracy": 0.9}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency_ms <= 5 and params <= 2e6", True),
        ("latency_ms < 4", False),
        ("3 < latency_ms < 5", True),
        ("not latency_ms > 5", True),
        ("student.family == 'resnet' or params < 1", True),
        ("student.other == 'x'", False),
        ("accuracy >= -1", True),
    ],
)
def test_comparisons_are_evaluated_on_a_row(text: str, expected: bool) -> None:
    assert matches(text, ROW) is expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "latency_ms",
        "latency_ms <= open('x')",
        "(lambda: 1)() < 2",
        "[x for x in (1,)] == 1",
        "latency_ms <",
        "latency_ms is 4",
        "latency_ms < 'a'",
        "latencyms < 3",
        "().__class__ == 1",
        "9" * 600,
        "(" * 400,
        "\x00",
    ],
)
def test_anything_else_is_refused_and_nothing_runs(text: str) -> None:
    with pytest.raises(UsageError):
        matches(text, ROW)
